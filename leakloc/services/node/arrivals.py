"""Which studies have settled: nothing arrived for a while, and nobody is still sending."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Hashable


class Arrivals:
    """What arrives, by study; safe to use from several threads.

    DICOM has no sign that a study is complete, and senders open several associations for one.

    Parameters
    ----------
    settle_s : float
        How long a study must be quiet.
    clock : callable
        Seconds from anywhere.

    Examples
    --------
    >>> now = 0.0
    >>> arrivals = Arrivals(60.0, clock=lambda: now)
    >>> arrivals.arrived("1.2.3", "sender")
    >>> now = 61.0
    >>> arrivals.settled()
    ()
    >>> arrivals.left("sender")
    >>> arrivals.settled()
    ('1.2.3',)
    """

    def __init__(self, settle_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._settle_s, self._clock = settle_s, clock
        self._lock = threading.Lock()
        self._last: dict[str, float] = {}
        self._senders: defaultdict[str, set[Hashable]] = defaultdict(set)

    def arrived(self, study_uid: str, sender: Hashable = None) -> None:
        """Note an object of a study, and who may send more of it until `left`."""
        with self._lock:
            self._last[study_uid] = self._clock()
            if sender is not None:
                self._senders[study_uid].add(sender)

    def left(self, sender: Hashable) -> None:
        """Note that a sender is gone, however it went."""
        with self._lock:
            for study_uid in [uid for uid, senders in self._senders.items() if sender in senders]:
                self._senders[study_uid].discard(sender)
                if not self._senders[study_uid]:
                    del self._senders[study_uid]

    def complete(self, study_uid: str) -> None:
        """Note that a study is known to be complete: it has settled now."""
        with self._lock:
            self._last[study_uid] = self._clock() - self._settle_s

    def settled(self) -> tuple[str, ...]:
        """Studies that have settled since the last call."""
        now = self._clock()
        with self._lock:
            quiet = tuple(
                uid
                for uid, last in self._last.items()
                if now - last >= self._settle_s and uid not in self._senders
            )
            for uid in quiet:
                del self._last[uid]
        return quiet

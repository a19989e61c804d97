"""Detection of settled studies: no new objects for some time and no active sender."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Hashable


class Arrivals:
    """Tracks received objects by study; thread-safe.

    DICOM does not signal a complete study, and senders may open several associations for one.

    Parameters
    ----------
    settle_s : float
        Time without new objects after which a study has settled.
    clock : callable
        Returns seconds from an arbitrary origin.

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
        """Record an object of a study and its sender, which is active until `left`."""
        with self._lock:
            self._last[study_uid] = self._clock()
            if sender is not None:
                self._senders[study_uid].add(sender)

    def left(self, sender: Hashable) -> None:
        """Record that a sender has disconnected."""
        with self._lock:
            for study_uid in [uid for uid, senders in self._senders.items() if sender in senders]:
                self._senders[study_uid].discard(sender)
                if not self._senders[study_uid]:
                    del self._senders[study_uid]

    def complete(self, study_uid: str) -> None:
        """Mark a study as complete, and therefore settled."""
        with self._lock:
            self._last[study_uid] = self._clock() - self._settle_s

    def settled(self) -> tuple[str, ...]:
        """Return the studies that have settled since the last call."""
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

"""Sending of objects to a peer by C-STORE and verification of a peer by C-ECHO."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from pydicom import dcmread

from leakloc.core.errors import SettingsError
from leakloc.core.extras import LazyModule, need
from leakloc.services.node.receiver import check_title, client_tls, silence

if TYPE_CHECKING:
    from leakloc.core.settings import NodeSettings

pynetdicom = LazyModule("pynetdicom", "node")

_PEER: Final = re.compile(r"(?P<title>[^@]+)@(?P<host>\[[0-9a-fA-F:]+\]|[^:@\s]+):(?P<port>\d+)")
_UNCOMPRESSED: Final = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")
_MAX_CONTEXTS: Final = 128  # of one association, DICOM PS3.8
_MAX_REPEATS: Final = 3  # of a lost association; each may take the network timeout
_VERIFICATION: Final = "1.2.840.10008.1.1"


@dataclass(frozen=True)
class Parcel:
    """An object to send.

    Parameters
    ----------
    path : Path
    sop_uid : str
    study_uid : str
    tried : bool
        Whether sending was tried before, so that the peer may already have it.
    """

    path: Path
    sop_uid: str
    study_uid: str
    tried: bool = False


Answer = tuple[Parcel, str | None]
"""An object and why it was not accepted; None if the peer accepted it."""


class Sender(Protocol):
    """Protocol of a sender of objects to one peer."""

    @property
    def name(self) -> str:
        """Name of the peer in the ledger."""

    def send(self, parcels: Sequence[Parcel]) -> Iterator[Answer]:
        """Send objects and yield each answer immediately. Does not raise."""


@dataclass(frozen=True)
class Peer:
    """A DICOM node.

    Parameters
    ----------
    title : str
    host : str
    port : int

    Examples
    --------
    >>> Peer.parse("ORTHANC@localhost:4242")
    Peer(title='ORTHANC', host='localhost', port=4242)
    """

    title: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Peer:
        """Read ``AET@host:port``.

        Raises
        ------
        SettingsError
            If it is not of that form.
        """
        found = _PEER.fullmatch(text)
        if found is None or not 0 < int(found["port"]) <= 65535:
            raise SettingsError(f"{text!r} is not a peer: use AET@host:port")
        check_title(found["title"])
        return cls(found["title"], found["host"].strip("[]"), int(found["port"]))

    def __str__(self) -> str:
        return f"{self.title}@{self.host}:{self.port}"


class StoreSender:
    """Sends objects by C-STORE.

    Parameters
    ----------
    peer : Peer
    title : str
        Calling AE title.
    settings : NodeSettings

    Raises
    ------
    SettingsError
        If pynetdicom is not installed or a certificate cannot be read.
    """

    def __init__(self, peer: Peer, title: str, settings: NodeSettings) -> None:
        need("pynetdicom", "node")
        silence()
        self._peer, self._title, self._settings = peer, title, settings
        self._tls = client_tls(settings)

    @property
    def name(self) -> str:
        """Name of the peer in the ledger."""
        return str(self._peer)

    def send(self, parcels: Sequence[Parcel]) -> Iterator[Answer]:
        """Send objects over one association and yield each answer immediately.

        A lost association is opened again for the next object, at most three times.
        """
        kinds: set[tuple[str, str]] = set()
        for parcel in parcels:
            try:
                header = dcmread(parcel.path, specific_tags=[], stop_before_pixels=True)
            except Exception:  # reported below, when it is read for sending
                continue
            meta = header.file_meta
            kinds.add((str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)))
        association = self._associate(sorted(kinds))
        if association is None:
            yield from ((parcel, "the peer cannot be reached") for parcel in parcels)
            return
        if not association.is_established:
            yield from ((parcel, "the peer refused the association") for parcel in parcels)
            return
        repeats = _MAX_REPEATS
        try:
            for parcel in parcels:
                if not association.is_established and repeats:
                    repeats -= 1
                    association = self._associate(sorted(kinds)) or association
                yield parcel, self._send_one(association, parcel)
        finally:
            if association.is_established:
                association.release()

    def _associate(self, kinds: Sequence[tuple[str, str]]) -> Any:
        entity = _entity(self._title, self._settings)
        for sop_class, syntax in kinds[:_MAX_CONTEXTS]:
            choice = _UNCOMPRESSED if syntax in _UNCOMPRESSED else (syntax,)
            entity.add_requested_context(sop_class, list(choice))
        return _associated(entity, self._peer, self._tls)

    def _send_one(self, association: Any, parcel: Parcel) -> str | None:
        if not association.is_established:
            return "the connection was lost"
        try:
            status = association.send_c_store(dcmread(parcel.path))
        except ValueError:  # no accepted presentation context
            return "the peer does not take this kind of object"
        except Exception as error:  # an error of the file, the network or the peer
            return f"it could not be sent ({type(error).__name__})"
        code = status.get("Status")
        if code is None:
            return "the peer did not answer"
        # Warnings (Bxxx): the object was stored, with elements coerced or omitted.
        return None if code == 0 or code >> 12 == 0xB else f"the peer refused it ({code:04X})"


def echo(peer: Peer, title: str, settings: NodeSettings) -> bool:
    """Return whether a peer responds to a C-ECHO.

    Parameters
    ----------
    peer : Peer
    title : str
        Calling AE title.
    settings : NodeSettings
    """
    need("pynetdicom", "node")
    silence()
    entity = _entity(title, settings)
    entity.add_requested_context(_VERIFICATION)
    association = _associated(entity, peer, client_tls(settings))
    if association is None or not association.is_established:
        return False
    try:
        return bool(association.send_c_echo().get("Status") == 0)
    finally:
        association.release()


def _entity(title: str, settings: NodeSettings) -> Any:
    entity = pynetdicom.AE(ae_title=title)
    entity.connection_timeout = entity.acse_timeout = settings.network_timeout_s
    entity.dimse_timeout = entity.network_timeout = settings.network_timeout_s
    return entity


def _associated(entity: Any, peer: Peer, tls: Any) -> Any:
    """An association, established or not; None if the peer cannot be reached."""
    try:
        return entity.associate(
            peer.host,
            peer.port,
            ae_title=peer.title,
            tls_args=(tls, peer.host) if tls is not None else None,
        )
    except (OSError, RuntimeError, ssl.SSLError):
        return None

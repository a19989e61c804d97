"""Receiver of objects: a C-STORE and C-ECHO service class provider.

The port may receive arbitrary data, so the size is limited before parsing, only announced images
from allowed senders are accepted, and nothing is analyzed here.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from leakloc.core.errors import InputError, OutputError, SettingsError
from leakloc.core.extras import LazyModule, need
from leakloc.services.node.arrivals import Arrivals
from leakloc.services.node.spool import IMAGES, Spool, is_uid

if TYPE_CHECKING:
    from leakloc.core.settings import NodeSettings

pynetdicom = LazyModule("pynetdicom", "node")

SUCCESS: Final = 0x0000
OUT_OF_RESOURCES: Final = 0xA700
CANNOT_UNDERSTAND: Final = 0xC000
TRANSFER_SYNTAXES: Final = (
    "1.2.840.10008.1.2.1",  # explicit little endian, preferred: no conversion at either end
    "1.2.840.10008.1.2",  # implicit little endian
    "1.2.840.10008.1.2.2",  # explicit big endian
    "1.2.840.10008.1.2.1.99",  # deflated
    "1.2.840.10008.1.2.5",  # RLE
    "1.2.840.10008.1.2.4.57",  # JPEG lossless
    "1.2.840.10008.1.2.4.70",  # JPEG lossless, first-order prediction
    "1.2.840.10008.1.2.4.80",  # JPEG-LS lossless
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 lossless
    "1.2.840.10008.1.2.4.81",  # JPEG-LS
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
    "1.2.840.10008.1.2.4.50",  # JPEG baseline
)
"""Supported transfer syntaxes, in order of preference."""

_LOG = logging.getLogger("leakloc.node")
_MIB: Final = 1024**2
_PDU_BYTES: Final = 131072  # requested from senders: larger PDUs are not faster on a local network
_REQUEST_BYTES: Final = 1_048_576  # an association request with 128 contexts has about 20 KiB
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_TITLE_LENGTH: Final = 16


@dataclass(frozen=True)
class Listen:
    """Address of the node and allowed senders.

    Parameters
    ----------
    title : str
        AE title of the node, required as called AE title.
    port : int
    bind : str
        Address to listen on.
    allow : tuple of str
        Allowed calling AE titles; all if empty, which requires a loopback address.

    Raises
    ------
    SettingsError
        If a value is invalid, or any machine on the network could send.
    """

    title: str = "LEAKLOC"
    port: int = 11112
    bind: str = "127.0.0.1"
    allow: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for title in (self.title, *self.allow):
            check_title(title)
        if not 0 <= self.port <= 65535:
            raise SettingsError(f"{self.port} is not a valid port")
        if not self.allow and self.bind not in _LOOPBACK:
            raise SettingsError(
                f"{self.bind} is reachable from other machines; specify allowed senders with "
                "--allow AET"
            )


def check_title(title: str) -> None:
    """Check an AE title.

    Raises
    ------
    SettingsError
        If it is invalid.
    """
    fits = 0 < len(title) <= _TITLE_LENGTH and title == title.strip()
    if not (fits and title.isascii() and title.isprintable() and "\\" not in title):
        raise SettingsError(f"{title!r} is not an AE title: use 1 to 16 printable ASCII characters")


class Receiver:
    """Receiving side of the node.

    Parameters
    ----------
    listen : Listen
    spool : Spool
    arrivals : Arrivals
    settings : NodeSettings

    Raises
    ------
    SettingsError
        If pynetdicom is not installed, or a setting is invalid.
    """

    def __init__(
        self, listen: Listen, spool: Spool, arrivals: Arrivals, settings: NodeSettings
    ) -> None:
        need("pynetdicom", "node")
        self._listen, self._spool, self._arrivals = listen, spool, arrivals
        self._settings = settings
        self._budget = _Budget(settings.max_receiving_mib * _MIB)
        self._server: Any = None

    @property
    def port(self) -> int:
        """Listening port, available after `start`."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Start listening.

        Raises
        ------
        SettingsError
            If the port or address cannot be used, or the certificate cannot be read.
        """
        silence()
        settings, listen = self._settings, self._listen
        entity = pynetdicom.AE(ae_title=listen.title)
        entity.require_called_aet = True
        entity.require_calling_aet = list(listen.allow)
        entity.maximum_associations = settings.max_associations
        entity.maximum_pdu_size = _PDU_BYTES
        entity.acse_timeout = entity.dimse_timeout = settings.network_timeout_s
        entity.network_timeout = settings.network_timeout_s
        entity.add_supported_context("1.2.840.10008.1.1")  # Verification
        for sop_class in sop_classes(settings):
            entity.add_supported_context(sop_class, list(TRANSFER_SYNTAXES))
        try:
            self._server = entity.start_server(
                (listen.bind, listen.port),
                block=False,
                ssl_context=server_tls(settings),
                evt_handlers=[
                    (pynetdicom.evt.EVT_C_ECHO, lambda _event: SUCCESS),
                    (pynetdicom.evt.EVT_C_STORE, self._stored),
                    (pynetdicom.evt.EVT_CONN_OPEN, self._opened),
                    (pynetdicom.evt.EVT_CONN_CLOSE, self._closed),
                    (pynetdicom.evt.EVT_REJECTED, self._rejected),
                ],
            )
        except OSError as error:
            raise SettingsError(
                f"cannot listen on {listen.bind} port {listen.port}: {error.strerror}"
            ) from error

    def stop(self) -> None:
        """Stop listening; senders resend objects that were not acknowledged."""
        if self._server is not None:
            self._server.ae.shutdown()

    def _opened(self, event: Any) -> None:
        """Limit the data read from a new connection before anything is parsed."""
        connection = event.assoc.dul.socket
        connection.socket.settimeout(self._settings.network_timeout_s)
        meter = _Meter(
            connection.recv, event.assoc, self._settings.max_instance_mib * _MIB, self._budget
        )
        connection.recv = meter.recv
        event.assoc.leakloc_meter = meter

    def _closed(self, event: Any) -> None:
        event.assoc.leakloc_meter.done()
        self._arrivals.left(id(event.assoc))

    def _rejected(self, event: Any) -> None:
        requestor = event.assoc.requestor
        _LOG.warning(
            "refused an association of %s at %s", printable(requestor.ae_title), requestor.address
        )

    def _stored(self, event: Any) -> int:
        """Store an object and return the status, which tells the sender whether it is stored."""
        meter: _Meter = event.assoc.leakloc_meter
        try:
            return self._keep(event)
        finally:
            meter.done()

    def _keep(self, event: Any) -> int:
        request = event.request
        try:
            study_uid = self._spool.store(
                event.encoded_dataset(),
                str(request.AffectedSOPInstanceUID),
                str(request.AffectedSOPClassUID),
            )
        except OutputError as error:
            _LOG.error("refused an object (A700): %s", error)
            return OUT_OF_RESOURCES
        except InputError as error:
            owner = printable(event.assoc.requestor.ae_title)
            _LOG.warning("refused an object of %s (C000): %s", owner, error)
            return CANNOT_UNDERSTAND
        self._arrivals.arrived(study_uid, id(event.assoc))
        return SUCCESS


def sop_classes(settings: NodeSettings) -> tuple[str, ...]:
    """Return the accepted storage SOP classes.

    Raises
    ------
    SettingsError
        If an additional one is not a UID.
    """
    for uid in settings.also_accept:
        if not is_uid(uid):
            raise SettingsError(f"node.also_accept takes UIDs, not {uid!r}")
    return tuple(dict.fromkeys((*IMAGES, *settings.also_accept)))


def printable(text: object) -> str:
    """Text of a peer made safe for logs: short, without control characters."""
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in str(text))[:_TITLE_LENGTH]


class _Budget:
    """Limit of the bytes being received from all senders together."""

    def __init__(self, limit: int) -> None:
        self._limit, self._used = limit, 0
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        with self._lock:
            if self._used + size > self._limit:
                return False
            self._used += size
            return True

    def give_back(self, size: int) -> None:
        with self._lock:
            self._used -= size


class _Meter:
    """Reads from one connection and closes it if a limit is exceeded."""

    def __init__(self, recv: Any, association: Any, limit: int, budget: _Budget) -> None:
        self._recv, self._association = recv, association
        self._limit, self._budget = limit, budget
        self._lock = threading.Lock()
        self._taken = 0

    def recv(self, size: int) -> bytearray:
        """Read `size` bytes, as the socket of pynetdicom does."""
        # Lengths are stated by the peer and not trusted: limit the request and each PDU.
        established = self._association.is_established
        maximum = 2 * _PDU_BYTES if established else _REQUEST_BYTES
        if size > maximum or self._taken + size > self._limit or not self._budget.take(size):
            _LOG.error("closed a connection that sent more than the node's settings allow")
            raise OSError("limit exceeded")
        with self._lock:
            self._taken += size
        content: bytearray = self._recv(size)
        return content

    def done(self) -> None:
        """Release the budget of the data read, which was stored or discarded."""
        with self._lock:
            self._budget.give_back(self._taken)
            self._taken = 0


class _LateHandshake(ssl.SSLContext):
    """TLS handshake in the thread of the connection, so that a silent peer blocks no other."""

    def wrap_socket(self, sock: socket.socket, *args: Any, **options: Any) -> ssl.SSLSocket:
        return super().wrap_socket(sock, *args, **{**options, "do_handshake_on_connect": False})


def server_tls(settings: NodeSettings) -> ssl.SSLContext | None:
    """Return the TLS context for senders; None if the settings have no certificate.

    Raises
    ------
    SettingsError
        If a certificate or key cannot be read.
    """
    if not settings.tls_certificate:
        if settings.tls_authorities and not settings.tls_return:
            raise SettingsError("node.tls_authorities needs node.tls_certificate")
        return None
    context = _LateHandshake(ssl.PROTOCOL_TLS_SERVER)
    _load(context, settings)
    if settings.tls_authorities:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_tls(settings: NodeSettings) -> ssl.SSLContext | None:
    """Return the TLS context for returning results; None if not enabled in the settings.

    Raises
    ------
    SettingsError
        If a certificate or key cannot be read.
    """
    if not settings.tls_return:
        return None
    context = ssl.create_default_context()
    _load(context, settings)
    return context


def _load(context: ssl.SSLContext, settings: NodeSettings) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if settings.tls_certificate:
            context.load_cert_chain(settings.tls_certificate, settings.tls_key or None)
        if settings.tls_authorities:
            context.load_verify_locations(settings.tls_authorities)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"cannot read the certificate, key or authorities named in [node]: {error}"
        ) from error


def silence() -> None:
    """Disable the log of pynetdicom, which may contain data sent by peers."""
    pynetdicom._config.LOG_HANDLER_LEVEL = "none"  # otherwise it formats every PDU for the log
    logger = logging.getLogger("pynetdicom")
    logger.setLevel(logging.CRITICAL + 1)
    logger.propagate = False


def titles(texts: Sequence[str]) -> tuple[str, ...]:
    """Split AE titles listed individually or separated by commas."""
    return tuple(t.strip() for text in texts for t in text.split(",") if t.strip())

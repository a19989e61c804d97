"""Receiver of objects: a C-STORE and C-ECHO service class provider.

The port may receive arbitrary data, so size and duration are limited before parsing, only announced
images from allowed senders are accepted, and nothing is analyzed here. Connections without an
association do not occupy the places of associations, and no peer address can occupy all of them.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from leakloc.core.errors import InputError, OutputError, SettingsError
from leakloc.core.extras import LazyModule, need
from leakloc.services.node.arrivals import Arrivals
from leakloc.services.node.spool import IMAGES, ConflictError, Spool, TooLargeError, is_uid

if TYPE_CHECKING:
    from leakloc.core.settings import NodeSettings

pynetdicom = LazyModule("pynetdicom", "node")

SUCCESS: Final = 0x0000
DUPLICATE: Final = 0x0111  # "duplicate SOP instance", DICOM PS3.7 annex C
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
_PENDING_FACTOR: Final = 2  # connections without an association, per permitted association
_RESERVE: Final = 4  # one place in four is kept for other addresses than the most active one
_READ_BYTES: Final = 65536  # read from a socket at a time


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
        self._budget = _Budget(settings.max_receiving_mib * _MIB, settings.max_instance_mib * _MIB)
        self._connections = _Connections(settings.max_associations)
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
        # Counted by `_Connections`: pynetdicom also counts connections without an association.
        entity.maximum_associations = 1_000_000
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
                    (pynetdicom.evt.EVT_C_ECHO, self._echoed),
                    (pynetdicom.evt.EVT_C_STORE, self._stored),
                    (pynetdicom.evt.EVT_CONN_OPEN, self._opened),
                    (pynetdicom.evt.EVT_CONN_CLOSE, self._closed),
                    (pynetdicom.evt.EVT_REQUESTED, self._requested),
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
        meter = _Meter(connection.socket, event.address[0], self._settings, self._budget)
        connection.recv = meter.recv
        event.assoc.leakloc_meter = meter
        # pynetdicom does not report every connection as closed, so the end of its thread counts.
        event.assoc.run = partial(self._run, event.assoc, event.assoc.run)
        self._connections.opened(meter)

    def _run(self, association: Any, run: Callable[[], None]) -> None:
        try:
            run()
        finally:
            self._release(association)

    def _closed(self, event: Any) -> None:
        self._release(event.assoc)
        if not event.assoc.leakloc_meter.is_established:
            # Otherwise the thread waits for an association request until the timeout.
            event.assoc.dul.to_user_queue.put(None)

    def _release(self, association: Any) -> None:
        meter: _Meter = association.leakloc_meter
        self._connections.closed(meter)
        meter.done()
        self._arrivals.left(id(association))

    def _requested(self, event: Any) -> None:
        """Reject an association beyond the limits; pynetdicom rejects those of other titles."""
        request, listen = event.assoc.requestor.primitive, self._listen
        if listen.allow and request.calling_ae_title not in listen.allow:
            return
        if request.called_ae_title != listen.title:
            return
        meter: _Meter = event.assoc.leakloc_meter
        if self._connections.established(meter):
            meter.establish()
            return
        event.assoc.requestor.ae_title = request.calling_ae_title
        event.assoc.acse.send_reject(0x02, 0x03, 0x02)  # transient: local limit exceeded
        self._rejected(event)
        event.assoc.kill()

    def _echoed(self, event: Any) -> int:
        event.assoc.leakloc_meter.done()
        return SUCCESS

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
            owner, status = printable(event.assoc.requestor.ae_title), _status(error)
            _LOG.warning("refused an object of %s (%04X): %s", owner, status, error)
            return status
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


def _status(error: InputError) -> int:
    """DICOM status of a refused object."""
    if isinstance(error, TooLargeError):
        return OUT_OF_RESOURCES
    return DUPLICATE if isinstance(error, ConflictError) else CANNOT_UNDERSTAND


class _Budget:
    """Limit of the bytes being received from all senders together and from each address.

    One address may use three quarters, or as much as one object of the maximum size needs.
    """

    def __init__(self, limit: int, largest: int) -> None:
        self._limit = limit
        self._max_by_address = max(limit - limit // _RESERVE, min(largest, limit))
        self._used: Counter[str] = Counter()
        self._lock = threading.Lock()

    def take(self, address: str, size: int) -> bool:
        with self._lock:
            if (
                self._used[address] + size > self._max_by_address
                or self._used.total() + size > self._limit
            ):
                return False
            self._used[address] += size
            return True

    def give_back(self, address: str, size: int) -> None:
        with self._lock:
            self._used[address] -= size
            if not self._used[address]:
                del self._used[address]


class _Connections:
    """Open connections: those without an association, and associations.

    Too many connections without an association close the oldest one of the address that has most
    of them, so that a peer that completes its request is not affected. One address may have three
    quarters of the associations.
    """

    def __init__(self, max_associations: int) -> None:
        self._limit = max_associations
        self._max_by_address = max_associations - max_associations // _RESERVE
        self._pending: dict[_Meter, None] = {}  # oldest first
        self._established: set[_Meter] = set()
        self._lock = threading.Lock()

    def opened(self, meter: _Meter) -> None:
        with self._lock:
            self._pending[meter] = None
            if len(self._pending) <= _PENDING_FACTOR * self._limit:
                return
            counts = Counter(one.address for one in self._pending)
            most = max(counts.values())
            oldest = next(one for one in self._pending if counts[one.address] == most)
            del self._pending[oldest]
        oldest.close()

    def established(self, meter: _Meter) -> bool:
        """Whether an association is within the limits; it is then counted."""
        with self._lock:
            own = sum(one.address == meter.address for one in self._established)
            if len(self._established) >= self._limit or own >= self._max_by_address:
                return False
            self._pending.pop(meter, None)
            self._established.add(meter)
            return True

    def closed(self, meter: _Meter) -> None:
        with self._lock:
            self._pending.pop(meter, None)
            self._established.discard(meter)


class _Meter:
    """Reads from one connection and closes it if a limit of size or duration is exceeded."""

    def __init__(
        self, connection: socket.socket, address: str, settings: NodeSettings, budget: _Budget
    ) -> None:
        self.address = address
        self._socket, self._budget = connection, budget
        self._limit = settings.max_instance_mib * _MIB
        self._timeout_s = settings.network_timeout_s
        self._min_rate = settings.min_rate_kib_s * 1024  # bytes per second
        self._lock = threading.Lock()
        self.is_established = False
        self._taken = 0
        self._begun: float | None = time.monotonic()  # of the request or object being read
        self._received = 0  # bytes since

    def establish(self) -> None:
        """Apply the limits of an association from now on."""
        self.is_established = True
        self.done()

    def recv(self, size: int) -> bytearray:
        """Read `size` bytes, as the socket of pynetdicom does."""
        # Lengths are stated by the peer and not trusted: limit the request and each PDU.
        maximum = 2 * _PDU_BYTES if self.is_established else _REQUEST_BYTES
        if (
            size > maximum
            or self._taken + size > self._limit
            or not self._budget.take(self.address, size)
        ):
            _LOG.error("closed a connection that sent more than the node's settings allow")
            raise OSError("limit exceeded")
        with self._lock:
            self._taken += size
            if self._begun is None:
                self._begun = time.monotonic()
        content = bytearray()
        while len(content) < size:
            part = self._read(size - len(content))
            if not part:
                break
            content += part
        return content

    def _read(self, size: int) -> bytes:
        left = self._deadline() - time.monotonic()
        if left > 0:
            self._socket.settimeout(min(left, self._timeout_s))
            with suppress(TimeoutError):
                content = self._socket.recv(min(size, _READ_BYTES))
                self._received += len(content)
                self._socket.settimeout(self._timeout_s)  # for responses
                return content
        _LOG.warning("closed a connection of %s that sent too slowly", self.address)
        raise TimeoutError

    def _deadline(self) -> float:
        """Time by which the request, or more of the object at the minimum rate, must arrive."""
        begun = time.monotonic() if self._begun is None else self._begun
        if not self.is_established:
            return begun + self._timeout_s
        if not self._min_rate:
            return float("inf")
        return begun + self._timeout_s + self._received / self._min_rate

    def done(self) -> None:
        """Release the budget of the data read, which was stored or discarded."""
        with self._lock:
            self._budget.give_back(self.address, self._taken)
            self._taken = self._received = 0
            self._begun = None

    def close(self) -> None:
        """Close the connection; its thread ends when it reads the end of the data."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


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

"""Retrieval of studies from a DICOMweb server and storage of results (QIDO, WADO, STOW).

Works with any conforming server. Retrieved studies are recorded in the ledger by their MR series
and image counts, so that stored results do not make a study appear new.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from io import BytesIO
from socket import SHUT_RDWR
from threading import Event, Timer
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit, urlunsplit

from pydicom import dcmread, dcmwrite

from leakloc.core.errors import AnalysisError, InputError, LeaklocError, SettingsError
from leakloc.core.extras import LazyModule, need
from leakloc.core.settings import LoaderSettings
from leakloc.loaders.names import MYELOGRAPHY, SPINE, normalized
from leakloc.services.node.sender import Answer, Parcel
from leakloc.services.node.spool import check_inflated, is_uid

if TYPE_CHECKING:
    from leakloc.core.settings import NodeSettings
    from leakloc.services.batch.ledger import Ledger
    from leakloc.services.node.arrivals import Arrivals
    from leakloc.services.node.spool import Spool

dicomweb = LazyModule("dicomweb_client.api", "node")
requests = LazyModule("requests", "node")

USER: Final = "LEAKLOC_DICOMWEB_USER"
PASSWORD: Final = "LEAKLOC_DICOMWEB_PASSWORD"
_LOG = logging.getLogger("leakloc.node")
_PAGE: Final = 200  # studies per query: servers limit responses, some to 1000
_MAX_PAGES: Final = 500  # 100,000 studies; prevents an endless loop over repeated pages
_AS_STORED: Final = (("application/dicom", "*"),)
_STUDY_UID, _SERIES_UID, _SOP_UID = "0020000D", "0020000E", "00080018"
_MODALITY, _INSTANCES = "00080060", "00201209"
_TEXTS: Final = (
    "00081030",
    "0008103E",
    "00180015",
    "00181030",
)  # descriptions, body part, protocol
_MIB: Final = 1024**2
_MAX_ANSWER_BYTES: Final = 32 * _MIB  # a page of 200 studies has less than 1 MiB
_READ_BYTES: Final = 65536  # of a response at a time
_MAX_WAIT_S: Final = 3600.0  # between two tries to retrieve a study
_MAX_TEXT: Final = 256  # characters of a description held in memory; DICOM permits 64
_MALFORMED: Final = "malformed"  # in place of a UID
_BEGUN: Final = ""  # signature of a study that is being retrieved
_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS node_fetched "
    "(server TEXT, study_uid TEXT, signature TEXT NOT NULL, PRIMARY KEY (server, study_uid))",
    "CREATE TABLE IF NOT EXISTS node_not_fetched (server TEXT, study_uid TEXT, "
    "tries INTEGER NOT NULL, error TEXT NOT NULL, PRIMARY KEY (server, study_uid))",
)


@dataclass(frozen=True)
class Remote:
    """A study on a server.

    Parameters
    ----------
    study_uid : str
    series : dict
        Number of images by UID of each MR series.
    texts : tuple of str
        Descriptions; may contain the patient name and are not stored or logged.
    """

    study_uid: str
    series: dict[str, int]
    texts: tuple[str, ...]

    @property
    def signature(self) -> str:
        """Identifier that changes when an MR series or image is added."""
        return json.dumps(sorted(self.series.items()))


class Server:
    """A DICOMweb server.

    User and password are read from the environment (``LEAKLOC_DICOMWEB_USER``,
    ``..._PASSWORD``), so that they do not appear in process lists or logs.

    Parameters
    ----------
    url : str
        Root of its services; for Orthanc, the root of the server is sufficient.
    settings : NodeSettings
        Limits of the size, duration and rate of responses.
    loaders : LoaderSettings, optional
        Limit of the decoded size of an object.

    Raises
    ------
    SettingsError
        If the URL is invalid, or dicomweb-client is not installed.
    """

    def __init__(
        self, url: str, settings: NodeSettings, loaders: LoaderSettings | None = None
    ) -> None:
        need("dicomweb_client", "node")

        self.url = web_root(url)
        self._settings = settings
        self._max_decoded_mib = (loaders or LoaderSettings()).max_decoded_mib
        self._unlisted: set[str] = set()
        for name in ("dicomweb_client", "urllib3"):  # they log addresses and responses
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)

    @property
    def name(self) -> str:
        """Name of the server in the ledger."""
        return self.url

    def client(self) -> Any:
        """Return a client of dicomweb-client whose responses are limited."""
        session = requests.Session()
        if os.environ.get(USER):
            session.auth = (os.environ[USER], os.environ.get(PASSWORD, ""))
        limits = _Limits(self._settings, self._max_decoded_mib)
        for scheme in ("http://", "https://"):
            session.mount(scheme, _limited_adapter(limits))
        client = dicomweb.DICOMwebClient(
            self.url, session=session, timeout=self._settings.network_timeout_s
        )
        client.set_http_retry_params(retry=False)  # the node retries later
        # dicomweb-client parses each part, which inflates a deflated object completely.
        client._decode_multipart_message = partial(
            _checked_parts, client._decode_multipart_message, limits
        )
        return client

    def recent(self, today: date | None = None) -> list[Remote]:
        """Return the MR studies of the last days (`node.look_back_days`).

        Raises
        ------
        AnalysisError
            If the request fails or the response does not conform to the standard.
        """
        today = today or date.today()
        first = today - timedelta(days=self._settings.look_back_days)
        filters = {
            "ModalitiesInStudy": "MR",
            "StudyDate": f"{first:%Y%m%d}-{today + timedelta(days=1):%Y%m%d}",
        }
        client = self.client()
        studies: dict[str, tuple[str, ...]] = {}
        with _converted_errors("listing studies"):
            for page in range(_MAX_PAGES):
                found = client.search_for_studies(
                    search_filters=filters,
                    fields=["StudyDescription"],
                    limit=_PAGE,
                    offset=page * _PAGE,
                )
                new = {_study_uid(study): _texts_of(study) for study in found}
                if not new.keys() - studies.keys():
                    break
                studies.update(new)
                if len(found) < _PAGE:
                    break
        return self._described(client, studies)

    def _described(self, client: Any, studies: dict[str, tuple[str, ...]]) -> list[Remote]:
        """Query the series of each study; one that fails does not affect the others."""
        described: list[Remote] = []
        problem: AnalysisError | None = None
        if _MALFORMED in studies:
            problem = AnalysisError("listing studies failed (a malformed entry)")
        for uid, texts in studies.items():
            if not is_uid(uid):
                continue
            try:
                with _converted_errors("listing studies"):
                    described.append(self._study(client, uid, texts))
            except AnalysisError as error:
                problem = error
                if uid not in self._unlisted:  # logged once
                    self._unlisted.add(uid)
                    _LOG.warning("cannot query the series of study %s: %s", uid, error)
        if problem is not None and not described:
            raise problem
        return described

    def _study(self, client: Any, study_uid: str, texts: tuple[str, ...]) -> Remote:
        listed = client.search_for_series(
            study_uid,
            search_filters={"Modality": "MR"},
            fields=["SeriesDescription", "BodyPartExamined", "ProtocolName"],
        )
        series = [one for one in listed if _value(one, _MODALITY) == "MR"]
        texts += tuple(text for one in series for text in _texts_of(one))
        counts = {
            uid: int(_value(one, _INSTANCES) or 0)
            for one in series
            if is_uid(uid := _value(one, _SERIES_UID))
        }
        return Remote(study_uid, counts, texts)

    def images(self, study: Remote) -> Iterator[tuple[bytes, str]]:
        """Yield the MR objects of a study as files, each with its SOP Instance UID.

        Raises
        ------
        AnalysisError
            If the request fails or the response does not conform to the standard.
        """
        client = self.client()
        for series_uid in study.series:
            with _converted_errors("retrieving a series"):
                for dataset in client.iter_series(study.study_uid, series_uid, _AS_STORED):
                    file = BytesIO()
                    dcmwrite(file, dataset, enforce_file_format=True)
                    yield file.getvalue(), str(dataset.get("SOPInstanceUID") or "")

    def send(self, parcels: Sequence[Parcel]) -> Iterator[Answer]:
        """Store objects; those tried before only if the server does not have them."""
        client = self.client()
        for parcel in parcels:
            try:
                if not (parcel.tried and self._has(client, parcel)):
                    self._store(client, parcel)
            except LeaklocError as error:
                yield parcel, str(error)
            except Exception as error:  # the file may be gone
                yield parcel, f"it could not be sent ({type(error).__name__})"
            else:
                yield parcel, None

    def _has(self, client: Any, parcel: Parcel) -> bool:
        with _converted_errors("querying an object"):
            found = client.search_for_instances(
                parcel.study_uid, search_filters={"SOPInstanceUID": parcel.sop_uid}
            )
        return any(_value(one, _SOP_UID) == parcel.sop_uid for one in found)

    def _store(self, client: Any, parcel: Parcel) -> None:
        dataset = dcmread(parcel.path)
        with _converted_errors("storing an object"):
            answer = client.store_instances([dataset], study_instance_uid=parcel.study_uid)
        if answer.get("FailedSOPSequence"):
            reason = answer.FailedSOPSequence[0].get("FailureReason") or 0
            raise AnalysisError(f"the server refused it ({int(reason):04X})")


class Poller:
    """Polls a server for new studies and retrieves them into the spool.

    Parameters
    ----------
    server : Server
    ledger : Ledger
    spool : Spool
    arrivals : Arrivals
    settings : NodeSettings
    clock : callable
        Returns seconds from an arbitrary origin.
    """

    def __init__(
        self,
        server: Server,
        ledger: Ledger,
        spool: Spool,
        arrivals: Arrivals,
        settings: NodeSettings,
        clock: Callable[[], float],
    ) -> None:
        self._server, self._ledger, self._spool = server, ledger, spool
        self._arrivals, self._settings, self._clock = arrivals, settings, clock
        self._signatures: dict[str, tuple[str, float]] = {}
        self._retries: dict[str, tuple[str, int, float]] = {}  # signature, tries, next try
        with ledger.connection() as database:
            for statement in _SCHEMA:
                database.execute(statement)

    def poll(self, stopping: Event) -> int:
        """Query the server once and retrieve the studies that have settled.

        Returns
        -------
        int
            Number of studies retrieved.

        Raises
        ------
        LeaklocError
            If the server does not respond, there is not enough space, or a study could not be
            retrieved; the others were retrieved.
        """
        fetched = 0
        problems: list[LeaklocError] = []
        for study in self._server.recent():
            if stopping.is_set():
                break
            if not self._wanted(study):
                continue
            try:
                self._fetch(study, stopping)
                fetched += 1
            except Exception as error:  # a server may return anything
                problems.append(self._postpone(study, error))
        if problems:
            for problem in problems[1:]:
                _LOG.warning("%s", problem)
            raise problems[0]
        return fetched

    def _postpone(self, study: Remote, error: Exception) -> LeaklocError:
        """Record a failed retrieval, which is repeated later; return its error."""
        text = str(error) if isinstance(error, LeaklocError) else type(error).__name__
        _, tries, _ = self._retries.get(study.study_uid, ("", 0, 0.0))
        wait_s = min(self._settings.resend_s * 2 ** min(tries, 30), _MAX_WAIT_S)
        due = self._clock() + wait_s
        self._retries[study.study_uid] = (study.signature, tries + 1, due)
        with self._ledger.connection() as database:
            database.execute(
                "INSERT OR REPLACE INTO node_not_fetched VALUES (?, ?, ?, ?)",
                (self._server.name, study.study_uid, tries + 1, text),
            )
        return AnalysisError(
            f"study {study.study_uid} was not retrieved (try {tries + 1}, repeated in "
            f"{wait_s:g} s): {text}"
        )

    def not_fetched(self) -> dict[str, str]:
        """Return the reason by UID of each study that could not be retrieved."""
        with self._ledger.connection() as database:
            rows = database.execute(
                "SELECT study_uid, error FROM node_not_fetched WHERE server = ?",
                (self._server.name,),
            ).fetchall()
        return {row["study_uid"]: row["error"] for row in rows}

    def _wanted(self, study: Remote) -> bool:
        """Whether a study is new, possibly of the spine, and has settled."""
        if not study.series or self._fetched(study.study_uid) == study.signature:
            return False
        if self._settings.select == "spine" and not may_be_spine(study.texts):
            return False
        failed, _, due = self._retries.get(study.study_uid, ("", 0, 0.0))
        if failed == study.signature and self._clock() < due:
            return False
        signature, since = self._signatures.get(study.study_uid, ("", 0.0))
        if signature != study.signature:
            since = self._clock()
            self._signatures[study.study_uid] = (study.signature, since)
        return self._clock() - since >= self._settings.settle_s

    def is_partial(self, study_uid: str) -> bool:
        """Whether retrieval of a study was started but not completed."""
        return self._fetched(study_uid) == _BEGUN

    def _remember(self, study_uid: str, signature: str) -> None:
        with self._ledger.connection() as database:
            database.execute(
                "INSERT OR REPLACE INTO node_fetched VALUES (?, ?, ?)",
                (self._server.name, study_uid, signature),
            )

    def _fetched(self, study_uid: str) -> str | None:
        with self._ledger.connection() as database:
            row = database.execute(
                "SELECT signature FROM node_fetched WHERE server = ? AND study_uid = ?",
                (self._server.name, study_uid),
            ).fetchone()
        return None if row is None else str(row["signature"])

    def _fetch(self, study: Remote, stopping: Event) -> None:
        refused = kept = 0
        stated = sum(study.series.values())
        # Counts are optional for servers; a response must end anyway.
        limit = stated if all(study.series.values()) else self._settings.max_study_instances
        holder = (self, study.study_uid)
        self._remember(study.study_uid, _BEGUN)
        for content, sop_uid in self._server.images(study):
            if stopping.is_set():
                return
            if kept + refused >= limit:
                raise AnalysisError(f"the server sent more than the {limit} images expected")
            try:
                if len(content) > self._settings.max_instance_mib * 1024**2:
                    raise InputError("it is larger than node.max_instance_mib")
                if self._spool.store(content, sop_uid) != study.study_uid:
                    raise InputError("it belongs to a study other than the one requested")
                kept += 1
            except InputError as error:
                refused += 1
                _LOG.warning("left out an object of study %s: %s", study.study_uid, error)
            # Held until complete, so that no partial study is analyzed.
            self._arrivals.arrived(study.study_uid, holder)
        if kept + refused < stated:
            raise AnalysisError(f"the server sent {kept + refused} of {stated} images")
        self._retries.pop(study.study_uid, None)
        with self._ledger.connection() as database:
            database.execute(
                "DELETE FROM node_not_fetched WHERE server = ? AND study_uid = ?",
                (self._server.name, study.study_uid),
            )
        self._remember(study.study_uid, study.signature)
        self._arrivals.left(holder)
        if kept:
            self._arrivals.complete(study.study_uid)
        _LOG.info("fetched study %s: %d images", study.study_uid, kept)


def may_be_spine(texts: Sequence[str]) -> bool:
    """Return whether descriptions mention the spine or myelography, or are all empty.

    Examples
    --------
    >>> may_be_spine(["MRT LWS"]), may_be_spine([]), may_be_spine(["Knee left"])
    (True, True, False)
    """
    described = [text for text in map(normalized, texts) if text]
    return not described or any(
        SPINE.search(text) or MYELOGRAPHY.search(text) for text in described
    )


def web_root(url: str) -> str:
    """Return the DICOMweb root of a server; ``/dicom-web`` is added if there is no path.

    Raises
    ------
    SettingsError
        If it is not a URL, or contains a password.

    Examples
    --------
    >>> web_root("http://localhost:8042")
    'http://localhost:8042/dicom-web'
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingsError("--orthanc takes a URL such as http://localhost:8042/dicom-web")
    if parts.username is not None or parts.password is not None:
        raise SettingsError(f"a password in the URL appears in logs; set {USER} and {PASSWORD}")
    path = parts.path.rstrip("/") or "/dicom-web"
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


class _Limits:
    """Limits of one response; those of a multipart response apply to each part."""

    def __init__(self, settings: NodeSettings, max_decoded_mib: int) -> None:
        self.max_decoded_mib = max_decoded_mib
        self._object_bytes = settings.max_instance_mib * _MIB + _MAX_ANSWER_BYTES
        self._timeout_s = settings.network_timeout_s
        self._min_rate = settings.min_rate_kib_s * 1024
        self.restart()

    def restart(self) -> None:
        self._begun, self._received = time.monotonic(), 0

    def stream(self, raw: Any, kind: str, *_: Any, **__: Any) -> Iterator[bytes]:
        """Yield the body as it arrives, in place of `stream` of urllib3."""
        self.restart()
        limit = _MAX_ANSWER_BYTES if kind.endswith(("json", "xml")) else self._object_bytes
        # `read1` returns what has arrived, so that a slow body does not block until a full read.
        while part := raw.read1(_READ_BYTES, decode_content=True):
            self._received += len(part)
            if self._received > limit:
                raise AnalysisError(f"the server's response exceeds {limit // _MIB} MiB")
            allowed_s = self._timeout_s + (
                self._received / self._min_rate if self._min_rate else float("inf")
            )
            if time.monotonic() - self._begun > allowed_s:
                raise AnalysisError("the server's response is slower than node.min_rate_kib_s")
            yield part


def _limited_adapter(limits: _Limits) -> Any:
    """Transport adapter of requests whose responses are limited in size and duration."""
    adapter = requests.adapters.HTTPAdapter()
    pools = adapter.poolmanager.pool_classes_by_scheme
    adapter.poolmanager.pool_classes_by_scheme = {
        scheme: type("Pool", (pool,), {"ConnectionCls": _limited_connection(pool.ConnectionCls)})
        for scheme, pool in pools.items()
    }
    send = adapter.send

    def limited_send(*args: Any, **options: Any) -> Any:
        response = send(*args, **options)
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        response.raw.stream = partial(limits.stream, response.raw, kind)
        if kind == "application/dicom":
            check_inflated(response.content, limits.max_decoded_mib)
        return response

    adapter.send = limited_send
    return adapter


def _limited_connection(connection: Any) -> Any:
    """Class of connections that close if the headers do not arrive within the timeout."""

    def getresponse(self: Any) -> Any:
        timer = Timer(self.sock.gettimeout(), self.sock.shutdown, (SHUT_RDWR,))
        timer.daemon = True
        timer.start()
        try:
            return connection.getresponse(self)
        finally:
            timer.cancel()

    return type("Connection", (connection,), {"getresponse": getresponse})


def _checked_parts(decode: Any, limits: _Limits, *args: Any, **options: Any) -> Iterator[bytes]:
    """Parts of a multipart response, each checked before it is parsed."""
    for part in decode(*args, **options):
        check_inflated(part, limits.max_decoded_mib)
        limits.restart()
        yield part


class _converted_errors:  # noqa: N801 - used like a function
    """Converts server and network exceptions to `AnalysisError` without their text."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is None or not issubclass(kind, Exception) or issubclass(kind, LeaklocError):
            return
        status = getattr(getattr(error, "response", None), "status_code", None)
        answer = f"HTTP {status}" if status else kind.__name__
        raise AnalysisError(f"{self._what} failed ({answer})") from None


def _value(entry: Any, tag: str) -> str:
    """First value of an attribute in DICOM JSON; empty if there is none."""
    values = entry.get(tag, {}).get("Value") or [""]
    first = values[0]
    return str(first if first is not None else "").strip()


def _study_uid(entry: Any) -> str:
    """Study Instance UID of an entry, truncated; a text that is not a UID for a malformed entry."""
    try:
        return _value(entry, _STUDY_UID)[:_MAX_TEXT]
    except (AttributeError, TypeError, KeyError, IndexError):
        return _MALFORMED


def _texts_of(entry: Any) -> tuple[str, ...]:
    """Descriptions of an entry, truncated; empty for a malformed entry."""
    try:
        texts = [_value(entry, tag)[:_MAX_TEXT] for tag in _TEXTS]
    except (AttributeError, TypeError, KeyError, IndexError):
        return ()
    return tuple(text for text in texts if text)

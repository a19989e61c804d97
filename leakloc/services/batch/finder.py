"""Search for studies in folders, archives, files and lists; reads headers only.

A study is defined by its Study Instance UID, regardless of where its files are: series in
separate folders, several studies in one folder, copies in archives. Volumes without headers
(NIfTI, NRRD, MetaImage) are included if there is no DICOM study next to them. Excluded studies
and files are counted by reason.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import stat
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from leakloc.core.errors import InputError
from leakloc.loaders import archives
from leakloc.loaders.dicomdir import listed_files
from leakloc.loaders.images import sniff_image
from leakloc.services.batch.headers import HEAD_BYTES, Ownership, is_dicom, is_uid, read_ownership
from leakloc.services.batch.ledger import LEDGER_NAME

if TYPE_CHECKING:
    from leakloc.core.settings import LoaderSettings
    from leakloc.services.batch.ledger import Ledger

Kind = Literal["dicom", "volume", "archive", "other"]
FindProgress = Callable[[int], None]
"""Called with the number of files examined so far."""

_MR: Final = "MR"


@dataclass(frozen=True)
class Found:
    """A study found by a search.

    Parameters
    ----------
    name : str
        Name of its report folder: Study Instance UID or a digest, without patient data.
    source : tuple of str
        A folder, archive or file; or the folders (without subfolders) and files that contain
        the study.
    study_uid : str or None
        None if its files contain none.
    fingerprint : str
        Digest of the names, sizes and modification times of its files.
    n_files : int
    """

    name: str
    source: tuple[str, ...]
    study_uid: str | None
    fingerprint: str
    n_files: int


@dataclass(frozen=True)
class Search:
    """Result of a search.

    Parameters
    ----------
    studies : tuple of Found
        Sorted by source.
    left_out : dict
        Number of excluded studies or files, by reason.
    n_files : int
        Number of files examined.
    """

    studies: tuple[Found, ...]
    left_out: dict[str, int]
    n_files: int


@dataclass(frozen=True)
class _Group:
    """Files of one study in one folder or archive, or volumes, or archives.

    `names` is None if the folder contains no other study.
    """

    kind: Kind
    owner: Ownership
    names: tuple[str, ...] | None
    digest: str
    count: int


@dataclass
class _Finder:
    skip: frozenset[str]
    settings: LoaderSettings
    cache: ScanCache | None
    progress: FindProgress | None
    folders: dict[str, tuple[_Group, ...]] = field(default_factory=dict)
    roots: list[str] = field(default_factory=list)
    listed: list[Found] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    n_files: int = 0

    def add_root(self, path: Path, study_uid: str | None = None) -> None:
        """Search one specified path: a folder, archive, list or file."""
        if not path.exists():
            raise InputError(f"{path} does not exist")
        place = str(path.absolute())
        if not (path.is_dir() or path.is_file()):  # a pipe or device would block
            raise InputError(f"{path} is not a regular file or folder")
        if path.is_dir():
            self.roots.append(place)
            self._walk(place)
        elif path.suffix.lower() == ".csv":
            self._csv(path)
        elif path.name.upper() == "DICOMDIR":
            self._dicomdir(path)
        else:
            self._file(path)

    def _walk(self, top: str) -> None:
        root = os.path.realpath(top)
        pending, visited = [top], {root}
        while pending:
            folder = pending.pop()
            try:
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except OSError:
                self.left_out["closed folders"] += 1
                continue
            names = {entry.name for entry in entries}
            if LEDGER_NAME in names or {"report.json", "masks"} <= names:
                self.left_out["folders with reports"] += 1
                continue
            files = []
            for entry in entries:
                try:
                    if entry.is_symlink() and not _is_within(os.path.realpath(entry.path), root):
                        self.left_out["links to places outside the folder"] += 1
                    elif entry.is_dir():
                        inside = os.path.realpath(entry.path)
                        if inside not in visited and inside not in self.skip:
                            visited.add(inside)
                            # The loader does not follow links: use the target.
                            pending.append(inside if entry.is_symlink() else entry.path)
                    elif entry.is_file():
                        status = entry.stat()
                        files.append((entry.name, status.st_size, status.st_mtime_ns))
                except OSError:
                    self.left_out["files that cannot be opened"] += 1
            if files:
                self.folders[folder] = self._groups(folder, files)

    def _groups(self, folder: str, files: list[tuple[str, int, int]]) -> tuple[_Group, ...]:
        """Group the files of one folder by study; cached until a file changes."""
        self.n_files += len(files)
        if self.progress is not None:
            self.progress(self.n_files)
        signature = _digest(files)
        known = self.cache.get(folder, signature) if self.cache is not None else None
        if known is not None:
            return known
        by_owner: dict[tuple[Kind, Ownership], list[tuple[str, int, int]]] = defaultdict(list)
        for file in files:
            by_owner[_identify(os.path.join(folder, file[0]))].append(file)  # noqa: PTH118 - a million times
        alone = len({owner for kind, owner in by_owner if kind == "dicom" and owner.study_uid}) <= 1
        groups = tuple(
            _Group(
                kind,
                owner,
                None if alone and kind == "dicom" else tuple(file[0] for file in members),
                _digest(members),
                len(members),
            )
            for (kind, owner), members in by_owner.items()
            if kind != "other"
        )
        if self.cache is not None:
            self.cache.put(folder, signature, groups)
        return groups

    def _file(self, path: Path) -> None:
        entry = self._stat(path)
        if entry is None:
            return
        kind, owner = _identify(str(path))
        if kind == "archive":
            self.listed += self._archive(str(path.absolute()), entry)
            return
        self.listed.append(
            Found(
                owner.study_uid or _name_of(str(path.absolute())),
                (str(path.absolute()),),
                owner.study_uid or None,
                _digest([entry]),
                1,
            )
        )

    def _stat(self, path: Path) -> tuple[str, int, int] | None:
        """Name, size and time of a file; None if it disappeared since it was listed."""
        try:
            status = path.stat()
        except OSError:
            self.left_out["files that cannot be opened"] += 1
            return None
        return path.name, status.st_size, status.st_mtime_ns

    def _archive(self, path: str, entry: tuple[str, int, int]) -> list[Found]:
        """Studies in an archive; an unreadable archive is one study that fails later."""
        signature = _digest([entry])
        groups = self.cache.get(path, signature) if self.cache is not None else None
        if groups is None:
            groups = _in_archive(Path(path), self.settings)
            if self.cache is not None:
                self.cache.put(path, signature, groups)
        uids = {group.owner.study_uid for group in groups if group.owner.modality in (_MR, "")}
        if groups and not uids:
            self.left_out["studies without MR images"] += 1
            return []
        named = sorted(uids - {""})
        if not named:
            return [Found(_name_of(path), (path,), None, signature, 1)]
        return [Found(uid, (path,), uid, _digest([entry, (uid, 0, 0)]), 1) for uid in named]

    def _csv(self, path: Path) -> None:
        """Read a table with a column `path`, relative to the table, and optionally `study_uid`."""
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                rows = list(csv.DictReader(file))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"cannot read the list {path.name}: {error}") from error
        if not rows or "path" not in rows[0]:
            raise InputError(f"the list {path.name} has no column `path`, or no rows")
        for row in rows:
            named = path.parent / (row["path"] or "").strip()
            uid = (row.get("study_uid") or "").strip() or None
            place = str(named.absolute())
            # A report folder is named after a valid UID only: other text may be a patient's name.
            name = uid if uid is not None and is_uid(uid) else _name_of(place)
            if not named.exists():
                # The user expects listed studies in the worklist.
                self.listed.append(Found(name, (place,), uid, "missing", 0))
            elif uid is not None:
                self.listed.append(Found(name, (place,), uid, _tree_digest(named), 0))
            else:
                inner = _Finder(self.skip, self.settings, self.cache, self.progress)
                inner.add_root(named)
                self.listed += inner.studies()
                self.left_out += inner.left_out
                self.n_files += inner.n_files

    def _dicomdir(self, path: Path) -> None:
        """Add the files listed in a DICOMDIR, assigned to studies by their own headers."""
        files: dict[str, list[tuple[str, int, int]]] = defaultdict(list)
        for file in listed_files(path, self.settings):
            if not file.is_file():
                self.left_out["files listed in a DICOMDIR but missing"] += 1
            elif (entry := self._stat(file)) is not None:
                files[str(file.parent.absolute())].append(entry)
        for folder, members in files.items():
            groups = _Finder(self.skip, self.settings, None, self.progress)._groups(folder, members)
            self.n_files += len(members)
            present = sum(1 for entry in os.scandir(folder) if entry.is_file())
            if present != len(members):  # the folder has other files: list them individually
                names = tuple(member[0] for member in members)
                groups = tuple(replace(group, names=group.names or names) for group in groups)
            self.folders[folder] = groups
        self.roots.append(str(path.parent.absolute()))

    def studies(self) -> list[Found]:
        """Return the studies found so far."""
        dicom: dict[tuple[str, str], list[tuple[str, _Group]]] = defaultdict(list)
        nameless: list[tuple[str, _Group]] = []
        for folder, groups in self.folders.items():
            for group in groups:
                if group.kind == "dicom":
                    if group.owner.study_uid:
                        dicom[group.owner.study_uid, group.owner.patient].append((folder, group))
                    else:
                        nameless.append((folder, group))
        _join_patientless(dicom)
        below = _keys_below(dicom, self.roots)
        found = []
        for key, parts in dicom.items():
            if all(group.owner.modality not in (_MR, "") for _, group in parts):
                self.left_out["studies without MR images"] += 1
                continue
            found.append(self._dicom_study(key, parts, below))
        for folder, group in nameless:
            if self._is_next_to_study(folder, below):
                self.left_out["files next to a study, not part of it"] += group.count
            else:
                found.append(Found(_name_of(folder), (folder,), None, group.digest, group.count))
        found += self._volumes(below, {folder for folder, _ in nameless}) + self._archives(found)
        return found + self.listed

    def _dicom_study(
        self,
        key: tuple[str, str],
        parts: list[tuple[str, _Group]],
        below: dict[str, set[tuple[str, str]]],
    ) -> Found:
        folders = [folder for folder, _ in parts]
        common = os.path.commonpath(folders)
        if below.get(common) == {key} and all(group.names is None for _, group in parts):
            source: tuple[str, ...] = (common,)
        else:
            source = tuple(
                place
                for folder, group in sorted(parts, key=lambda part: part[0])
                for place in (
                    [folder]
                    if group.names is None
                    else [f"{folder}{os.sep}{name}" for name in group.names]
                )
            )
        digest = _digest([(group.digest, group.count, 0) for _, group in parts])
        return Found(key[0], source, key[0], digest, sum(group.count for _, group in parts))

    def _is_next_to_study(self, folder: str, below: dict[str, set[tuple[str, str]]]) -> bool:
        """Whether studies are in or below a folder, or exactly one next to it."""
        if folder in below:
            return True
        parent = str(Path(folder).parent)
        return (
            folder not in self.roots
            and parent not in self.roots
            and len(below.get(parent, ())) == 1
        )

    def _volumes(self, below: dict[str, set[tuple[str, str]]], nameless: set[str]) -> list[Found]:
        """Volumes without headers: one study per file in a root, one per folder below."""
        found = []
        for folder, groups in self.folders.items():
            for group in groups:
                if group.kind != "volume":
                    continue
                top = folder in self.roots
                if folder in nameless or (not top and self._is_next_to_study(folder, below)):
                    self.left_out["volumes next to DICOM images"] += group.count
                elif top:
                    for name in group.names or ():
                        file = Path(folder, name)
                        if (entry := self._stat(file)) is not None:
                            place = str(file)
                            found.append(
                                Found(_name_of(place), (place,), None, _digest([entry]), 1)
                            )
                else:
                    found.append(
                        Found(_name_of(folder), (folder,), None, group.digest, group.count)
                    )
        return found

    def _archives(self, known: list[Found]) -> list[Found]:
        uids = {study.study_uid for study in known}
        found = []
        for folder, groups in list(self.folders.items()):
            for group in groups:
                for name in (group.names or ()) if group.kind == "archive" else ():
                    file = Path(folder, name)
                    entry = self._stat(file)
                    for study in [] if entry is None else self._archive(str(file), entry):
                        if study.study_uid is not None and study.study_uid in uids:
                            self.left_out["archives of extracted studies"] += 1
                        else:
                            found.append(study)
        return found


def find_studies(
    roots: Iterable[Path],
    settings: LoaderSettings,
    *,
    output: Path | None = None,
    cache: ScanCache | None = None,
    progress: FindProgress | None = None,
) -> Search:
    """Find the studies in folders, archives, files and lists.

    Parameters
    ----------
    roots : iterable of Path
        Folders of any depth, archives, images, tables (``.csv`` with a column ``path`` and
        optionally ``study_uid``), DICOMDIR files.
    settings : LoaderSettings
        Limits for archives.
    output : Path, optional
        Output folder, excluded from the search like those of other batches.
    cache : ScanCache, optional
        Results of an earlier search; unchanged folders are not read again.
    progress : callable, optional

    Raises
    ------
    InputError
        If a root does not exist or a list cannot be read.
    """
    skip = frozenset({os.path.realpath(output)} if output is not None else ())
    finder = _Finder(skip, settings, cache, progress)
    for root in roots:
        finder.add_root(Path(root))
    studies = _with_different_names(finder.studies())
    if cache is not None:
        cache.save()
    return Search(
        tuple(sorted(studies, key=lambda study: study.source)),
        dict(finder.left_out),
        finder.n_files,
    )


class ScanCache:
    """Cache of header data by folder, stored in the ledger of a batch.

    Parameters
    ----------
    ledger : Ledger
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._new: dict[str, tuple[str, tuple[_Group, ...]]] = {}
        with ledger.connection() as database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS scanned "
                "(place TEXT PRIMARY KEY, signature TEXT NOT NULL, groups TEXT NOT NULL)"
            )
            rows = database.execute("SELECT place, signature, groups FROM scanned").fetchall()
        self._known = {row["place"]: (row["signature"], row["groups"]) for row in rows}

    def get(self, place: str, signature: str) -> tuple[_Group, ...] | None:
        """Cached groups of a folder or archive; None if it is new or has changed."""
        if place in self._new and self._new[place][0] == signature:
            return self._new[place][1]
        known, text = self._known.get(place, ("", ""))
        if known != signature:
            return None
        try:
            return tuple(
                _Group(
                    kind, Ownership(*owner), None if names is None else tuple(names), digest, count
                )
                for kind, owner, names, digest, count in json.loads(text)
            )
        except (TypeError, ValueError, RecursionError):  # a damaged row: read the folder again
            return None

    def put(self, place: str, signature: str, groups: tuple[_Group, ...]) -> None:
        """Add groups to the cache; `save` writes them to the ledger."""
        self._new[place] = (signature, groups)

    def save(self) -> None:
        """Write new entries to the ledger."""
        rows = [
            (
                place,
                signature,
                json.dumps([(g.kind, g.owner, g.names, g.digest, g.count) for g in groups]),
            )
            for place, (signature, groups) in self._new.items()
        ]
        with self._ledger.connection() as database:
            database.executemany("INSERT OR REPLACE INTO scanned VALUES (?, ?, ?)", rows)
        self._known.update({place: (signature, text) for place, signature, text in rows})
        self._new.clear()


def _identify(path: str) -> tuple[Kind, Ownership]:
    """Kind and study of a file, determined from its first bytes."""
    unknown = Ownership("", "", "")
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - a million times
            head = file.read(HEAD_BYTES)
    except OSError:
        return "other", unknown
    if is_dicom(head):
        if path.endswith("DICOMDIR") or path.endswith("dicomdir"):
            return "other", unknown
        return "dicom", read_ownership(head)
    if sniff_image(Path(path), head) is not None:
        return "volume", unknown
    if archives.is_archive(Path(path), head):
        return "archive", unknown
    if archives.is_compressed_dicom(Path(path), head):
        return "dicom", read_ownership(archives.decompressed_head(Path(path), head, HEAD_BYTES))
    return "other", unknown


def _in_archive(path: Path, settings: LoaderSettings) -> tuple[_Group, ...]:
    counts: Counter[Ownership] = Counter()
    with suppress(*archives.BROKEN):  # the analysis reports the error
        for number, (_, file) in enumerate(archives.members(path)):
            if number >= settings.max_archive_files:
                break
            head = file.read(HEAD_BYTES)
            if is_dicom(head):
                counts[read_ownership(head)] += 1
    return tuple(_Group("dicom", owner, None, "", count) for owner, count in counts.items())


def _join_patientless(dicom: dict[tuple[str, str], list[tuple[str, _Group]]]) -> None:
    """Assign files without patient ID to the patient of their study, if unique."""
    for uid, patient in [key for key in dicom if not key[1]]:
        others = [key for key in dicom if key[0] == uid and key[1] != patient]
        if len(others) == 1:
            dicom[others[0]] += dicom.pop((uid, patient))


def _keys_below(
    dicom: dict[tuple[str, str], list[tuple[str, _Group]]], roots: Sequence[str]
) -> dict[str, set[tuple[str, str]]]:
    """Studies in each folder and its subfolders."""
    below: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for key, parts in dicom.items():
        for folder, _ in parts:
            for place in _upwards(folder, roots):
                below[place].add(key)
    return dict(below)


def _upwards(folder: str, roots: Sequence[str]) -> list[str]:
    """The folder and its parents, up to the root of the search."""
    inside = [root for root in roots if folder == root or folder.startswith(root + os.sep)]
    top = max(inside, key=len, default=folder)
    places = [folder]
    while places[-1] != top:
        places.append(os.path.dirname(places[-1]))  # noqa: PTH120 - a million times
    return places


def _with_different_names(studies: list[Found]) -> list[Found]:
    """Give unique names to copies of a study and to studies with the same UID."""
    studies = list({(study.name, study.source): study for study in studies}.values())
    counts = Counter(study.name for study in studies)
    return [
        study
        if counts[study.name] == 1
        else replace(study, name=f"{study.name}-{_short(''.join(study.source))[:8]}")
        for study in studies
    ]


def _digest(entries: Iterable[tuple[str, int, int]]) -> str:
    text = "\n".join(f"{name}\t{size}\t{time}" for name, size, time in sorted(entries))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _tree_digest(path: Path) -> str:
    """Digest of a file or of all files below a folder."""
    entries = []
    for file in [path, *path.rglob("*")]:
        with suppress(OSError):  # it may disappear
            status = file.stat()
            if stat.S_ISREG(status.st_mode):
                entries.append((file.name, status.st_size, status.st_mtime_ns))
    return _digest(entries)


def _name_of(place: str) -> str:
    """Unique name derived from a path, without patient data."""
    return f"volume-{_short(place)}"


def _short(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12]

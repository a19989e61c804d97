"""Read a study: find files, read headers and build stacks, without pixels."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import pydicom

from leakloc.core.errors import (
    InputError,
    counted,
    file_label,
    neutral_names,
    path_label,
    printable,
    uid_label,
)
from leakloc.core.notes import Note, note
from leakloc.core.quiet import quiet_libraries
from leakloc.core.settings import Settings
from leakloc.core.temporary import TemporaryFolder, remove_leftovers
from leakloc.core.volume import Volume
from leakloc.loaders.archives import (
    FILES,
    is_archive,
    is_compressed_dicom,
    looks_like_dicom,
    unpack,
    unpack_each,
)
from leakloc.loaders.dicomdir import is_dicomdir, listed_files
from leakloc.loaders.headers import Frame, HeaderReader, NotAnImageError
from leakloc.loaders.images import Kind, read_image_header, sniff_image
from leakloc.loaders.limits import require_plausible
from leakloc.loaders.pixels import read_stack, same_pixels
from leakloc.loaders.stacks import build_stacks
from leakloc.loaders.study import SeriesStack, SkippedFile, Study, StudyInfo

if TYPE_CHECKING:
    from leakloc.core.settings import LoaderSettings

LoadProgress = Callable[[str, float], None]

_HEAD_BYTES: Final = 512
_NESTED: Final = "an archive inside the study; extract it or specify it directly"
_ISO_MAGIC: Final = b"CD001"
_ISO_MAGIC_OFFSET: Final = 32_769
_SIGNATURES: Final = {
    b"%PDF": "a PDF document",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"BM": "a bitmap image",
    b"MZ": "an executable file",
    b"<htm": "a web page",
    b"<!DO": "a web page",
    b"<?xm": "an XML file",
    b"SQLi": "a database",
}


def load(
    path: str | Path | Volume,
    settings: Settings | None = None,
    *,
    study_uid: str | None = None,
    progress: LoadProgress | None = None,
) -> Study:
    """Read the headers of a study; pixel data are read on demand.

    Parameters
    ----------
    path : path or Volume
        A folder (searched recursively), an archive, a DICOM file, or a NIfTI, NRRD or MetaImage
        volume; or a `Volume` in memory.
    settings : Settings, optional
        Only the `loaders` section is used.
    study_uid : str, optional
        Study Instance UID, if `path` contains several studies.
    progress : callable, optional
        Called with the current step and the fraction of files read, 0..1.

    Returns
    -------
    Study
        ``study.table()`` lists its series, with the role of each and the reason.

    Raises
    ------
    InputError
        If there are no readable images, or images of several studies or patients.

    Examples
    --------
    >>> import leakloc as ll
    >>> len(ll.load("sample_data/postoperative/dicom").stacks)  # doctest: +SKIP
    4
    """
    if isinstance(path, Volume):
        return _study_of(path)
    loaders = (settings or Settings()).loaders
    return load_study(Path(path), loaders, study_uid=study_uid, progress=progress)


def load_study(
    path: Path,
    settings: LoaderSettings,
    *,
    study_uid: str | None = None,
    progress: LoadProgress | None = None,
) -> Study:
    """Read the headers of a study and sort its images into stacks.

    Parameters
    ----------
    path : Path
        A folder of any depth and naming, a zip or tar archive, a DICOMDIR, a DICOM file, or a
        NIfTI, NRRD or MetaImage volume. File types are detected by content, not by suffix; volumes
        without headers are used only if there are no DICOM images.
    settings : LoaderSettings
    study_uid : str, optional
        Study Instance UID to read if there are several.
    progress : callable, optional
        Called with the current step and the fraction of files read, 0..1.

    Returns
    -------
    Study
        Unusable files are listed in `skipped` with the reason.

    Raises
    ------
    InputError
        If there are no images, or images of several studies or patients.
    """
    remove_leftovers()
    with quiet_libraries():
        return _load_study(Path(path), settings, study_uid, progress)


def _load_study(
    path: Path, settings: LoaderSettings, study_uid: str | None, progress: LoadProgress | None
) -> Study:
    skipped: list[SkippedFile] = []
    files, archive = _files(path, settings, skipped)
    if not files:
        raise InputError(
            f"no files in {path_label(path)}: specify a folder with the images of one study"
        )
    found = _scan(files, settings, skipped, progress)
    folders = [] if archive is None else [archive]
    found, notes = _with_packed(found, folders, skipped, settings, progress)
    frames, volumes = found.frames, found.volumes
    if frames:
        skipped += [
            SkippedFile(file, f"a {kind} volume next to DICOM images") for file, kind in volumes
        ]
        study = _dicom_study(frames, skipped, settings, study_uid)
    elif study_uid is not None:
        raise InputError(
            f"there is no study {uid_label(study_uid)}: {path_label(path)} contains no DICOM images"
        )
    else:
        roots = [folder.path / FILES for folder in folders]
        roots.append(path if path.is_dir() else path.parent)
        study = _volume_study(volumes, roots, settings, skipped)
    if not study.stacks:
        raise InputError(_nothing_found(path, len(files), study.skipped))
    study = replace(study, notes=(*study.notes, *notes))
    return _keep_archives(study, folders) if folders else study


def _with_packed(
    found: _Found,
    folders: list[TemporaryFolder],
    skipped: list[SkippedFile],
    settings: LoaderSettings,
    progress: LoadProgress | None,
) -> tuple[_Found, list[Note]]:
    """Add the content of compressed files, and of archives if there are no other images."""
    loose = found.frames or found.volumes or found.compressed
    packed = found.compressed if loose else found.archives
    notes = []
    if loose and found.archives:
        notes.append(note("archives_not_read", count=len(found.archives)))
        skipped += [SkippedFile(file, _NESTED) for file in found.archives]
    if not packed:
        return found, notes
    folder, failed = unpack_each(packed, settings)
    folders.append(folder)
    skipped += [SkippedFile(file, f"cannot be extracted: {why}") for file, why in failed.items()]
    inner = _scan(_walk(folder.path / FILES, skipped), settings, skipped, progress)
    skipped += [SkippedFile(file, _NESTED) for file in (*inner.archives, *inner.compressed)]
    frames, volumes = [*found.frames, *inner.frames], [*found.volumes, *inner.volumes]
    return _Found(frames, volumes), notes


def _files(
    path: Path, settings: LoaderSettings, skipped: list[SkippedFile]
) -> tuple[list[Path], TemporaryFolder | None]:
    """Return all regular files, and the temporary folder if they were extracted."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            return _walk(path, skipped), None
        if not stat.S_ISREG(mode):  # a pipe or device would block
            raise InputError(
                f"{path_label(path)} is not a regular file or folder: specify the folder of one "
                "study"
            )
        archived = is_archive(path, _head(path)) or is_compressed_dicom(path, _head(path))
    except FileNotFoundError as error:
        raise InputError(f"{path_label(path)} does not exist") from error
    except OSError as error:
        raise InputError(f"cannot read {path_label(path)}: {error.strerror}") from error
    if not archived:
        return (_indexed(path, settings, skipped) if is_dicomdir(_head(path)) else [path]), None
    folder = unpack(path, settings)
    return _walk(folder.path / FILES, skipped), folder


def _indexed(path: Path, settings: LoaderSettings, skipped: list[SkippedFile]) -> list[Path]:
    """Return the existing files that a DICOMDIR lists."""
    listed = listed_files(path, settings)
    present = [file for file in listed if file.exists()]
    if not present:
        raise InputError(
            f"none of the {len(listed)} files that {path_label(path)} lists exists: copy the whole "
            "disc, not only its index, or specify the image folder"
        )
    skipped += [
        SkippedFile(file, "listed in the DICOMDIR, but missing")
        for file in listed
        if not file.exists()
    ]
    return present


def _walk(folder: Path, skipped: list[SkippedFile]) -> list[Path]:
    found = []

    def unreadable(error: OSError) -> None:
        skipped.append(
            SkippedFile(Path(error.filename), f"a folder that cannot be opened ({error.strerror})")
        )

    # Symbolic links may be circular.
    for parent, subfolders, names in os.walk(folder, onerror=unreadable, followlinks=False):
        subfolders.sort()
        links = [Path(parent, name) for name in subfolders if Path(parent, name).is_symlink()]
        skipped += [
            SkippedFile(link, "a link to a folder; links are not followed") for link in links
        ]
        found += [Path(parent, name) for name in sorted(names)]
    return found


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES)


@dataclass
class _Found:
    """Content of files: images, volumes, archives and compressed DICOM files."""

    frames: list[Frame] = field(default_factory=list)
    volumes: list[tuple[Path, Kind]] = field(default_factory=list)
    archives: list[Path] = field(default_factory=list)
    compressed: list[Path] = field(default_factory=list)


def _scan(
    files: list[Path],
    settings: LoaderSettings,
    skipped: list[SkippedFile],
    progress: LoadProgress | None,
) -> _Found:
    contents = _Found()
    reader = HeaderReader(settings)
    with pydicom.config.disable_value_validation():  # invalid values are handled here
        for number, file in enumerate(files):
            try:
                found = _open(file, reader)
            except NotAnImageError as error:
                skipped.append(SkippedFile(file, str(error)))
                continue
            except OSError as error:
                skipped.append(SkippedFile(file, f"cannot be opened ({error.strerror})"))
                continue
            if isinstance(found, list):
                contents.frames += found
            elif found == "archive":
                contents.archives.append(file)
            elif found == "compressed":
                contents.compressed.append(file)
            else:
                contents.volumes.append((file, found))
            if progress is not None and number % 100 == 0:
                progress("reading headers", number / len(files))
    return contents


def _open(
    path: Path, reader: HeaderReader
) -> list[Frame] | Kind | Literal["archive", "compressed"]:
    """Return the frames of a DICOM file, or the type of another file."""
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe or device would block
        raise NotAnImageError("not a regular file")
    head = _head(path)
    if not head:
        raise NotAnImageError("an empty file")
    if looks_like_dicom(head):
        return reader.read(path)
    if is_archive(path, head):  # the header of a volume in it may be uncompressed
        return "archive"
    kind = sniff_image(path, head)
    if kind is not None:
        return kind
    for signature, reason in _SIGNATURES.items():
        if head.startswith(signature):
            raise NotAnImageError(reason)
    if _is_disc_image(path):
        raise NotAnImageError("a disc image; mount it and specify the folder inside")
    if is_compressed_dicom(path, head):
        return "compressed"
    raise NotAnImageError("not DICOM")


def _is_disc_image(path: Path) -> bool:
    """Return whether a file is a CD or DVD image (ISO 9660)."""
    if path.stat().st_size <= _ISO_MAGIC_OFFSET + len(_ISO_MAGIC):
        return False
    with path.open("rb") as file:
        file.seek(_ISO_MAGIC_OFFSET)
        return file.read(len(_ISO_MAGIC)) == _ISO_MAGIC


def _dicom_study(
    frames: list[Frame],
    skipped: list[SkippedFile],
    settings: LoaderSettings,
    study_uid: str | None,
) -> Study:
    uids = sorted({frame.study_instance_uid for frame in frames})
    if study_uid is not None and study_uid not in uids:
        raise InputError(f"there is no study {uid_label(study_uid)}; found: {_listed(uids)}")
    if study_uid is None and len(uids) > 1:
        raise InputError(
            f"the input contains images of {len(uids)} studies; select one by its Study Instance "
            f"UID: {_listed(uids)}"
        )
    wanted = [frame for frame in frames if study_uid in (None, frame.study_instance_uid)]
    others = {frame.path for frame in frames} - {frame.path for frame in wanted}
    skipped += [SkippedFile(file, "belongs to another study") for file in sorted(others)]
    _require_one_patient(wanted)
    stacks = build_stacks(
        wanted,
        settings,
        partial(read_stack, settings=settings),
        partial(same_pixels, settings=settings),
    )
    return Study(_identity(wanted), tuple(stacks), tuple(skipped), _study_notes(wanted))


def _require_one_patient(frames: list[Frame]) -> None:
    patients = {frame.identity.patient_id for frame in frames} - {None}
    if len(patients) > 1:
        raise InputError(
            f"study {uid_label(frames[0].study_instance_uid)} contains images of "
            f"{len(patients)} patient IDs; sort them into one folder per patient"
        )


def _identity(frames: list[Frame]) -> StudyInfo:
    """Return the identifiers, each from the first header that contains it."""

    def first(values: Iterable[str | None]) -> str | None:
        return next((value for value in values if value), None)

    return StudyInfo(
        study_instance_uid=frames[0].study_instance_uid or None,
        study_date=first(frame.identity.study_date for frame in frames),
        accession_number=first(frame.identity.accession_number for frame in frames),
        patient_id=first(frame.identity.patient_id for frame in frames),
    )


def _study_notes(frames: list[Frame]) -> tuple[Note, ...]:
    marked = {f.path for f in frames if str(f.parameters.get("BurnedInAnnotation")) == "YES"}
    if not marked:
        return ()
    return (note("burned_in_annotation", count=len(marked)),)


def _volume_study(
    volumes: list[tuple[Path, Kind]],
    roots: list[Path],
    settings: LoaderSettings,
    skipped: list[SkippedFile],
) -> Study:
    stacks: list[SeriesStack] = []
    for file, kind in volumes:
        root = next(folder for folder in roots if file.is_relative_to(folder))
        try:
            with neutral_names(lambda _: "the file"):  # the reason is in the report
                stacks.append(read_image_header(file, kind, settings, root))
        except InputError as error:
            skipped.append(SkippedFile(file, str(error)))
    return Study(StudyInfo(), tuple(stacks), tuple(skipped))


def _nothing_found(path: Path, count: int, skipped: tuple[SkippedFile, ...]) -> str:
    reasons = Counter(item.reason for item in skipped).most_common(3)
    first = {item.reason: item.path for item in reversed(skipped)}
    listed = ", ".join(
        f"{number} x {reason}: {printable(file_label(first[reason]))}" for reason, number in reasons
    )
    return (
        f"no usable images among {counted(count, 'files')} in {path_label(path)} ({listed}); "
        "specify the folder of one study"
    )


def _listed(uids: list[str], maximum: int = 10) -> str:
    shown = ", ".join(uid_label(uid) or "(no UID)" for uid in uids[:maximum])
    return shown if len(uids) <= maximum else f"{shown} and {len(uids) - maximum} more"


def _keep_archives(study: Study, folders: list[TemporaryFolder]) -> Study:
    """Keep the extracted files as long as the stacks that read them."""

    def bound(stack: SeriesStack) -> SeriesStack:
        def read() -> Volume:
            if not all(folder.path.is_dir() for folder in folders):
                raise InputError("the extracted archive was deleted; read the study again")
            return stack.read()

        return replace(stack, read=read)

    return replace(study, stacks=tuple(bound(stack) for stack in study.stacks))


def _study_of(volume: Volume) -> Study:
    """Return a study with one series that is already in memory."""
    require_plausible(volume.geometry)
    stack = SeriesStack(
        series_instance_uid=None,
        description=volume.provenance.source,
        modality="MR",
        n_instances=1,
        parameters={},
        geometry=volume.geometry,
        files=(),
        sop_instance_uids=(),
        read=lambda: volume,
    )
    return Study(StudyInfo(), (stack,))

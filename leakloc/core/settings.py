"""Settings of all stages as one typed (pydantic) model.

Each field has its unit in the name, a default, and the reason for the default. A recipe is a TOML
file with the same sections; settings that it omits keep their defaults. The settings of a run are
written to its report, so that it can be reproduced.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from pathlib import Path
from typing import Any, Literal

import tomlkit
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from leakloc.core.errors import OutputError, SettingsError, suggestion
from leakloc.core.extras import check_installed


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class StageSettings(_Section):
    """Implementation (plug-in) of each replaceable stage."""

    segmenter: str = "leakloc"
    """Name of a plug-in registered under the entry-point group `leakloc.segmenters`."""
    labeler: str = "leakloc"
    """Name of a plug-in registered under the entry-point group `leakloc.labelers`."""


class LoaderSettings(_Section):
    """Reading files and choosing series."""

    max_bridged_gap_mm: float = Field(3.0, ge=0, le=10)
    """Maximum distance between slices around a gap that is interpolated; a larger gap splits the
    stack. A collection thinner than this could be missed in the gap."""
    heavy_echo_time_ms: float = Field(400.0, ge=200, le=2000)
    """Minimum echo time of a spin-echo series considered for myelography. With variable flip angles
    (3D) the nominal echo time is not conclusive, so the T2 weighting is verified on the pixel
    data."""
    max_station_movement_mm: float = Field(5.0, ge=0, le=20)
    """Maximum patient movement between overlapping stations that is corrected before they are
    composed (0 to 3 mm is usual); larger movement is not corrected and remains visible as a
    step."""
    verify_companions: bool = True
    """Whether companion series in the myelogram's frame of reference are checked for patient
    movement between series; takes about half a second per series."""
    compare_myelograms: bool = True
    """Whether fluid is also detected on a second myelogram of the study (such as a coronal one) for
    comparison; takes as long as the segmentation of the first."""
    max_archive_gib: float = Field(16.0, gt=0, le=1000)
    """Maximum unpacked size of an archive in GiB: several times the largest spine study."""
    max_archive_files: int = Field(50_000, ge=1)
    """Maximum number of files in an archive."""
    max_decoded_mib: int = Field(1024, ge=1, le=1048576)
    """Maximum size in memory of a series, a volume or a DICOM file after decompression, which is
    verified before decompression: equal to 512 slices of 1024 x 1024 pixels, more than any spine
    series has."""


class SegmentationSettings(_Section):
    """Fluid map, canal, dura and collections."""

    fat_suppressed: bool | None = None
    """Whether fat is suppressed; overrides the DICOM header and the signal."""
    fluid_min_fraction: float = Field(0.25, gt=0.0, le=1.0)
    """Minimum expected fraction of epidural fluid of the voxels joined into a component. The mask
    is the subset with the highest expected Dice coefficient; the other voxels count only toward the
    volume."""
    search_radius_mm: float = Field(35.0, gt=0.0)
    """Distance from the canal center within which fluid is searched for, to beyond the foramina."""
    corridor_half_width_mm: float = Field(40.0, gt=0.0)
    """Half width of the search region posterior to the spine, which covers a surgical bed."""
    corridor_depth_mm: float = Field(120.0, gt=0.0)
    """Depth of that region, which reaches the skin."""
    collection_min_ml: float = Field(0.25, gt=0.0)
    """Minimum volume of a reported collection. At 0.3 mL a layer of 0.7 mL was missed; at 0.2 mL a
    rim of CSF at C1-C2 of a phantom was reported."""
    collection_min_probability: float = Field(0.4, gt=0.0, lt=1.0)
    """Minimum probability of a candidate that is reported as a collection."""
    collection_gap_mm: float = Field(18.0, ge=0.0)
    """Maximum gap along the canal between components of one collection; fat may interrupt a
    collection."""


class LevelSettings(_Section):
    """Finding and numbering vertebrae."""

    detector: Literal["network", "profile"] = "network"
    """Disc detector: the anatomy network, or `profile`, a baseline that uses the periodic signal
    along the canal and finds nine of ten discs but numbers only one third of patients correctly."""
    anchor: str | None = None
    """A known disc and a point in it, such as `L4-L5@-3.5,12.0,-88.0` (LPS, mm), from which all
    other levels are numbered."""
    anchor_reach_mm: float = Field(20.0, ge=1, le=100)
    """Maximum distance of the anchor point from the disc it names: half a lumbar level."""
    lumbar_count: int | None = Field(None, ge=4, le=6)
    """Number of lumbar vertebrae, if known; otherwise five, unless counting from C2 gives another
    number."""
    lowest_disc: str | None = None
    """Name of the lowest well-formed disc, such as `L5-S1` or `S1-S2`, if known."""
    variant_fraction: float = Field(0.077, gt=0, lt=0.5)
    """Proportion of people with four or six lumbar vertebrae (7.7 % of 418 whole-spine scans)."""
    assumed_confidence: float = Field(0.86, gt=0, lt=1)
    """Maximum confidence when levels are counted from the sacrum; on lumbar MRI alone 14 % of 1049
    patients are numbered incorrectly (clinical series)."""
    transitional_probability: float = Field(0.25, gt=0, lt=1)
    """Minimum probability of another number of lumbar vertebrae at which a transitional vertebra is
    suspected; the maximum in 26 patients of SPIDER was 0.22."""


class LocalizationSettings(_Section):
    """Localization of collections to levels, grading and planning."""

    circumferential_deg: float = Field(270.0, ge=180.0, le=360.0)
    """Minimum angle around the sac of a circumferential collection."""
    longitudinal_levels: float = Field(3.0, ge=1.0, le=24.0)
    """Minimum number of levels of a longitudinal collection (3 to 4 levels in the literature)."""

    definite_confidence: float = Field(0.8, ge=0.0, le=1.0)
    """Minimum confidence of a collection graded definite."""
    probable_confidence: float = Field(0.5, ge=0.0, le=1.0)
    """Minimum confidence of a collection graded probable; below it the grade is possible."""
    small_volume_ml: float = Field(0.3, ge=0.0, le=5.0)
    """Below this volume the stated basis notes that a root sleeve may have the same volume."""

    alternatives_max: int = Field(3, ge=1, le=10)
    """Maximum number of alternative segments reported."""
    level_set_probability: float = Field(0.85, ge=0.0, le=1.0)
    """Minimum probability that the reported set of levels includes the largest cross-section. At
    0.85 it did in 97 % of 91 simulated collections of development patients, with 1.2 segments."""

    absent_confidence: float = Field(0.8, ge=0.0, le=1.0)
    """Confidence of a negative result without equivocal signal; MR myelography missed one leak in
    eight to five in published series."""

    hiatus_min_confidence: float = Field(0.5, ge=0.0, le=1.0)
    """Below this confidence the sacral hiatus counts as not detected."""


class ReportSettings(_Section):
    """Outputs and patient identity."""

    write: tuple[
        Literal[
            "json",
            "masks",
            "png",
            "html",
            "text",
            "seg",
            "sr",
            "sc",
            "relabel",
            "pdf",
            "html3d",
            "csv",
            "caudal",
            "markups",
            "fhir",
            "bids",
        ],
        ...,
    ] = (
        "json",
        "masks",
        "png",
        "html",
        "text",
        "seg",
        "sr",
        "sc",
        "relabel",
        "markups",
        "fhir",
    )
    """Outputs to write; report.json is always written. `masks` includes the names and colors of
    their values, `markups` are points and curves for 3D Slicer, `fhir` is a FHIR R4 bundle, and
    `relabel` writes relabel.npz, with which `leakloc relabel` renumbers the levels; on request also
    pdf (vector figures), html3d (3D page, needs WebGL2), csv (collections.csv,
    levels.csv and measurements.csv), caudal (caudal_access.pdf, one page) and bids (the masks as a
    BIDS derivative dataset in derivatives/leakloc)."""
    bids_subject: str = Field("", pattern=r"^[A-Za-z0-9]*$")
    """Subject label (`sub-`) of the BIDS derivatives: letters and digits; by default 8 digits of a
    hash of the Study Instance UID, so that names contain no patient data."""
    bids_session: str = Field("", pattern=r"^[A-Za-z0-9]*$")
    """Session label (`ses-`) of the BIDS derivatives; by default there is none."""
    identity: Literal["keep", "hash", "remove"] = "hash"
    """Patient ID and accession number in report.json and report.html: unchanged, as a keyed hash
    (key: environment variable LEAKLOC_IDENTITY_KEY), or null, with the study date. The Study
    Instance UID is always kept so that planning software can find the images. fhir.json contains
    the patient ID only if it is unchanged."""
    dicom_identity: Literal["keep", "remove"] = "keep"
    """Attributes of patient, study and equipment in the DICOM objects: those of the source images,
    so that archives file the objects with them, or removed according to the basic profile of DICOM
    PS3.15 Annex E. Then only UIDs, modality, body part and geometry are retained, and dates are
    dummies."""
    level_scheme: Literal[
        "leakloc", "totalspineseg", "spineps", "totalsegmentator", "totalsegmentator_mr", "sct"
    ] = "leakloc"
    """Label values of masks/levels.nii.gz (`leakloc.levels.schemes`), so that it can replace
    another program's level map; vertebrae without a value in the scheme are omitted."""
    mask_compression: int = Field(1, ge=0, le=9)
    """gzip level of the masks; levels above 1 are slower and hardly smaller."""
    picture_height_px: int = Field(900, ge=400, le=2000)
    """Height of a figure in pixels, legible at 1:1 on a full-HD screen."""

    def check_installed(self) -> None:
        """Check that the packages required by `write` are installed, before an analysis.

        Raises
        ------
        SettingsError
            If one is not installed; the message contains the installation command.
        """
        if "pdf" in self.write:
            check_installed(("matplotlib",), "figures")


class NodeSettings(_Section):
    """Receiving studies over the network and returning results; does not affect the analysis."""

    settle_s: float = Field(60.0, ge=0.1, le=86400)
    """A study is analyzed when nothing has arrived for this long and no association that sent part
    of it is open; scanners and archives send a study in several associations with pauses."""
    max_associations: int = Field(16, ge=1, le=200)
    """Maximum number of concurrent senders: archives open 1 to 8, some scanners one per series."""
    max_instance_mib: int = Field(1024, ge=1, le=4096)
    """Maximum size of an object accepted: an enhanced MR object of 2000 frames of 384 x 384 has 560
    MiB."""
    max_receiving_mib: int = Field(2048, ge=1, le=65536)
    """Maximum total size of the objects being received that are held in memory, over all
    senders."""
    max_study_instances: int = Field(20000, ge=1, le=1000000)
    """Maximum number of objects of one study: ten times a large spine study."""
    min_free_mib: int = Field(1024, ge=0, le=1048576)
    """Minimum free disk space; below it objects are refused (status A700), because results need
    space too."""
    network_timeout_s: float = Field(60.0, ge=1, le=3600)
    """Timeout after which an idle association or a stalled send is closed; maximum duration of an
    association request."""
    min_rate_kib_s: float = Field(4.0, ge=0, le=1048576)
    """Minimum mean rate of an object or DICOMweb response being received, after
    `network_timeout_s`; a slower connection is closed. A line of 1 Mbit/s that 16 senders use has 8
    KiB/s for each."""
    also_accept: tuple[str, ...] = ()
    """UIDs of further storage SOP classes accepted and stored with the MR images, for archives that
    only send whole studies; they are not analyzed."""
    resend_s: float = Field(60.0, ge=0.1, le=86400)
    """Delay before a failed send or retrieval is repeated; doubled each time, up to an hour."""
    resend_for_h: float = Field(72.0, ge=0, le=8760)
    """Period over which a failed send is repeated, in which the node runs; an archive may be
    unavailable over a weekend."""
    tls_certificate: str = ""
    """PEM file of this node's certificate; if set, the node accepts TLS only."""
    tls_key: str = ""
    """PEM file of its key; empty if the certificate file contains it."""
    tls_authorities: str = ""
    """PEM file of the certificate authorities of peers; senders must then present a certificate. AE
    titles do not authenticate a sender."""
    tls_return: bool = False
    """Whether results are sent over TLS, to a peer whose certificate is verified."""
    poll_s: float = Field(30.0, ge=0.1, le=86400)
    """Time between two queries of a DICOMweb server."""
    look_back_days: int = Field(3, ge=0, le=36500)
    """Maximum age of the studies of a DICOMweb server that are considered, in days."""
    select: Literal["spine", "mr"] = "spine"
    """MR studies of a DICOMweb server to process: those whose descriptions name the spine or no
    body region, or all."""


class Settings(_Section):
    """All settings of one analysis."""

    stages: StageSettings = Field(default_factory=StageSettings)
    """Implementation (plug-in) of each replaceable stage."""
    loaders: LoaderSettings = Field(default_factory=LoaderSettings)
    """Reading files and choosing series."""
    segmentation: SegmentationSettings = Field(default_factory=SegmentationSettings)
    """Fluid map, canal, dura and collections."""
    levels: LevelSettings = Field(default_factory=LevelSettings)
    """Finding and numbering vertebrae."""
    localization: LocalizationSettings = Field(default_factory=LocalizationSettings)
    """Localization of collections to levels, grading and planning."""
    report: ReportSettings = Field(default_factory=ReportSettings)
    """Outputs and patient identity."""
    node: NodeSettings = Field(default_factory=NodeSettings)
    """Receiving studies over the network and returning results; does not affect the analysis."""

    @classmethod
    def load(cls, path: str | Path) -> Settings:
        """Read a TOML recipe with the sections and keys that `leakloc config` prints.

        Raises
        ------
        SettingsError
            If the file cannot be read, a key is unknown, or a value is invalid.
        """
        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise SettingsError(f"cannot read the recipe {path}: {error}") from error
        values.pop("recipe", None)  # name and description
        return cls.from_dict(values, source=str(path))

    @classmethod
    def from_dict(cls, values: dict[str, Any], source: str = "settings") -> Settings:
        """Validate nested values; unknown keys and out-of-range values raise `SettingsError`."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            if first["type"] == "extra_forbidden":
                raise unknown_setting(where, f"{source}: ") from error
            if first["type"] == "literal_error":
                expected = first["ctx"]["expected"]  # "'a', 'b' or 'c'"
                hint = suggestion(str(first["input"]), re.findall("'([^']*)'", expected))
                hint = hint or f"; valid: {expected}"
                raise SettingsError(
                    f"{source}: {where}: {first['input']!r} is not a valid value{hint}"
                ) from error
            raise SettingsError(f"{source}: {where}: {first['msg']}") from error

    def changed(self, **values: Any) -> Settings:
        """Return a copy with some values replaced, as ``section__key=value``.

        Examples
        --------
        >>> Settings().changed(stages__labeler="mine").stages.labeler
        'mine'
        """
        nested = self.model_dump(mode="python")
        for name, value in values.items():
            section, _, key = name.partition("__")
            if section not in nested or key not in nested[section]:
                raise unknown_setting(f"{section}.{key}" if key else section)
            nested[section][key] = value
        return self.from_dict(nested)

    def differences(self) -> dict[str, dict[str, Any]]:
        """Return the values that differ from the defaults, by section and key.

        Examples
        --------
        >>> Settings().changed(stages__labeler="mine").differences()
        {'stages': {'labeler': 'mine'}}
        """
        mine, usual = self.model_dump(), Settings().model_dump()
        found = {
            section: {key: v for key, v in values.items() if v != usual[section][key]}
            for section, values in mine.items()
        }
        return {section: values for section, values in found.items() if values}

    def save(self, path: str | Path) -> None:
        """Write a recipe for `load` and ``leakloc analyze --pipeline``.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        try:
            Path(path).write_text(self.to_toml(), encoding="utf-8")
        except OSError as error:
            raise OutputError(f"cannot write the recipe {path}: {error.strerror}") from error

    @property
    def sha256(self) -> str:
        """SHA-256 of all settings that affect an analysis; independent of the machine."""
        text = json.dumps(self.model_dump(mode="json", exclude={"node"}), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_toml(self) -> str:
        """Return all values as TOML, each with its description as a comment."""
        document = tomlkit.document()
        for section_name, section in type(self).model_fields.items():
            table = tomlkit.table()
            if section.description:
                table.comment(section.description)
            model: _Section = getattr(self, section_name)
            for key, field in type(model).model_fields.items():
                for line in (field.description or "").splitlines():
                    table.add(tomlkit.comment(line.strip()))
                value = getattr(model, key)
                if value is None:  # TOML has no null; absent means default
                    table.add(tomlkit.comment(f"{key} = (unset)"))
                else:
                    table.add(key, list(value) if isinstance(value, tuple) else value)
            document.add(section_name, table)
        return tomlkit.dumps(document)


def setting_names() -> list[str]:
    """Return the names of all settings, as ``section.key``."""
    return [
        f"{section}.{key}" for section, values in Settings().model_dump().items() for key in values
    ]


def unknown_setting(name: str, source: str = "") -> SettingsError:
    """Return the error for an unknown setting ``section.key`` or an unknown section."""
    known = setting_names()
    key = name.partition(".")[2]
    if not key:
        known = list(Settings.model_fields)
    elsewhere = [other for other in known if key and other.endswith(f".{key}")]
    hint = suggestion(name, elsewhere or known) or "; `leakloc config` prints all settings"
    return SettingsError(f"{source}no setting is named {name!r}{hint}")


def find_recipe(name: str) -> Path:
    """Return the TOML file of a recipe: a path, or the name of a recipe shipped with leakloc.

    Raises
    ------
    SettingsError
        If there is no such file.
    """
    for path in [Path(name), *(folder / f"{name}.toml" for folder in _recipe_folders())]:
        if path.is_file():
            return path
    raise SettingsError(
        f"no recipe file {name!r}; specify a file or one of: {', '.join(recipe_names())}"
    )


def recipe_names() -> list[str]:
    """Return the names of the recipes shipped with leakloc."""
    return sorted({file.stem for folder in _recipe_folders() for file in folder.glob("*.toml")})


def _recipe_folders() -> list[Path]:
    package = Path(__file__).parents[1]
    return [package / "recipes", package.parent / "pipelines"]  # installed, or a checkout

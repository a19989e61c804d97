"""A small analytic study: a bent tube of CSF, named vertebrae, fluid posterior and lateral to it.

The grid is oblique, stored as a sagittal acquisition, with three different spacings, so
that every mix-up of axes shows.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from leakloc.anatomy.centerline import Centerline
from leakloc.anatomy.spine import Spine
from leakloc.anatomy.vocabulary import LABEL_VALUES
from leakloc.core.notes import Note
from leakloc.core.parts import Part
from leakloc.core.settings import Settings
from leakloc.core.volume import FloatArray, Geometry, Provenance, Volume
from leakloc.levels.result import AlternativeNumbering, Disc, Levels, Numbering, Vertebra
from leakloc.loaders.study import SeriesStack, Study, StudyInfo, Triage, TriagedStack
from leakloc.localization.result import (
    AxialT2,
    CaudalEnd,
    Collection,
    Coverage,
    Crossing,
    DarkLine,
    Extent,
    ExtentEnd,
    Finding,
    Interruption,
    LevelAlternative,
    Localization,
    Planning,
    PositionFractions,
    Profile,
    SacralHiatus,
    SacSegment,
    SegmentFluid,
    SideFluid,
    Target,
    ThecalSac,
)
from leakloc.pipeline import Analysis
from leakloc.report import write_outputs
from leakloc.segmentation.result import Segmentation

AnyPart = TypeVar("AnyPart", bound=Part)

STUDY_UID = "1.2.826.0.1.3680043.8.498.1"
SERIES_UID = "1.2.826.0.1.3680043.8.498.2"
PATIENT_ID = "MRN-0047-SECRET"
ACCESSION = "ACC-1234-SECRET"

VERTEBRA_HEIGHTS_MM = {"L1": 82.0, "L2": 47.0, "L3": 12.0, "L4": -23.0, "L5": -57.0, "S1": -88.0}

AXIAL_T2 = AxialT2(
    bright=True, confirms=False, side_confirmed=True, ratio=0.97, low=0.95, high=0.99,
    opposite_ratio=0.31, fat_ratio=0.71, fat_high=1.13, n_voxels=90, covered_fraction=1.0,
    dark_line=DarkLine(
        fraction=0.63, n_slices=11, n_samples=243, n_excluded=57, not_measured="partial volume",
        interruption=Interruption(
            center_lps_mm=(3.0, 60.0, -70.0), level="L3-L4", side="left", angle_deg=64.0,
            width_mm=3.42,
        ),
    ),
)  # fmt: skip


def canal(z_mm: FloatArray) -> FloatArray:
    """Middle of the canal at heights z: LPS points on a lordotic curve."""
    z = np.asarray(z_mm, dtype=float)
    return np.stack([0.02 * z, 12.0 * np.cos(z / 55.0), z], axis=-1)


def offset_from(point: FloatArray, left_mm: float = 0.0, back_mm: float = 0.0) -> FloatArray:
    """A point moved to the patient's left and back."""
    return np.asarray(point + np.array([left_mm, back_mm, 0.0]))


def oblique_geometry() -> Geometry:
    """96 x 96 x 64 voxels stored sagittally, tilted about two axes."""
    a, b = np.deg2rad([7.0, -5.0])
    tilt = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    turn = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    # i to the back, j to the feet, k to the patient's right.
    axes = tilt @ turn @ np.array([[0, 0, -1], [1, 0, 0], [0, -1, 0]], dtype=float)
    spacing = np.array([1.3, 2.1, 1.1])
    shape = (64, 96, 96)
    center = np.array([0.0, 0.0, 0.0])
    origin = center - axes @ (spacing * (np.array(shape[::-1]) - 1) / 2)
    return Geometry.from_axes(shape, origin_lps=origin, spacing_ijk_mm=spacing, directions_lps=axes)


def synthetic(geometry: Geometry | None = None, *, leak: bool = True) -> Analysis:
    """Results of all stages on the analytic study."""
    geometry = geometry or oblique_geometry()
    points = geometry.lps_from_kji(np.moveaxis(np.indices(geometry.shape), 0, -1))
    x, y, z = np.moveaxis(points, -1, 0)
    middle = canal(z)
    right_left, front_back = x - middle[..., 0], y - middle[..., 1]
    sac = (right_left / 8) ** 2 + (front_back / 6.5) ** 2 < 1
    sac &= z > -90
    dorsal = ((right_left / 7) ** 2 + (front_back / 12) ** 2 < 1) & ~sac & (front_back > 3)
    dorsal &= (z > -60) & (z < -10)
    left = (right_left - 14) ** 2 + front_back**2 + (z - 30) ** 2 < 16
    collections = np.zeros(geometry.shape, np.uint8)
    if leak:
        collections[dorsal] = 1
        collections[left & ~sac] = 2
    levels = _levels(geometry, points)
    rng = np.random.default_rng(0)
    image = 60 + 12 * rng.standard_normal(geometry.shape)
    image[levels.mask.array > 0] += 45
    image[sac | (collections > 0)] += 700
    roots = sac & (np.hypot(right_left - 2, front_back - 2) < 1.2)
    image[roots] -= 350
    volume = Volume(
        np.clip(image, 0, None).astype(np.float32), geometry, Provenance("myelogram", SERIES_UID)
    )
    return Analysis(
        study=Study(StudyInfo(STUDY_UID, "20260102", ACCESSION, PATIENT_ID), ()),
        triage=_triage(volume),
        segmentation=Segmentation(
            fluid_fraction=volume.with_array((image > 400).astype(np.float32)),
            centerline=Centerline(canal(np.arange(98.0, -98.0, -1.0))),
            thecal_sac=volume.with_array(sac.astype(np.uint8)),
            collections=volume.with_array(collections),
            candidates=(),
            fat_suppressed=True,
            csf_signal=760.0,
            noise=12.0,
            notes=(Note("synthetic", "Made from formulas."),),
        ),
        levels=levels,
        localization=_localization(leak=leak),
        settings=Settings(),
        runtime_s={"reading": 0.5, "segmentation": 1.25},
    )


def _triage(volume: Volume) -> Triage:
    stack = SeriesStack(
        series_instance_uid=SERIES_UID,
        description="T2 SPACE myelo",
        modality="MR",
        n_instances=volume.geometry.shape[0],
        parameters={},
        geometry=volume.geometry,
        files=(),
        sop_instance_uids=(),
        read=lambda: volume,
    )
    scout = replace(
        stack, series_instance_uid=SERIES_UID + ".1", description="scout", geometry=None
    )
    return Triage(
        stacks=(
            TriagedStack(scout, "localizer", "name says scout"),
            TriagedStack(
                stack, "myelogram", "heavily T2-weighted 3D", used_for=("fluid", "levels")
            ),
        ),
        spine=Spine(volume),
        companions={},
        notes=(Note("synthetic", "Made from formulas."),),
    )


def _levels(geometry: Geometry, points: FloatArray) -> Levels:
    names = list(VERTEBRA_HEIGHTS_MM)
    heights = np.array(list(VERTEBRA_HEIGHTS_MM.values()))
    centers = canal(heights) - [0.0, 26.0, 0.0]
    mask = np.zeros(geometry.shape, np.uint8)
    for name, center in zip(names, centers, strict=True):
        inside = (np.abs(points - center) < [22, 15, 12]).all(axis=-1)
        mask[inside] = LABEL_VALUES[name]
    return Levels(
        status="labelled",
        numbering=Numbering(
            "sacrum_up",
            "five lumbar vertebrae",
            0.82,
            5,
            alternatives=(AlternativeNumbering(-1, 0.12, "the sacrum is cut off"),),
        ),
        vertebrae=tuple(Vertebra(n, c, 0.9) for n, c in zip(names, centers, strict=True)),
        discs=tuple(
            Disc(f"{a}-{b}", (p + q) / 2, np.array([0.0, 0.0, 1.0]), 0.9)
            for a, b, p, q in zip(names, names[1:], centers, centers[1:], strict=False)
        ),
        mask=Volume(mask, geometry),
    )


def changed_part(part: AnyPart, **values: object) -> AnyPart:
    """A part of the report with other values, which are validated."""
    return type(part)(**{**dict(part), **values})


def _localization(*, leak: bool) -> Localization:
    first = Collection(
        id=1,
        level="L4-L5",
        alternatives=(
            LevelAlternative(level="L3-L4", score=0.2, basis=("numbering may be one too low",)),
        ),
        segments=("L3-L4", "L4-L5"),
        extent=Extent(
            cranial=ExtentEnd(
                lps_mm=offset_from(canal(-10), back_mm=9),
                segment="L3-L4",
                description="L3-L4, 5 mm below the disc center",
            ),
            caudal=ExtentEnd(
                lps_mm=offset_from(canal(-60), back_mm=9),
                segment="L4-L5",
                description="L4-L5, 20 mm below the disc center",
            ),
            length_mm=50.0,
        ),
        position=PositionFractions(label="dorsal", dorsal=0.9, ventral=0.0, left=0.06, right=0.04),
        compartments=("epidural",),
        pattern="focal",
        volume_ml=3.21,
        max_thickness_mm=5.5,
        max_area_mm2=61.0,
        sac_compression=0.1,
        centroid_lps_mm=offset_from(canal(-35), back_mm=9),
        epicenter_lps_mm=offset_from(canal(-40), back_mm=9),
        confidence=0.86,
        grade="definite",
        basis=("brighter than fat", "follows the laminae"),
        mimics_considered=("facet effusion",),
        profile=Profile(
            arc_mm=tuple(range(5)),
            thickness_mm=(1, 3, 5.5, np.nan, 1),
            area_mm2=(9, 30, 61, 40, 8),
        ),
    )
    second = changed_part(
        first,
        id=2,
        level="L2-L3",
        alternatives=(),
        segments=("L2-L3",),
        position=PositionFractions(label="left", dorsal=0.0, ventral=0.0, left=1.0, right=0.0),
        compartments=("foraminal",),
        pattern="periradicular",
        volume_ml=0.27,
        extent=changed_part(first.extent, length_mm=8.0),
        sac_compression=None,
        centroid_lps_mm=offset_from(canal(30), left_mm=14),
        epicenter_lps_mm=offset_from(canal(30), left_mm=14),
        confidence=0.4,
        grade="possible",
    )
    path = np.linspace([0, 20, -96], offset_from(canal(-40), back_mm=9), 20)
    target = Target(
        collection=1,
        level="L4-L5",
        canal_distance_from_hiatus_mm=61.0,
        distance_to_caudal_end_mm=41.0,
        distance_to_cranial_end_mm=91.0,
        path_lps_mm=tuple(path),
        nearest_interlaminar="L4-L5",
        crossings=(Crossing(disc="L5-S1", distance_from_hiatus_mm=25.0),),
    )
    return Localization(
        thecal_sac=ThecalSac(
            volume_ml=28.0,
            csf_volume_ml=24.0,
            caudal_end=CaudalEnd(lps_mm=None, level=None),
            by_segment=(
                SacSegment(segment="L4-L5", volume_ml=5.6, min_area_mm2=120.0, mean_area_mm2=150.0),
            ),
        ),
        collections=(first, second) if leak else (),
        finding=Finding(
            leak="present" if leak else "absent",
            level="L4-L5" if leak else None,
            confidence=0.86,
            summary="Dorsal epidural fluid signal at L4-L5, 3.2 mL; probable."
            if leak
            else "No epidural fluid detected; this does not exclude a leak.",
        ),
        planning=Planning(
            sacral_hiatus=SacralHiatus(visible=False, lps_mm=None, confidence=0.0),
            targets=(target,) if leak else (),
            sac_tip_to_hiatus_mm=float("nan"),
        ),
        coverage=Coverage(cranial="L1", caudal="S1"),
        fluid_by_segment=tuple(
            segment_fluid(name, dorsal_mm=4.5 if leak and name == "L4-L5" else 0.0)
            for name in ("L3-L4", "L4-L5", "L5-S1")
        ),
        snr=58.3,
        notes=(Note("synthetic", "Made from formulas."), Note("c2_not_seen", "C2 is not seen.")),
    )


def segment_fluid(name: str, dorsal_mm: float) -> SegmentFluid:
    """A segment with fluid dorsal to the sac, or without fluid."""
    none = SideFluid(present=False, thickness_mm=0.0, area_mm2=0.0)
    fluid = SideFluid(present=True, thickness_mm=dorsal_mm, area_mm2=20 * dorsal_mm)
    present = dorsal_mm > 0
    return SegmentFluid(
        segment=name,
        present=present,
        collections=(1,) if present else (),
        dorsal=fluid if present else none,
        ventral=none,
        left=none,
        right=none,
    )


@pytest.fixture(scope="session")
def analysis() -> Analysis:
    return synthetic()


@pytest.fixture(scope="session")
def leakless() -> Analysis:
    return synthetic(leak=False)


def write_series(volume: Volume, folder: Path) -> SeriesStack:
    """A volume as classic MR instances, one per k; file names do not tell the order."""
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    geometry = volume.geometry
    i_mm, j_mm, k_mm = geometry.spacing_ijk_mm
    folder.mkdir(parents=True, exist_ok=True)
    frame = generate_uid()
    files, uids = [], []
    for k in range(geometry.shape[0]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = pydicom.uid.MRImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        image.SOPClassUID = meta.MediaStorageSOPClassUID
        image.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
        image.StudyInstanceUID, image.SeriesInstanceUID = STUDY_UID, SERIES_UID
        image.FrameOfReferenceUID = frame
        image.PositionReferenceIndicator = None
        image.PatientName, image.PatientID = "Doe^Jane", PATIENT_ID
        image.PatientBirthDate, image.PatientSex = "19700101", "F"
        image.AccessionNumber, image.StudyID = ACCESSION, "1"
        image.StudyDate, image.StudyTime = "20260102", "101500"
        image.ReferringPhysicianName = "Referrer^R"
        image.Modality, image.Manufacturer = "MR", "Nobody"
        image.SeriesNumber, image.InstanceNumber = 3, k + 1
        image.ImageType = ["ORIGINAL", "PRIMARY", "M"]
        image.ImagePositionPatient = [f"{x:.8g}" for x in geometry.lps_from_ijk([0, 0, k])]
        image.ImageOrientationPatient = [f"{x:.10g}" for x in geometry.directions_lps.T[:2].ravel()]
        image.PixelSpacing = [j_mm, i_mm]
        image.SliceThickness = image.SpacingBetweenSlices = k_mm
        pixels = volume.array[k].astype(np.uint16)
        image.Rows, image.Columns = pixels.shape
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated = image.BitsStored = 16
        image.HighBit, image.PixelRepresentation = 15, 0
        image.PixelData = pixels.tobytes()
        path = folder / f"{(7 * k) % geometry.shape[0]:03d}-{k}.dcm"
        image.save_as(path, enforce_file_format=True)
        files.append(path)
        uids.append(str(image.SOPInstanceUID))
    return SeriesStack(
        SERIES_UID,
        "T2 SPACE myelo",
        "MR",
        len(files),
        {},
        geometry,
        tuple(files),
        tuple(uids),
        lambda: volume,
    )


@pytest.fixture(scope="session")
def as_dicom() -> Callable[[Analysis, Path], Analysis]:
    """The same analysis as if its myelogram had been read from DICOM files."""

    def change(analysis: Analysis, folder: Path) -> Analysis:
        stack = write_series(analysis.triage.myelogram, folder)
        stacks = tuple(
            replace(t, stack=stack) if "fluid" in t.used_for else t for t in analysis.triage.stacks
        )
        return replace(analysis, triage=replace(analysis.triage, stacks=stacks))

    return change


@pytest.fixture(scope="session")
def make_synthetic() -> Callable[..., Analysis]:
    return synthetic


def small(codes: str) -> Analysis:
    """A study of few voxels with three different spacings, stored along `codes`."""
    a = np.deg2rad(6.0)
    tilt = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    spacing = np.array([2.3, 3.1, 5.7])
    shape = (34, 32, 24)
    origin = -tilt @ (spacing * (np.array(shape[::-1]) - 1) / 2) + [3.0, -7.0, 11.0]
    grid = Geometry.from_axes(shape, origin_lps=origin, spacing_ijk_mm=spacing, directions_lps=tilt)
    stored = Volume(np.zeros(shape, np.uint8), grid).oriented(codes).geometry
    return synthetic(stored)


@pytest.fixture(scope="session")
def make_small() -> Callable[[str], Analysis]:
    return small


@pytest.fixture(scope="session")
def written(
    as_dicom: Callable[[Analysis, Path], Analysis], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Analysis, Path]:
    """An analysis of few voxels with a DICOM source, and its report folder."""
    folder = tmp_path_factory.mktemp("dicom")
    analysis = as_dicom(small("SLA"), folder / "source")
    analysis = replace(analysis, settings=analysis.settings.changed(report__picture_height_px=400))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        report = write_outputs(analysis, folder / "out")
    assert [w.code for w in report.quality.warnings] == ["synthetic", "c2_not_seen"]
    assert report.outputs.dicom["seg"] == "dicom/seg.dcm"
    assert len(report.outputs.dicom["sc"]) == 8
    return analysis, folder / "out"


@pytest.fixture
def with_settings() -> Callable[..., Analysis]:
    """The analysis of another study or the same, with some settings changed."""

    def change(analysis: Analysis, **values: object) -> Analysis:
        return replace(analysis, settings=analysis.settings.changed(**values))

    return change


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "out"

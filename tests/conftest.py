"""Making small DICOM series with known geometry and content."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.uid import generate_uid as random_uid

_number = count()

SAMPLE = Path(__file__).parents[1] / "sample_data" / "postoperative" / "dicom"


USERS_OF_THE_SAMPLE = (
    "tests/relabel/", "tests/napari/", "tests/test_pipeline.py", "tests/test_api.py",
    "tests/report/test_contents.py",
)  # fmt: skip


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Tests of a file, and those of the analysis of the sample, run in one process.

    Otherwise each process repeats their fixtures.
    """
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            if nodeid.startswith(USERS_OF_THE_SAMPLE):
                return "the sample"
            return super()._split_scope(nodeid)

    return Scheduling(config, log)


@dataclass
class Recorded:
    """An analysis with what its stages used."""

    analysis: Any
    images: list[Any]
    traced: list[Any]
    labeled: list[Any]


@pytest.fixture(scope="session")
def recorded_sample() -> Recorded:
    """The analysis of the sample study, for reports without figures."""
    import leakloc
    from leakloc.anatomy.canal import find_canal
    from leakloc.anatomy.network import anatomy_probabilities
    from leakloc.pipeline import stage

    images, traced, labeled = [], [], []

    def run(image):
        images.append(image)
        return anatomy_probabilities(image)

    def trace(volume, prior):
        traced.append(volume)
        return find_canal(volume, prior)

    def labeler(spine, companions, segmentation, settings):
        labeled.append(spine.myelogram)
        return stage("leakloc.labelers", "leakloc")(spine, companions, segmentation, settings)

    write = ["json", "masks", "csv", "relabel"]
    settings = leakloc.Settings().changed(report__write=write, report__picture_height_px=400)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("leakloc.anatomy.network.anatomy_probabilities", run)
        patch.setattr("leakloc.anatomy.spine.find_canal", trace)
        analysis = leakloc.analyze(leakloc.load(SAMPLE), settings, labeler=labeler)
    return Recorded(analysis, images, traced, labeled)


@pytest.fixture(scope="session")
def sample_analysis(recorded_sample):
    return recorded_sample.analysis


@pytest.fixture(scope="session")
def sample_report(sample_analysis, tmp_path_factory) -> Path:
    """Its report folder; tests that change it copy it first."""
    out = tmp_path_factory.mktemp("sample") / "out"
    sample_analysis.save(out)
    return out


@pytest.fixture
def annotation_of():
    """The ground truth of a simulated study as an annotation."""
    from leakloc.validation.evaluation.annotation import annotation_from_truth
    from leakloc.validation.simulation.truth import true_values

    def annotate(study):
        name = f"{study.scenario.name}_{study.patient}_{study.seed}"
        masks = study.thecal_sac, study.fluid, study.fluid_fraction
        return annotation_from_truth(true_values(study), name, *masks)

    return annotate


@pytest.fixture
def made_simulation():
    """A simulated study without a real patient: a straight sac, fluid behind it at L3-L4."""
    from types import SimpleNamespace

    from leakloc.anatomy.centerline import Centerline
    from leakloc.core.volume import Geometry, Volume
    from leakloc.validation.simulation import SCENARIOS

    def make(scenario="dorsal", patient="107", seed=100, spacing_mm=1.0, slice_mm=1.0):
        """Discs every 30 mm from 0 (L5-S1) up to 120 (L1-L2); fluid 8 mm thick, 50 to 74 mm."""
        shape = (round(150 / slice_mm), round(48 / spacing_mm), round(30 / spacing_mm))
        grid = Geometry.from_axes(
            shape, origin_lps=(-14.5, -24, -20 + slice_mm / 2),
            spacing_ijk_mm=(spacing_mm, spacing_mm, slice_mm),
        )  # fmt: skip
        points = grid.lps_from_kji(np.argwhere(np.ones(shape, bool))).T.reshape(3, *shape)
        x, y, z = points
        sac = (np.hypot(x, y) < 8) & (z > -10)
        behind = (abs(x) < 6) & (y >= 8) & (y < 16)
        # Full slices: the fraction of a thick one is what its part of 50 to 74 mm is.
        part = np.clip(np.minimum(z + slice_mm / 2, 74) - np.maximum(z - slice_mm / 2, 50), 0, None)
        scenario = SCENARIOS[scenario] if isinstance(scenario, str) else scenario
        fraction = np.where(behind, part / slice_mm, 0) * scenario.leak
        signal = np.where(sac, 1.0, 0.05) + fraction
        discs = {f"L{5 - n}-L{6 - n}": np.array([0.0, -20, 30 * n]) for n in range(1, 5)}
        return SimpleNamespace(
            patient=patient, scenario=scenario, seed=seed, repeat=0,
            myelogram=Volume(signal.astype(np.float32), grid),
            companion=Volume(signal.astype(np.float32), grid).oriented("PIL"),
            thecal_sac=Volume(sac.astype(np.uint8), grid),
            fluid=Volume((fraction >= 0.5).astype(np.uint8), grid),
            fluid_fraction=Volume(fraction.astype(np.float32), grid),
            centerline=Centerline(np.array([[0.0, 0, z] for z in range(128, -56, -1)])),
            discs={"L5-S1": np.array([0.0, -20, 0]), **discs},
            positions={1: "dorsal"} if scenario.leak else {},
        )  # fmt: skip

    return make


def generate_uid() -> str:
    """A new UID, the same ones in the same order on every run."""
    return random_uid(entropy_srcs=[str(next(_number))])


MR = "1.2.840.10008.5.1.4.1.1.4"
SAGITTAL = ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0))
AXIAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
CORONAL = ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0))


@dataclass
class Series:
    """Headers and pixels of a classic series; change them, then `write`."""

    datasets: list[Dataset]
    array: np.ndarray  # [k, j, i] in the order of the k axis
    affine_lps: np.ndarray
    paths: list[Path] = field(default_factory=list)

    def set(self, **values: Any) -> Series:
        for dataset in self.datasets:
            for keyword, value in values.items():
                if value is None:
                    dataset.pop(keyword, None)
                else:
                    setattr(dataset, keyword, value)
        return self

    def write(self, folder: Path, prefix: str = "im") -> Series:
        folder.mkdir(parents=True, exist_ok=True)
        for n, dataset in enumerate(self.datasets):
            path = folder / f"{prefix}{n:04d}"
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
            pydicom.dcmwrite(path, dataset, enforce_file_format=True)
            self.paths.append(path)
        return self


def build_series(
    *,
    shape: tuple[int, int, int] = (8, 24, 16),
    spacing_ijk_mm: tuple[float, float, float] = (0.7, 0.9, 1.3),
    plane: Any = SAGITTAL,
    origin_lps: tuple[float, float, float] = (-10.0, -30.0, 40.0),
    array: np.ndarray | None = None,
    study_uid: str = "1.2.826.0.1.1",
    frame_uid: str | None = "1.2.826.0.1.2",
    series_number: int = 1,
    **tags: Any,
) -> Series:
    """A series whose affine is known; tags are added to every instance (None removes)."""
    k, j, i = shape
    row, column = (np.array(axis) for axis in plane)
    normal = np.cross(row, column)
    if array is None:
        array = np.random.default_rng(0).integers(0, 1000, shape).astype(np.uint16)
    affine = np.eye(4)
    affine[:3, 0] = row * spacing_ijk_mm[0]
    affine[:3, 1] = column * spacing_ijk_mm[1]
    affine[:3, 2] = normal * spacing_ijk_mm[2]
    affine[:3, 3] = origin_lps
    series_uid = generate_uid()
    datasets = []
    for n in range(k):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID = MR
        dataset.SOPInstanceUID = generate_uid()
        dataset.StudyInstanceUID = study_uid
        dataset.SeriesInstanceUID = series_uid
        dataset.SeriesNumber = series_number
        dataset.InstanceNumber = n + 1
        dataset.PatientID = "P1"
        dataset.Modality = "MR"
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
        if frame_uid is not None:
            dataset.FrameOfReferenceUID = frame_uid
        dataset.ImageOrientationPatient = [float(x) for x in (*row, *column)]
        dataset.ImagePositionPatient = [float(x) for x in affine[:3, 3] + n * affine[:3, 2]]
        dataset.PixelSpacing = [spacing_ijk_mm[1], spacing_ijk_mm[0]]
        dataset.SpacingBetweenSlices = -3.0
        dataset.SliceThickness = spacing_ijk_mm[2]
        signed = array.dtype.kind == "i"
        dataset.Rows, dataset.Columns = j, i
        dataset.SamplesPerPixel = 1
        dataset.PhotometricInterpretation = "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit = 15
        dataset.PixelRepresentation = int(signed)
        dataset.PixelData = np.ascontiguousarray(array[n]).tobytes()
        datasets.append(dataset)
    return Series(datasets, array, affine).set(**tags)


def build_enhanced(
    path: Path, made: Series, order: list[int], changes: dict[int, dict[str, Any]] | None = None
) -> Dataset:
    """The frames of a classic series as one Enhanced MR object, in the specified order.

    `changes` overrides, by place in the series: echo_time, frame_type, slope, position,
    orientation, time.
    """

    def group(**values: Any) -> DicomSequence:
        item = Dataset()
        for keyword, value in values.items():
            setattr(item, keyword, value)
        return DicomSequence([item])

    first = made.datasets[0]
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for element in first:
        if element.keyword not in (
            "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "EchoTime",
            "SliceThickness", "PixelData",
        ):  # fmt: skip
            dataset.add(element)
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4.1"
    dataset.SOPInstanceUID = generate_uid()
    dataset.NumberOfFrames = len(order)
    shared = Dataset()
    shared.PixelMeasuresSequence = group(PixelSpacing=first.PixelSpacing, SliceThickness=1.0)
    shared.MRTimingAndRelatedParametersSequence = group(RepetitionTime=4000.0, FlipAngle=120.0)
    dataset.SharedFunctionalGroupsSequence = DicomSequence([shared])
    frames = []
    for place in order:
        change = (changes or {}).get(place, {})
        source = made.datasets[place]
        frame = Dataset()
        frame.PlanePositionSequence = group(
            ImagePositionPatient=change.get("position", source.ImagePositionPatient)
        )
        frame.PlaneOrientationSequence = group(
            ImageOrientationPatient=change.get("orientation", source.ImageOrientationPatient)
        )
        frame.MREchoSequence = group(EffectiveEchoTime=change.get("echo_time", 500.0))
        frame.MRImageFrameTypeSequence = group(
            FrameType=change.get("frame_type", ["ORIGINAL", "PRIMARY", "M", "NONE"])
        )
        frame.PixelValueTransformationSequence = group(
            RescaleSlope=change.get("slope", 1.0), RescaleIntercept=0.0
        )
        frame.FrameContentSequence = group(TemporalPositionIndex=change.get("time", 1))
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = DicomSequence(frames)
    dataset.PixelData = b"".join(made.array[place].tobytes() for place in order)
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return dataset


def spine_array(shape: tuple[int, int, int], tissue: float, axis: int = 1) -> np.ndarray:
    """A bright tube across the field in tissue with a fraction of its signal."""
    rng = np.random.default_rng(1)
    array = np.full(shape, 1000.0 * tissue) * rng.uniform(0.5, 1.0, shape)
    middle = [slice(n * 9 // 20, n * 11 // 20 + 1) for n in shape]
    middle[axis] = slice(None)
    array[tuple(middle)] = 1000.0
    return (array + rng.uniform(0, 20, shape)).astype(np.uint16)


@pytest.fixture
def series() -> Callable[..., Series]:
    return build_series


@pytest.fixture
def enhanced() -> Callable[..., Dataset]:
    return build_enhanced


@pytest.fixture
def tube() -> Callable[..., np.ndarray]:
    return spine_array

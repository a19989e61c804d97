"""Write a phantom study as scanner-like DICOM with its ground truth."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import nibabel as nib
import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from leakloc.core.volume import Geometry, Volume
from leakloc.validation.phantom.phantom import Phantom, project
from leakloc.validation.phantom.scenario import Vendor
from leakloc.validation.phantom.sequences import Sequence
from leakloc.validation.phantom.series import PhantomSeries
from leakloc.validation.phantom.shapes import Float

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Progress = Callable[[str, float], None]
"""Called with a message and the fraction done, 0 to 1."""

LARGEST_STORED: Final = 4095
"""Maximum stored value: 12 bits, as in magnitude images of scanners."""

_SCANNERS: Final[dict[Vendor, tuple[str, str, str]]] = {
    "siemens": ("SIEMENS", "Phantom_fit", "syngo MR E11"),
    "ge": ("GE MEDICAL SYSTEMS", "SIGNA Phantom", "DV26.0"),
    "philips": ("Philips Medical Systems", "Phantom Ingenia", "5.7.1"),
    "canon": ("CANON_MEC", "Vantage Phantom", "V6.0"),
    "uih": ("UIH", "uMR Phantom", "V10"),
}
"""Manufacturer, model name, software version."""

_SIEMENS_SEQUENCE: Final = {
    "ht2w_3d": "*spcR3d1_{etl}",
    "ht2w_bssfp": "*ci3d1",
    "ht2w_slab": "*h2d1_{etl}",
    "ht2w_mip": "*spcR3d1_{etl}",
    "t2_sagittal": "*tseR2d1_{etl}",
    "stir_sagittal": "*tir2d1_{etl}",
    "t1_sagittal": "*tse2d1_{etl}",
    "t2_axial": "*tseR2d1_{etl}",
    "t1_axial_post": "*tse2d1_{etl}",
    "localizer": "*fl2d1",
    "t1_axial": "*tse2d1_{etl}",
    "t1_sagittal_post": "*tse2d1_{etl}",
    "t1_intrathecal": "*tse2d1_{etl}",
    "ht2w_coronal": "*spcR3d1_{etl}",
}


@dataclass(frozen=True)
class StudyHeader:
    """Header values common to all images of one study.

    Parameters
    ----------
    key : tuple
        Input for UIDs; studies with different keys have different UIDs.
    vendor : str
    patient_name, patient_id : str
    description : str
        Study description.
    software : str
        Implementation version name, at most 16 characters.
    comments : str
        Image comments; omitted if empty.
    anonymized : bool
        Whether names and descriptions are removed.
    """

    key: tuple[object, ...]
    vendor: Vendor
    patient_name: str
    patient_id: str
    description: str
    software: str
    comments: str = ""
    anonymized: bool = False

    def uid(self, *parts: object) -> str:
        """Return a UID (2.25 root) hashed from the study key and the object it identifies."""
        text = "\n".join(map(str, (*self.key, *parts)))
        digest = bytearray(hashlib.sha256(text.encode()).digest()[:16])
        digest[6] = (digest[6] & 0x0F) | 0x50  # a valid name-based UUID
        digest[8] = (digest[8] & 0x3F) | 0x80
        return f"2.25.{int.from_bytes(bytes(digest), 'big')}"


def write_study(
    phantom: Phantom, folder: Path, *, truth: bool = True, progress: Progress | None = None
) -> None:
    """Write the study of a phantom to a folder.

    Parameters
    ----------
    phantom : Phantom
    folder : Path
        Receives ``dicom/`` (all series in one flat folder) and, if requested, ``truth/``:
        ``truth.json`` and, on the myelogram's grid, ``thecal_sac.nii.gz`` (fraction),
        ``fluid.nii.gz`` (collection ids), ``fluid_fraction.nii.gz`` and ``levels.nii.gz``.
    truth : bool
        Whether to write the truth.
    progress : callable, optional
        Called with a message and the fraction done.
    """
    folder = Path(folder)
    dicom_folder = folder / "dicom"
    dicom_folder.mkdir(parents=True, exist_ok=True)
    planned = phantom.series()
    steps = len(planned) + int(truth)
    count = 0
    myelogram: Volume | None = None
    stations: list[Volume] = []
    for done, series in enumerate(planned):
        if progress is not None:
            progress(f"series {series.number}", done / steps)
        # Rendered series are reused for series derived from them.
        if series.derived and myelogram is not None:
            volumes = project(myelogram, series.stacks)
        elif series.composed and stations:
            volumes = [phantom.compose(stations, series)]
        else:
            volumes = phantom.render(series)
        if series.station is not None:
            stations += volumes
        elif series.sequence.name in ("ht2w_3d", "ht2w_bssfp"):
            myelogram = volumes[0]
        for dataset in series_datasets(phantom, series, volumes):
            count += 1
            name = _file_name(phantom.vendor, series, dataset, count)
            dataset.save_as(dicom_folder / name, enforce_file_format=True)
    if truth:
        if progress is not None:
            progress("truth", (steps - 1) / steps)
        _write_truth(phantom, folder / "truth")
    if progress is not None:
        progress("done", 1.0)


def series_datasets(
    phantom: Phantom, series: PhantomSeries, volumes: list[Volume]
) -> Iterator[Dataset]:
    """Return MR images of one rendered phantom series, in acquisition order.

    Parameters
    ----------
    phantom : Phantom
    series : PhantomSeries
    volumes : list of Volume
        One per stack of the series.
    """
    scenario = phantom.scenario
    repeat = (phantom.repeat,) if phantom.repeat else ()
    header = StudyHeader(
        key=("leakloc phantom", repr(scenario), phantom.seed, *repeat),
        vendor=phantom.vendor,
        patient_name="ANONYMOUS" if scenario.anonymised else "PHANTOM^LEAKLOC",
        patient_id="ANON" if scenario.anonymised else f"PHANTOM-{phantom.seed}",
        description="MR spine, phantom",
        software="LEAKLOC_PHANTOM",
        anonymized=scenario.anonymised,
    )
    return image_datasets(header, series, volumes)


def image_datasets(
    header: StudyHeader, series: PhantomSeries, volumes: list[Volume]
) -> Iterator[Dataset]:
    """Return MR images of one series, in acquisition order.

    Parameters
    ----------
    header : StudyHeader
    series : PhantomSeries
    volumes : list of Volume
        One per stack of the series, CSF at about 1000.
    """
    peak = max(float(np.percentile(volume.array, 99.99)) for volume in volumes)
    # As on scanners, the brightest tissue uses most, but not all, of the range.
    scale = min(1.0, 0.9 * LARGEST_STORED / max(peak, 1e-6))
    scaled = header.vendor == "philips"
    slope = 1.0 / scale if scaled else 1.0
    number = 0
    for volume in volumes:
        for k in range(volume.geometry.shape[0]):
            number += 1
            dataset = _common(header, series)
            _place(dataset, header, series, volume.geometry, k, number)
            _pixels(dataset, volume.array[k] * np.float32(scale))
            if scaled:
                dataset.RescaleIntercept = 0.0
                dataset.RescaleSlope = round(slope, 6)
                dataset.RescaleType = "normalized"
            yield dataset


def _common(header: StudyHeader, series: PhantomSeries) -> Dataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationVersionName = header.software
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID = MRImageStorage
    dataset.StudyInstanceUID = header.uid("study")
    dataset.SeriesInstanceUID = header.uid("series", series.number)
    dataset.FrameOfReferenceUID = header.uid("frame")
    dataset.PositionReferenceIndicator = ""
    dataset.StudyID = "1"
    dataset.AccessionNumber = ""
    dataset.ReferringPhysicianName = ""
    dataset.Modality = "MR"
    dataset.SeriesNumber = series.number
    dataset.PatientName = header.patient_name
    dataset.PatientID = header.patient_id
    dataset.PatientBirthDate = ""
    dataset.PatientSex = "O"
    dataset.PatientPosition = "HFS"
    dataset.StudyDate = dataset.SeriesDate = dataset.ContentDate = "20260101"
    dataset.StudyTime = "080000"
    dataset.SeriesTime = dataset.ContentTime = f"08{min(series.number * 4, 59):02d}00"
    if header.comments:
        dataset.ImageComments = header.comments
    _scanner(dataset, header, series)
    return dataset


def _scanner(dataset: Dataset, header: StudyHeader, series: PhantomSeries) -> None:
    """Set names and parameters as written by scanners of the vendor."""
    vendor, sequence = header.vendor, series.sequence
    manufacturer, model, version = _SCANNERS[vendor]
    anonymized = header.anonymized
    dataset.Manufacturer = manufacturer
    dataset.ManufacturerModelName = "" if anonymized else model
    dataset.SoftwareVersions = "" if anonymized else version
    dataset.MagneticFieldStrength = round(sequence.field_t, 1)
    dataset.ImagingFrequency = round(42.577 * sequence.field_t, 3)
    dataset.BodyPartExamined = "" if anonymized else "SPINE"
    if not anonymized:
        dataset.SeriesDescription = series.name
        dataset.ProtocolName = ("WIP_" if vendor == "philips" else "") + series.name
        dataset.StudyDescription = header.description
    _timing(dataset, sequence)
    scanning, variant, options = _codes(vendor, sequence)
    dataset.ScanningSequence = scanning
    dataset.SequenceVariant = variant
    dataset.ScanOptions = options
    if vendor == "siemens" and not anonymized:
        pattern = _SIEMENS_SEQUENCE[sequence.name]
        dataset.SequenceName = pattern.format(etl=sequence.echo_train)
    dataset.ImageType = _image_type(vendor, series)
    if sequence.contrast in ("t1_post", "t1_intrathecal"):
        dataset.ContrastBolusAgent = "Gadolinium"


def _timing(dataset: Dataset, sequence: Sequence) -> None:
    flat = sequence.thickness_mm is not None or sequence.contrast == "gradient"
    dataset.MRAcquisitionType = "2D" if flat else "3D"
    dataset.RepetitionTime = round(sequence.tr_ms, 2)
    dataset.EchoTime = round(sequence.te_ms, 2)
    dataset.EchoTrainLength = sequence.echo_train
    dataset.FlipAngle = round(sequence.flip_deg)
    dataset.NumberOfAverages = 1
    dataset.EchoNumbers = 1
    dataset.ImagedNucleus = "1H"
    dataset.PixelBandwidth = 300 if sequence.thickness_mm is None else 220
    if sequence.contrast == "inversion":
        dataset.InversionTime = round(sequence.ti_ms, 1)


def _codes(vendor: Vendor, sequence: Sequence) -> tuple[Any, Any, Any]:
    """Return scanning sequence, sequence variant and scan options."""
    if sequence.contrast in ("ssfp", "gradient"):
        steady = "SS" if sequence.contrast == "ssfp" else "SP"
        return "GR", ["SK", steady], "" if vendor != "siemens" else "PFP"
    scanning: Any = ["SE", "IR"] if sequence.contrast == "inversion" else "SE"
    variants: dict[Vendor, Any] = {
        "siemens": ["SK", "SP", "OSP"],
        "ge": ["SK", "OSP"],
        "philips": "SK",
        "canon": "SK",
        "uih": ["SK", "OSP"],
    }
    options: list[str] = {
        "siemens": ["PFP"],
        "ge": ["FC_FREQ_AX_GEMS", "FC", "ACC_GEMS"],
        "philips": ["PFP"],
        "canon": [],
        "uih": ["PFP"],
    }[vendor]
    if sequence.fat_suppressed:
        options = [*options, "FS"]
    return scanning, variants[vendor], options or ""


def _image_type(vendor: Vendor, series: PhantomSeries) -> list[str]:
    if series.derived:
        return ["DERIVED", "SECONDARY", "PROJECTION IMAGE", "MAXIMUM"]
    if series.composed:
        return ["DERIVED", "SECONDARY", "M", "NORM", "DIS2D", "COMP_SP", "COMPOSED"]
    if series.sequence.name == "localizer" and vendor != "siemens":
        return ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    return {
        "siemens": ["ORIGINAL", "PRIMARY", "M", "NORM", "DIS2D"],
        "ge": ["ORIGINAL", "PRIMARY", "OTHER"],
        "philips": ["ORIGINAL", "PRIMARY", "M_SE", "M", "SE"],
        "canon": ["ORIGINAL", "PRIMARY", "OTHER"],
        "uih": ["ORIGINAL", "PRIMARY", "M", "NORM"],
    }[vendor]


def _place(
    dataset: Dataset, header: StudyHeader, series: PhantomSeries, geometry: Geometry, k: int,
    number: int,
) -> None:  # fmt: skip
    """Set position, orientation and instance identifiers of a slice."""
    spacing_i, spacing_j, spacing_k = geometry.spacing_ijk_mm
    axes = geometry.directions_lps
    position = geometry.lps_from_kji([k, 0, 0])
    dataset.SOPInstanceUID = header.uid("instance", series.number, number)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.InstanceNumber = number
    dataset.AcquisitionNumber = 1
    dataset.ImagePositionPatient = [round(float(x), 6) for x in position]
    dataset.ImageOrientationPatient = [round(float(x), 9) for x in (*axes[:, 0], *axes[:, 1])]
    dataset.PixelSpacing = [round(spacing_j, 6), round(spacing_i, 6)]
    thickness = series.sequence.thickness_mm
    if series.derived:
        thickness = None
    dataset.SliceThickness = round(thickness if thickness is not None else spacing_k, 6)
    if geometry.shape[0] > 1:
        dataset.SpacingBetweenSlices = round(spacing_k, 6)
        normal = np.cross(axes[:, 0], axes[:, 1])
        dataset.SliceLocation = round(float(position @ normal), 4)


def _pixels(dataset: Dataset, array: Float) -> None:
    stored = np.clip(np.rint(array), 0, LARGEST_STORED).astype(np.uint16)
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = 16
    dataset.BitsStored = 12
    dataset.HighBit = 11
    dataset.PixelRepresentation = 0
    top = float(np.percentile(stored[::4, ::4], 99.5))
    dataset.WindowCenter = round(top / 2, 1)
    dataset.WindowWidth = max(round(top, 1), 1.0)
    dataset.PixelData = stored.astype("<u2").tobytes()


def _file_name(vendor: Vendor, series: PhantomSeries, dataset: Dataset, count: int) -> str:
    """Return a file name as in exports of the vendor."""
    number = int(dataset.InstanceNumber)
    if vendor == "siemens":
        return f"PHANTOM.MR.SPINE.{series.number:04d}.{number:04d}.IMA"
    if vendor == "ge":
        return f"i{count:07d}.MRDC.{number}"
    if vendor == "philips":
        return f"IM_{count:04d}"
    if vendor == "canon":
        return f"MR{series.number * 1000:06d}{number:04d}.dcm"
    return f"{series.number:08d}_{number:05d}.dcm"


def _write_truth(phantom: Phantom, folder: Path) -> None:
    masks: dict[str, Volume] = {}
    try:
        geometry = phantom.myelogram_geometry()
    except LookupError:
        pass  # thick slabs have no grid for the truth
    else:
        truth_masks = phantom.masks(geometry)
        names = ("thecal_sac", "fluid", "fluid_fraction", "levels")
        masks = {name: getattr(truth_masks, name) for name in names}
    write_truth(phantom.truth.to_dict(), masks, folder)


def write_truth(values: dict[str, Any], masks: Mapping[str, Volume], folder: Path) -> None:
    """Write ``truth.json`` and one NIfTI file per mask, with the name of the mask."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(values, indent=1, allow_nan=False)
    (folder / "truth.json").write_text(text + "\n", encoding="utf-8")
    for name, mask in masks.items():
        nib.save(mask.to_nibabel(), folder / f"{name}.nii.gz")

"""Confidence and grade of a collection, and the evidence for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from leakloc.anatomy.vocabulary import Grade
from leakloc.core.settings import LocalizationSettings
from leakloc.localization.coordinate import NOT_NAMED
from leakloc.localization.signals import SuppressedSignal
from leakloc.segmentation.result import Candidate

_THIN_VOXELS: Final = 1.5
"""Below this thickness, in voxels of mean size, the stated basis describes the collection as
thin."""
_LOW_SNR: Final = 10.0
"""Below this CSF signal-to-noise ratio the stated basis describes the image as noisy."""
_FAT_FACTOR: Final = 0.6
"""Confidence factor where fat is bright and the collection may be fat."""
_MAX_BLIND_CONFIDENCE: Final = 0.45
"""Maximum confidence of a collection if the input is insufficient, or if it has the signal of fat
or other tissue on STIR or fat-suppressed T2: below the setting `probable_confidence`, hence
possible."""


@dataclass(frozen=True)
class Evidence:
    """Evidence for a collection.

    Parameters
    ----------
    voxel_mm : float
        Edge of a cube of the volume of one voxel.
    csf_signal, noise : float
        CSF signal and noise in the same units.
    fat_suppressed : bool or None
    blind : bool
        Whether the input cannot distinguish fluid from other bright tissue.
    suppressed : str or None
        Whether it has the signal of fluid, fat or other tissue on STIR or fat-suppressed T2.
    fluid_on_axial_t2 : bool
        Whether it has the signal of CSF, and not that of fat, on axial T2.
    """

    candidate: Candidate
    volume_ml: float
    thickness_mm: float
    voxel_mm: float
    csf_signal: float
    noise: float
    fat_suppressed: bool | None
    blind: bool
    suppressed: SuppressedSignal | None = None
    fluid_on_axial_t2: bool = False

    @property
    def snr(self) -> float | None:
        """CSF signal divided by noise; None if noise was not measured."""
        return self.csf_signal / self.noise if self.noise > 0 else None

    @property
    def maybe_fat(self) -> bool:
        """Whether fat is not suppressed, was considered as a mimic and is not excluded."""
        if self.suppressed == "fluid" or (self.fluid_on_axial_t2 and self.suppressed is None):
            return False
        named = any("fat" in mimic.lower().split() for mimic in self.candidate.mimics)
        return self.fat_suppressed is False and named


def confidence_of(evidence: Evidence) -> float:
    """Return the segmentation probability, reduced if fluid may be fat, 0..1.

    The uncertainty of the level numbering is not included; it is reported with the levels.
    """
    confidence = evidence.candidate.probability
    if evidence.maybe_fat:
        confidence *= _FAT_FACTOR
    if evidence.blind or evidence.suppressed in ("fat", "tissue"):
        confidence = min(confidence, _MAX_BLIND_CONFIDENCE)
    return float(min(max(confidence, 0.0), 1.0))


def grade_of(confidence: float, settings: LocalizationSettings) -> Grade:
    """Return the grade of a confidence according to the settings."""
    if confidence >= settings.definite_confidence:
        return "definite"
    return "probable" if confidence >= settings.probable_confidence else "possible"


def basis(
    evidence: Evidence,
    *,
    max_area_mm2: float,
    place: str,
    contact_fraction: float,
    settings: LocalizationSettings,
) -> tuple[str, ...]:
    """Return sentences that state the evidence for grade and level.

    Parameters
    ----------
    place : str
        Position of the largest cross-section, from `LevelCoordinate.describe`.
    contact_fraction : float
        Fraction of the collection's voxels in contact with the sac.
    """
    sentences = [
        f"Fluid signal outside the thecal sac: {evidence.volume_ml:.1f} mL, "
        f"up to {evidence.thickness_mm:.1f} mm thick."
    ]
    area = f"Largest cross-section {max_area_mm2:.0f} mm²"
    sentences.append(f"{area}." if place == NOT_NAMED else f"{area} at {place}.")
    if contact_fraction > 0:
        sentences.append("It is in contact with the thecal sac.")
    else:
        sentences.append("No contact with the thecal sac was detected.")
    if evidence.candidate.reason:
        sentences.append(evidence.candidate.reason)
    if evidence.volume_ml < settings.small_volume_ml:
        sentences.append("It is so small that it could be a root sleeve.")
    if evidence.thickness_mm < _THIN_VOXELS * evidence.voxel_mm:
        sentences.append("It is hardly thicker than a voxel.")
    if evidence.snr is not None and evidence.snr < _LOW_SNR:
        sentences.append(f"The image is noisy (CSF signal {evidence.snr:.0f} times the noise).")
    if evidence.maybe_fat:
        sentences.append("Fat is not suppressed, so it may be epidural fat.")
    if evidence.suppressed == "tissue":
        sentences.append("It is darker than fluid on STIR or fat-suppressed T2, brighter on T1.")
    elif evidence.suppressed is not None:
        sentences.append(
            f"On STIR or fat-suppressed T2 it has the signal of {evidence.suppressed}."
        )
    if evidence.fluid_on_axial_t2:
        sentences.append("On axial T2 it is as bright as CSF and brighter than fat.")
    if evidence.blind:
        sentences.append("It was detected on a series that is not a fat-suppressed myelogram.")
    sentences.append("Signal alone does not distinguish CSF from seroma or liquefied hematoma.")
    return tuple(sentences)

"""Measurements on series other than the myelogram, independent of the level numbering."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from leakloc.localization.axial import agreement_of, confirms_fluid
from leakloc.localization.enhancement import MeasuredEnhancement, enhancement_of
from leakloc.localization.result import SecondMyelogram
from leakloc.localization.second_myelogram import MyelogramComparison
from leakloc.localization.signals import (
    CollectionSignals,
    SuppressedSignal,
    character_of,
    suppressed_signal,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from leakloc.core.volume import FloatArray
    from leakloc.localization.axial import MeasuredAxial
    from leakloc.localization.second_myelogram import SecondDetection


@dataclass(frozen=True)
class CompanionMeasurements:
    """Measurements by collection, identified by the center of its candidate.

    Parameters
    ----------
    signals : tuple of CollectionSignals
    axial : tuple of MeasuredAxial
    enhancement : tuple of MeasuredEnhancement
    comparison : MyelogramComparison or None
        None without a second myelogram.
    """

    signals: tuple[CollectionSignals, ...] = ()
    axial: tuple[MeasuredAxial, ...] = ()
    enhancement: tuple[MeasuredEnhancement, ...] = ()
    comparison: MyelogramComparison | None = None

    def parts_at(
        self, center_lps: FloatArray, segment_of: Callable[[FloatArray], str | None]
    ) -> dict[str, Any]:
        """Return the parts of the report of a collection, by name.

        Parameters
        ----------
        center_lps : ndarray, shape (3,)
            Center of the candidate.
        segment_of : callable
            Returns the motion segment of a point in LPS, or None.
        """
        detections = self.comparison.detections if self.comparison is not None else ()
        return {
            "character": character_of(_at(self.signals, center_lps)),
            "axial_t2": agreement_of(_at(self.axial, center_lps), segment_of),
            "enhancement": enhancement_of(_at(self.enhancement, center_lps)),
            "second_myelogram": _second(_at(detections, center_lps)),
        }

    def suppressed_at(self, center_lps: FloatArray) -> SuppressedSignal | None:
        """Return whether it has the signal of fluid, fat or tissue on STIR or suppressed T2."""
        return suppressed_signal(_at(self.signals, center_lps))

    def fluid_on_axial_t2(self, center_lps: FloatArray) -> bool:
        """Return whether a collection has the signal of CSF, and not that of fat, on axial T2."""
        return confirms_fluid(_at(self.axial, center_lps))


def _at(measured: Sequence[Any], center_lps: FloatArray) -> Any:
    """Return the measurement of a collection: identifiers change when cisterns are excluded."""
    return next((one for one in measured if np.array_equal(one.center_lps, center_lps)), None)


def _second(found: SecondDetection | None) -> SecondMyelogram | None:
    if found is None:
        return None
    return SecondMyelogram(
        agreement=found.agreement,
        volume_ml=None if found.agreement == "not covered" else found.volume_ml,
        covered_fraction=found.covered,
    )

"""A digital spine phantom with ground truth.

Anatomy, signal and artifacts are drawn from published distributions, so that seeds differ in
anatomy, not only in noise. Results on phantoms are upper bounds.
"""

from leakloc.validation.phantom.dicom import series_datasets, write_study
from leakloc.validation.phantom.phantom import Phantom, make_phantom
from leakloc.validation.phantom.scenario import (
    SCENARIOS,
    CollectionSpec,
    MimicSpec,
    Scenario,
    compact,
    find_scenario,
)
from leakloc.validation.phantom.series import PhantomSeries
from leakloc.validation.phantom.truth import Masks, TrueCollection, TrueDisc, TrueVertebra, Truth

__all__ = [
    "SCENARIOS",
    "CollectionSpec",
    "Masks",
    "MimicSpec",
    "Phantom",
    "PhantomSeries",
    "Scenario",
    "TrueCollection",
    "TrueDisc",
    "TrueVertebra",
    "Truth",
    "compact",
    "find_scenario",
    "make_phantom",
    "series_datasets",
    "write_study",
]

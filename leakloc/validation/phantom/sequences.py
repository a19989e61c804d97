"""Pulse sequences and their signal of each tissue."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from leakloc.validation.phantom.scenario import Scenario, SequenceName, Vendor
from leakloc.validation.phantom.tissues import (
    OTHER_VARIATION,
    TEXTURES,
    TISSUES,
    Tissue,
    TissueName,
)

Contrast = Literal[
    "variable_flip", "turbo", "inversion", "t1", "t1_post", "t1_intrathecal", "ssfp", "gradient"
]

WATER, FAT, CSF, FLUID, TEXTURE = range(5)
"""Channels of a canvas: signal of tissue water, fat (suppressible), CSF in the sac and other
fluid; coefficient of variation of the tissue's texture."""

FREE_FLUIDS: Final[frozenset[TissueName]] = frozenset(
    {"epidural_csf", "urine", "seroma", "synovial", "bowel_fluid"}
)


_ENHANCING: Final[frozenset[TissueName]] = frozenset({"scar", "granulation", "vein", "blood_flow"})
_ENHANCED_T1: Final = 0.35
"""T1 after intravenous contrast relative to that before."""

_INTRATHECAL: Final[frozenset[TissueName]] = frozenset({"csf", "epidural_csf"})
_INTRATHECAL_T1: Final = 0.03
"""T1 of CSF after intrathecal contrast relative to that before: 0.5 mmol in 150 mL of CSF, with a
relaxivity of 4.5 per mmol/L and second, gives 0.07 s, of 4.3 s; less contrast reaches the lumbar
sac."""


@dataclass(frozen=True)
class Sequence:
    """One pulse sequence of the phantom.

    Parameters
    ----------
    name : str
        Name of the sequence in the study.
    contrast : str
        Signal equation.
    tr_ms, te_ms, ti_ms, flip_deg : float
        Nominal parameters as in the header.
    echo_factor : float
        Effective over nominal echo time (1 for ordinary echo trains).
    fat_suppressed : bool
    csf_signal : float
        Signal of CSF in scanner units.
    thickness_mm : float or None
        Slice thickness of a two-dimensional sequence; None for a volume.
    snr : float
        CSF signal divided by noise.
    void_strength : float
        Factor of the flow voids of the scenario.
    blur_voxels : float
        Standard deviation of the point spread function.
    """

    name: SequenceName
    contrast: Contrast
    tr_ms: float
    te_ms: float
    field_t: float
    ti_ms: float = 0.0
    flip_deg: float = 90.0
    echo_factor: float = 1.0
    echo_train: int = 1
    fat_suppressed: bool = False
    csf_signal: float = 1000.0
    thickness_mm: float | None = None
    snr: float = 40.0
    void_strength: float = 1.0
    blur_voxels: float = 0.38

    def signal(self, tissue: TissueName) -> float:
        """Return the signal of a tissue relative to the proton-density scale of the sequence."""
        found = TISSUES[tissue]
        high = self.field_t > 2
        t1 = float(found.t1_ms[high])
        if self.contrast == "t1_post" and tissue in _ENHANCING:
            t1 *= _ENHANCED_T1
        if self.contrast == "t1_intrathecal" and tissue in _INTRATHECAL:
            t1 *= _INTRATHECAL_T1
        return _signal(self, found, t1, float(found.t2_ms[high]))

    def palette(self) -> dict[TissueName, npt.NDArray[np.float32]]:
        """Return each tissue in five channels; CSF at `csf_signal`, texture of a median subject."""
        reference = {"t1": "fat", "t1_post": "fat", "gradient": "fat"}.get(self.contrast, "csf")
        scale = self.csf_signal / self.signal(reference)  # type: ignore[arg-type]
        palette = {}
        for name, tissue in TISSUES.items():
            color = np.zeros(5, np.float32)
            signal = scale * self.signal(name)
            if name == "csf":
                color[CSF] = signal
            elif name in FREE_FLUIDS:
                color[FLUID] = signal
            else:
                color[WATER] = signal * (1 - tissue.fat_fraction)
                color[FAT] = signal * tissue.fat_fraction
                texture = TEXTURES.get(name)
                color[TEXTURE] = np.sqrt(np.prod(texture.variation)) if texture else OTHER_VARIATION
            palette[name] = color
        return palette


def _signal(sequence: Sequence, tissue: Tissue, t1: float, t2: float) -> float:
    tr, te = sequence.tr_ms, sequence.te_ms * sequence.echo_factor
    density = tissue.density
    if sequence.contrast == "inversion":
        recovery = abs(1 - 2 * np.exp(-sequence.ti_ms / t1) + np.exp(-tr / t1))
        return float(density * recovery * np.exp(-te / t2))
    if sequence.contrast == "ssfp":
        angle = np.deg2rad(sequence.flip_deg)
        steady = np.sin(angle) / (1 + np.cos(angle) + (1 - np.cos(angle)) * t1 / t2)
        return float(density * steady * np.exp(-te / t2))
    if sequence.contrast == "gradient":
        angle = np.deg2rad(sequence.flip_deg)
        relaxed = np.exp(-tr / t1)
        spoiled = np.sin(angle) * (1 - relaxed) / (1 - np.cos(angle) * relaxed)
        return float(density * spoiled * np.exp(-te / t2))
    return float(density * (1 - np.exp(-tr / t1)) * np.exp(-te / t2))


_HT2W_TE: Final[dict[Vendor, tuple[float, float]]] = {
    "siemens": (560, 800),
    "ge": (450, 700),
    "philips": (550, 700),
    "canon": (500, 800),
    "uih": (500, 750),
}
"""Usual nominal echo times of 3D heavily T2-weighted turbo spin echo, milliseconds."""


def draw_sequences(
    scenario: Scenario, vendor: Vendor, field_t: float, rng: np.random.Generator
) -> dict[SequenceName, Sequence]:
    """Draw the sequences of the protocol of one scanner."""
    te = scenario.echo_time_ms or round(float(rng.uniform(*_HT2W_TE[vendor])))
    factor = float(rng.uniform(0.30, 0.48))
    gain = float(rng.uniform(0.75, 1.3))
    snr = scenario.snr * float(rng.uniform(0.8, 1.25))
    long_tr = float(rng.integers(25, 60)) * 100
    sequences = (
        Sequence(
            "ht2w_3d", "variable_flip", long_tr, te, field_t, flip_deg=120.0, echo_factor=factor,
            echo_train=int(rng.integers(80, 200)), fat_suppressed=True, csf_signal=1000 * gain,
            snr=snr, void_strength=0.5,
        ),
        Sequence(
            "ht2w_bssfp", "ssfp", 6.0, 2.6, field_t, flip_deg=55.0, csf_signal=1000 * gain,
            snr=snr, void_strength=0.7,
        ),
        Sequence(
            "ht2w_slab", "turbo", 8000.0, float(rng.integers(7, 12)) * 100, field_t,
            flip_deg=150.0, echo_train=256, fat_suppressed=True, csf_signal=900 * gain,
            thickness_mm=float(rng.integers(4, 7)) * 10, snr=120.0, void_strength=1.0,
        ),
        Sequence(
            "ht2w_mip", "variable_flip", long_tr, te, field_t, flip_deg=120.0, echo_factor=factor,
            echo_train=100, fat_suppressed=True, csf_signal=1000 * gain,
        ),
        Sequence(
            "t2_sagittal", "turbo", float(rng.integers(28, 48)) * 100,
            float(rng.integers(95, 121)), field_t, flip_deg=150.0, echo_train=18,
            csf_signal=850 * gain, thickness_mm=float(rng.choice([3.0, 3.5, 4.0])),
            snr=float(rng.uniform(30, 60)), void_strength=1.3,
        ),
        Sequence(
            "stir_sagittal", "inversion", float(rng.integers(35, 50)) * 100,
            float(rng.integers(40, 75)), field_t, ti_ms=155.0 if field_t < 2 else 220.0,
            flip_deg=150.0, echo_train=12, csf_signal=700 * gain, thickness_mm=4.0,
            snr=float(rng.uniform(20, 40)), void_strength=1.3,
        ),
        Sequence(
            "t1_sagittal", "t1", float(rng.integers(50, 70)) * 10, 11.0, field_t,
            flip_deg=150.0, echo_train=3, csf_signal=700 * gain, thickness_mm=4.0,
            snr=float(rng.uniform(30, 55)),
        ),
        Sequence(
            "t2_axial", "turbo", float(rng.integers(35, 55)) * 100, float(rng.integers(95, 115)),
            field_t, flip_deg=150.0, echo_train=16, csf_signal=850 * gain, thickness_mm=4.0,
            snr=float(rng.uniform(30, 60)), void_strength=1.6,
        ),
        Sequence(
            "t1_axial_post", "t1_post", 620.0, 11.0, field_t, flip_deg=150.0, echo_train=3,
            fat_suppressed=True, csf_signal=700 * gain, thickness_mm=4.0, snr=40.0,
        ),
        Sequence(
            "localizer", "gradient", 8.6, 4.0, field_t, flip_deg=20.0, csf_signal=500 * gain,
            thickness_mm=7.0, snr=25.0,
        ),
        # Appended: earlier ones depend on the order of the random numbers.
        Sequence(
            "t1_axial", "t1", 620.0, 11.0, field_t, flip_deg=150.0, echo_train=3,
            fat_suppressed=True, csf_signal=700 * gain, thickness_mm=4.0, snr=40.0,
        ),
        Sequence(
            "t1_intrathecal", "t1_intrathecal", 620.0, 11.0, field_t, flip_deg=150.0, echo_train=3,
            fat_suppressed=True, csf_signal=900 * gain, thickness_mm=4.0, snr=50.0,
        ),
    )  # fmt: skip
    by_name = {sequence.name: sequence for sequence in sequences}
    before = by_name["t1_sagittal"]
    by_name["t1_sagittal_post"] = replace(before, name="t1_sagittal_post", contrast="t1_post")
    by_name["ht2w_coronal"] = replace(by_name["ht2w_3d"], name="ht2w_coronal")
    by_name["t2_fs_sagittal"] = replace(
        by_name["t2_sagittal"], name="t2_fs_sagittal", fat_suppressed=True
    )
    return by_name

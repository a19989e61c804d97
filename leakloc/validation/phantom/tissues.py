"""Relaxation times, proton densities and textures of the tissues of a spine study."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

TissueName = Literal[
    "csf",
    "epidural_csf",
    "urine",
    "seroma",
    "hematoma",
    "synovial",
    "bowel_fluid",
    "disc_healthy",
    "disc_intermediate",
    "disc_desiccated",
    "annulus",
    "cord",
    "root",
    "marrow",
    "fat",
    "muscle",
    "kidney",
    "vein",
    "ligament",
    "dura",
    "bone",
    "scar",
    "granulation",
    "organ",
    "blood_flow",
    "air",
]


@dataclass(frozen=True)
class Tissue:
    """Signal-bearing properties of one tissue.

    Parameters
    ----------
    t1_ms, t2_ms : tuple of float
        Relaxation times at 1.5 T and 3 T. For fat the apparent T2 in a turbo spin echo
        (fat is brighter there than its T2 implies because of J-coupling).
    density : float
        Proton density relative to CSF.
    fat_fraction : float
        Fraction of the signal removed by fat suppression.
    """

    t1_ms: tuple[float, float]
    t2_ms: tuple[float, float]
    density: float
    fat_fraction: float = 0.0


TISSUES: Final[dict[TissueName, Tissue]] = {
    "csf": Tissue((4270, 4309), (1700, 1886), 1.0),
    "epidural_csf": Tissue((3900, 4000), (1350, 1400), 1.0),
    "urine": Tissue((3500, 4000), (1500, 1500), 1.0),
    "seroma": Tissue((2300, 2500), (500, 450), 0.98),
    "hematoma": Tissue((1200, 1400), (110, 80), 0.85),
    "synovial": Tissue((2850, 3600), (1210, 770), 0.98),
    "bowel_fluid": Tissue((2500, 2700), (450, 400), 0.98),
    "disc_healthy": Tissue((1165, 1250), (102, 100), 0.73),
    "disc_intermediate": Tissue((723, 800), (67, 60), 0.57),
    "disc_desiccated": Tissue((554, 650), (56, 50), 0.44),
    "annulus": Tissue((600, 700), (30, 28), 0.35),
    "cord": Tissue((780, 900), (95, 75), 0.68),
    "root": Tissue((780, 950), (90, 82), 0.70),
    "marrow": Tissue((530, 586), (95, 92), 0.85, fat_fraction=0.45),
    "fat": Tissue((343, 382), (145, 130), 0.95, fat_fraction=1.0),
    "muscle": Tissue((930, 1150), (38, 36), 0.80),
    "kidney": Tissue((1150, 1300), (86, 78), 0.80),
    "vein": Tissue((1441, 1930), (220, 100), 0.87),
    "ligament": Tissue((700, 700), (14, 12), 0.20),
    "dura": Tissue((700, 700), (18, 15), 0.20),
    "bone": Tissue((700, 700), (10, 8), 0.10),
    "scar": Tissue((900, 1000), (62, 55), 0.60),
    "granulation": Tissue((1000, 1150), (80, 70), 0.75),
    "organ": Tissue((700, 850), (55, 48), 0.80),
    "blood_flow": Tissue((1441, 1930), (15, 12), 0.25),
    "air": Tissue((1000, 1000), (5, 5), 0.0),
}
"""Values at (1.5 T, 3 T), from published relaxometry of spine and abdomen (SyMRI spine,
AJNR 2018;39:788; de Bazelaire, Radiology 2004;230:652); fluids other than CSF and
structures without published measurements are plausible assumptions."""


@dataclass(frozen=True)
class Texture:
    """Fine variation of one tissue's signal, after a smooth bias is removed.

    Parameters
    ----------
    variation : tuple of float
        10th and 90th percentile over subjects of the coefficient of variation.
    length_mm : tuple of float
        10th and 90th percentile of the anteroposterior correlation length (decay to 1/e).
    elongation : float
        Median ratio of craniocaudal to anteroposterior correlation length.
    """

    variation: tuple[float, float]
    length_mm: tuple[float, float]
    elongation: float


TEXTURES: Final[dict[TissueName, Texture]] = {
    "muscle": Texture((0.39, 0.53), (0.95, 1.6), 2.3),
    "marrow": Texture((0.17, 0.27), (1.1, 3.0), 1.15),
    "fat": Texture((0.055, 0.20), (0.76, 2.6), 3.5),
}
"""Measured on T2 SPACE volumes of 17 subjects (SPIDER, van der Graaf et al., Sci Data
2024;11:264, CC BY 4.0, modified): vertebral bodies, fat posterior to the spine, paraspinal muscle.
Bias of 12, 6 and 8 mm (standard deviation of a Gaussian) for marrow, fat and muscle removed,
values beyond 3.5 robust standard deviations excluded, noise variance subtracted (muscle: 12
subjects in whom noise is at most half of the variation)."""

OTHER_VARIATION: Final = 0.05
"""Coefficient of variation of tissues without a measurement (assumption)."""

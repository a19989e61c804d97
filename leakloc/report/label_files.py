"""Names and colors of the label values of a mask, in the formats of other programs.

``*_dseg.tsv`` is the discrete segmentation table of BIDS (columns index, name, color);
``*_itksnap.txt`` is a label description file of ITK-SNAP.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from leakloc.anatomy.vocabulary import LABEL_VALUES, SHORT_NOTICE, vertebra_chain
from leakloc.report.canvas import BLUE, ORANGE, Color

if TYPE_CHECKING:
    from leakloc.report.model import Report

_HUE_STEP: Final = 0.61803  # golden section: adjacent vertebrae differ by 0.38 of the hue range
_HUES_DEG: Final = ((68.0, 178.0), (228.0, 380.0))  # without those of ORANGE (41) and BLUE (202)
_SATURATIONS: Final = (0.50, 0.85)
_VALUES: Final = (0.98, 0.72, 0.85)
_ORDER: Final = tuple(
    dict.fromkeys(
        (*vertebra_chain(lumbar_count=6, thoracic_count=13), *LABEL_VALUES)  # craniocaudal
    )
)


class Label(NamedTuple):
    """Value of a mask, with the name and color of the structure."""

    value: int
    name: str
    color: Color


def vertebra_color(name: str) -> Color:
    """Return the display color of a vertebra; each has its own, adjacent ones differ strongly.

    Parameters
    ----------
    name : str
        ``C1`` to ``S5``.

    Returns
    -------
    tuple of int
        Red, green and blue, 0..255.

    Examples
    --------
    >>> vertebra_color("L4") != vertebra_color("L5")
    True
    """
    n = _ORDER.index(name)
    (first, break_deg), (resume_deg, last) = _HUES_DEG
    hue_deg = first + n * _HUE_STEP % 1.0 * (break_deg - first + last - resume_deg)
    if hue_deg > break_deg:
        hue_deg += resume_deg - break_deg
    red, green, blue = colorsys.hsv_to_rgb(
        hue_deg / 360 % 1.0, _SATURATIONS[n % len(_SATURATIONS)], _VALUES[n % len(_VALUES)]
    )
    return round(255 * red), round(255 * green), round(255 * blue)


def mask_labels(report: Report) -> dict[str, tuple[Label, ...]]:
    """Return the labels of each mask of a report, by the name of the mask."""
    return {
        "thecal_sac": (Label(1, "Thecal sac", BLUE),),
        "epidural_fluid": tuple(
            Label(c.id, f"Epidural fluid {c.id}" + (f" {c.level}" if c.level else ""), ORANGE)
            for c in report.collections
        ),
        "levels": tuple(
            Label(value, name, vertebra_color(name))
            for name, value in report.levels.label_values.items()
        ),
    }


def dseg_table(labels: Sequence[Label]) -> str:
    """Return the text of a BIDS ``dseg.tsv``; colors in hexadecimal notation."""
    rows = [f"{label.value}\t{label.name}\t{_hexadecimal(label.color)}" for label in labels]
    return "\n".join(["index\tname\tcolor", *rows]) + "\n"


def itksnap_descriptions(labels: Sequence[Label]) -> str:
    """Return the text of an ITK-SNAP label description file.

    Its columns are index, red, green, blue, opacity, visibility of the label and of its mesh, name.
    """
    clear = '    0     0    0    0        0  0  0    "Clear Label"'
    rows = [
        f"{label.value:5d}  {label.color[0]:4d} {label.color[1]:4d} {label.color[2]:4d}"
        f'        1  1  1    "{label.name}"'
        for label in labels
    ]
    return "\n".join([f"# ITK-SnAP label description file. {SHORT_NOTICE}", clear, *rows]) + "\n"


def _hexadecimal(color: Color) -> str:
    return "#{:02X}{:02X}{:02X}".format(*color)

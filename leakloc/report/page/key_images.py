"""Key images: the planes at the main collection, at the top of ``report.html``.

Each is a grayscale image with outlines as SVG paths and labels as HTML text, so that lines and
text have the same size on a large screen and on a phone.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from io import BytesIO
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from leakloc.localization.result import by_certainty
from leakloc.report.canvas import BLUE, ORANGE, Label, Panel, Place, contours
from leakloc.report.overlays import coronal_panel, sagittal_panel
from leakloc.report.straightened import reach_of, section
from leakloc.report.style import format_position
from leakloc.report.views import StudyView

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakloc.analysis import AnalysisData
    from leakloc.core.volume import FloatArray
    from leakloc.localization.result import Collection

FRONT_MM: Final = 45.0  # anterior to the canal: the vertebral bodies
BACK_MM: Final = 34.0  # posterior to the canal: spinous processes
SIDE_MM: Final = 32.0  # lateral to the canal: foramina
MARGIN_MM: Final = 25.0  # above and below a collection: most of a vertebra
MIN_HEIGHT_MM: Final = 120.0  # three vertebrae
MAX_HEIGHT_MM: Final = 240.0  # level labels remain legible on a phone
PX_PER_MM: Final = 5.0  # 600 pixels for three vertebrae, sharp on screens of double resolution
MAX_PX: Final = 1100
WEBP_QUALITY: Final = 80
_EDGE: Final = 18.0  # percent of the size in which labels compete with orientation labels
_GAP: Final = 8.0  # minimum distance between these along the edge, percent


@dataclass(frozen=True)
class Text:
    """A label; `x` and `y` are percentages of width and height."""

    text: str
    x: float
    y: float
    kind: str


@dataclass(frozen=True, eq=False)
class KeyImage:
    """One key image.

    Parameters
    ----------
    plane : str
        ``"sagittal"``, ``"axial"`` or ``"coronal"``.
    width_mm, height_mm : float
        Size, also the coordinate system of `paths`.
    data : str
        Base64 of the WebP image.
    paths : sequence of (str, str)
        Kind (``"sac"``, ``"fluid"``, ``"section"``) and SVG path data.
    """

    plane: str
    alt: str
    caption: str
    width_mm: float
    height_mm: float
    data: str
    paths: Sequence[tuple[str, str]]
    texts: Sequence[Text]

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of the paths."""
        return tuple(kind for kind, _ in self.paths)

    @property
    def aspect(self) -> float:
        """Width divided by height."""
        return self.width_mm / self.height_mm


def key_images(analysis: AnalysisData) -> tuple[KeyImage, ...]:
    """Draw the sagittal and the axial plane at the main collection.

    Without a collection, they show the rejected candidate of highest probability if the result
    is indeterminate, otherwise the midline of the canal and a coronal projection.

    Parameters
    ----------
    analysis : AnalysisData
        Results of all stages; patient identity is not drawn.
    """
    view = StudyView(analysis)
    found = by_certainty(analysis.localization.collections)
    if found:
        return _at_collection(view, found[0])
    candidates = analysis.segmentation.candidates
    if analysis.localization.finding.leak == "indeterminate" and candidates:
        best = max(candidates, key=lambda candidate: candidate.probability)
        return _at_point(view, best.center_lps)
    return _without_collection(view)


def _at_collection(view: StudyView, collection: Collection) -> tuple[KeyImage, ...]:
    box = view.boxes.get(collection.id)
    k, _, i = view.epicenter(collection)
    low, high = (k, k) if box is None else (box[0].start, box[0].stop - 1)
    rows = _rows(view, k, low, high)
    shown = f"Sagittal, {format_position(view, (k, 0, i), 0)}"
    if low < rows.start or high >= rows.stop:
        shown += "; the collection extends beyond this image"
    reach = reach_of(view, (collection,), side_mm=SIDE_MM, front_mm=SIDE_MM, back_mm=BACK_MM)
    arc = float(view.centerline.project(view.geometry.lps_from_kji(view.epicenter(collection)))[0])
    level = collection.level or "level not named"
    what = f"collection {collection.id}, {level}, {collection.position.label}"
    sagittal = _sagittal(view, np.full(view.geometry.shape[0], i), rows, shown, what, arc)
    axial = _image("axial", section(view, arc, reach, ()), f"Axial, {level}", what)
    return sagittal, axial


def _at_point(view: StudyView, point_lps: FloatArray) -> tuple[KeyImage, ...]:
    """Show the planes through a candidate that is not a collection."""
    last = np.array(view.geometry.shape) - 1
    place = np.clip(np.round(view.geometry.kji_from_lps(point_lps)).astype(int), 0, last)
    k, j, i = (int(x) for x in place)
    arc = float(view.centerline.project(point_lps)[0])
    what = "rejected candidate of highest probability"
    shown = f"Sagittal, {format_position(view, (k, j, i), 0)}, {what}"
    columns = np.full(view.geometry.shape[0], i)
    sagittal = _sagittal(view, columns, _rows(view, k, k, k), shown, what, arc)
    reach = reach_of(view, (), side_mm=SIDE_MM, front_mm=SIDE_MM, back_mm=BACK_MM)
    level = view.coordinate.segment_at(arc) or "level not named"
    return sagittal, _image("axial", section(view, arc, reach, ()), f"Axial, {level}", what)


def _without_collection(view: StudyView) -> tuple[KeyImage, ...]:
    rows = slice(0, view.geometry.shape[0])
    columns = np.round(view.canal_i).astype(np.intp)
    what = "no collection"
    sagittal = _sagittal(view, columns, rows, "Midline of the canal", what)
    panel = coronal_panel(view, rows, ())
    return sagittal, _image("coronal", panel, "Coronal projection", what)


def _rows(view: StudyView, k: int, low: int, high: int) -> slice:
    """Return the slices to show: those of a collection with margin, within limits around `k`."""
    spacing = view.geometry.spacing_ijk_mm[2]
    margin = MARGIN_MM / spacing
    shortage = max(MIN_HEIGHT_MM / spacing - (high - low) - 2 * margin, 0.0) / 2
    half = MAX_HEIGHT_MM / spacing / 2
    first, last = low - margin - shortage, high + margin + shortage
    if last - first > 2 * half:
        first, last = max(first, k - half), min(last, k + half)
    return view.rows(first, last)


def _sagittal(
    view: StudyView,
    columns_i: npt.NDArray[np.intp],
    rows: slice,
    caption: str,
    what: str,
    section_mm: float | None = None,
) -> KeyImage:
    """Show a sagittal plane: names on the vertebral bodies, position and level of a section."""
    depth = view.depth(rows, FRONT_MM, BACK_MM)
    panel = sagittal_panel(view, columns_i, rows, (), depth)

    def place(point_lps: FloatArray) -> Place:
        k, j, _ = view.geometry.kji_from_lps(point_lps)
        return float(rows.stop - 1 - k), float(j - depth.start)

    labels = tuple(
        Label(vertebra.name, place(vertebra.center_lps))
        for vertebra in view.analysis.levels.vertebrae
    )
    line: tuple[Place, ...] = ()
    if section_mm is not None:
        center, (_, _, dorsal) = (
            view.centerline.at(section_mm),
            view.centerline.frame_at(section_mm),
        )
        # To the posterior edge of the image, where its label does not cover the collection.
        back = np.arange(0.0, MAX_HEIGHT_MM)
        ends = view.geometry.kji_from_lps(center + back[:, None] * dorsal)
        inside = (ends[:, 1] < depth.stop) & (ends[:, 0] >= rows.start) & (ends[:, 0] < rows.stop)
        reach = max(float(back[inside].max(initial=0.0)), BACK_MM)
        line = place(center - SIDE_MM * dorsal), place(center + reach * dorsal)
        level = view.coordinate.segment_at(section_mm)
        labels += (Label(level, line[1], ORANGE),) if level is not None else ()
    return _image("sagittal", replace(panel, labels=labels), caption, what, line)


def _image(
    plane: str, panel: Panel, caption: str, what: str, section_line: tuple[Place, ...] = ()
) -> KeyImage:
    rows, columns = panel.shape
    height_mm, width_mm = panel.size_mm
    scale = min(PX_PER_MM, MAX_PX / max(height_mm, width_mm))
    size = (max(round(width_mm * scale), 1), max(round(height_mm * scale), 1))
    image = Image.fromarray((np.clip(panel.gray, 0, 1) * 255).astype(np.uint8))
    buffer = BytesIO()
    image.resize(size, Image.Resampling.BICUBIC).save(buffer, "WEBP", quality=WEBP_QUALITY)

    def path(places: Sequence[Place]) -> str:
        points = (
            f"{(c + 0.5) * panel.spacing_mm[1]:.2f} {(r + 0.5) * panel.spacing_mm[0]:.2f}"
            for r, c in places
        )
        return f"M{'L'.join(points)}"

    paths = [
        ("sac" if color == BLUE else "fluid", "".join(path(p.tolist()) for p in contours(mask)))
        for mask, color in panel.outlines
    ]
    if section_line:
        paths.append(("section", path(section_line)))
    texts = [
        Text(
            label.text,
            100 * (c + 0.5) / columns,
            100 * (r + 0.5) / rows,
            "target" if label.color == ORANGE else "level",
        )
        for label in panel.labels
        for r, c in (label.place,)
        if 0.02 < (r + 0.5) / rows < 0.98 and plane == "sagittal"
    ]
    # A label at the edge of the image remains inside it.
    texts = [replace(text, x=float(np.clip(text.x, 6, 94))) for text in texts]
    left, right, top, bottom = panel.orientation_labels
    texts += [
        Text(left, 0.0, _free(texts, across=True, end=0.0), "left"),
        Text(right, 100.0, _free(texts, across=True, end=100.0), "right"),
        Text(top, _free(texts, across=False, end=0.0), 0.0, "top"),
        Text(bottom, _free(texts, across=False, end=100.0), 100.0, "bottom"),
    ]
    return KeyImage(
        plane=plane,
        alt=f"{plane.capitalize()} image, {what}.",
        caption=caption,
        width_mm=round(width_mm, 2),
        height_mm=round(height_mm, 2),
        data=base64.b64encode(buffer.getvalue()).decode(),
        paths=[(kind, data) for kind, data in paths if data],
        texts=texts,
    )


def _free(texts: Sequence[Text], *, across: bool, end: float) -> float:
    """Return where along the edge at `end` of the width (`across`) or height no label is near."""
    places = [(t.x, t.y) if across else (t.y, t.x) for t in texts]
    near = [along for depth, along in places if abs(depth - end) < _EDGE]
    choices = (50, 45, 55, 40, 60, 35, 65, 30, 70, 25, 75, 20, 80)
    return max(choices, key=lambda x: min((abs(x - y) for y in near), default=_GAP) >= _GAP)

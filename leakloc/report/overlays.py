"""Figures of the finding.

An overview, the straightened canal, the level count if another series shows more levels, and a
sagittal, an axial (perpendicular to the canal) and a coronal figure of each collection. Planes
are extracted in patient orientation (`Volume.oriented`), independent of the storage order: head
up, anterior on the left in sagittal figures, the patient's right on the left in axial and coronal
ones. Aspect ratios are physical; only thin outlines are drawn on the grayscale images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import numpy.typing as npt

from leakloc.anatomy.vocabulary import Role
from leakloc.core.errors import InputError
from leakloc.core.extras import LazyModule
from leakloc.core.volume import FloatArray
from leakloc.localization.result import by_certainty
from leakloc.report.canvas import (
    BLUE,
    INK,
    ORANGE,
    Column,
    Drawing,
    Label,
    Panel,
    Place,
    Sheet,
    Stroke,
    lay_out,
    png_bytes,
    render,
)
from leakloc.report.level_count import find_counting_series, level_count_sheet
from leakloc.report.straightened import arcs_across, reach_of, section, straightened_sheet
from leakloc.report.style import collection_labels, footer, format_position, legend, numbering_text
from leakloc.report.views import Plane, StudyView

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MatplotlibFigure

    from leakloc.analysis import AnalysisData
    from leakloc.localization.result import Collection
    from leakloc.report import vector
else:  # only `figure` needs matplotlib
    vector = LazyModule("leakloc.report.vector", "figures")

Kind = Literal["overview", "straightened", "count", "sagittal", "axial", "coronal"]
ALONG_MM: Final = 40.0  # margin above and below a collection: one vertebra and a disc
MIN_HEIGHT_MM: Final = 120.0  # height of three vertebrae
SLAB_MM: Final = 18.0  # half the slab thickness of a projection: canal and foramina, no bladder
NEAR_CANAL_MM: Final = 15.0  # half the depth of the canal and posterior epidural space
BODY_HALF_MM: Final = 19.0  # half the depth of a vertebral body, with margin
BODY_SIDE_MM: Final = 27.0  # half its width, with margin
AXIAL_HEIGHT: Final = 0.52  # relative to the other figures: four panels on a full-HD screen
AXIAL_PX_PER_MM: Final = 4.5  # maximum scale in the overview: that of three sections
OVERVIEW_SECTIONS: Final = 3
BEND_MM: Final = 4.0  # a midline with less lateral deviation is considered straight
TICK_MM: Final = 5.0
COMPANION_ROLES: Final[tuple[Role, ...]] = ("sagittal_t2", "sagittal_stir", "sagittal_t1")
COMPANION_FRACTION: Final = 0.3  # minimum covered fraction of the plane
_ROLE_NAMES: Final[dict[str, str]] = {
    "sagittal_t2": "sagittal T2",
    "sagittal_stir": "sagittal STIR",
    "sagittal_t1": "sagittal T1",
}


@dataclass(frozen=True, eq=False)
class Picture:
    """A rendered figure.

    Parameters
    ----------
    name : str
        File name without suffix.
    alt : str
        Alternative text.
    collection : int or None
        Id of the collection; None for figures of the whole study.
    rgb : ndarray, shape (rows, columns, 3)
    png : bytes
    title_px : int
        Height of title and subtitle at the top of the image.
    """

    name: str
    kind: Kind
    alt: str
    collection: int | None
    rgb: npt.NDArray[np.uint8]
    png: bytes
    title_px: int = 0

    def _repr_png_(self) -> bytes:
        """Return the image for display in notebooks."""
        return self.png


def draw_pictures(analysis: AnalysisData) -> tuple[Picture, ...]:
    """Draw overview, straightened canal, level count and three figures per collection.

    Parameters
    ----------
    analysis : AnalysisData
        Results of all stages; patient identity is not drawn.
    """
    return tuple(render_figure(figure) for figure in figures(analysis))


def picture(analysis: AnalysisData, name: str = "overview") -> Picture:
    """Draw one figure of a study as pixels, for display in a notebook.

    Parameters
    ----------
    analysis : AnalysisData
    name : str
        ``"overview"``, ``"straightened"``, ``"count"`` (if levels were counted on a series with
        a larger field of view than the myelogram), or ``"collection-1-sagittal"``, ``-axial``,
        ``-coronal``.

    Raises
    ------
    InputError
        If the study does not have this figure.
    """
    return render_figure(_find_figure(analysis, name))


def figure(analysis: AnalysisData, name: str = "overview") -> MatplotlibFigure:
    """Return one figure of a study as matplotlib figure, for editing or saving as PDF or SVG.

    The parameters are those of `picture`.
    """
    return vector.figure(_find_figure(analysis, name).drawing)


def _find_figure(analysis: AnalysisData, name: str) -> Figure:
    for found in figures(analysis, name):
        return found
    count = ["count"] if find_counting_series(analysis) is not None else []
    names = ["overview", "straightened", *count] + [
        f"collection-{c.id}-{kind}"
        for c in analysis.localization.collections
        for kind in ("sagittal", "axial", "coronal")
    ]
    raise InputError(f"this study has no figure {name!r}; available: {', '.join(names)}")


@dataclass(frozen=True, eq=False)
class Figure:
    """A figure that is laid out but not yet rendered.

    Parameters
    ----------
    name : str
        ``"overview"``, ``"straightened"``, ``"collection-1-axial"`` ...
    collection : int or None
        Id of the collection; None for figures of the whole study.
    """

    name: str
    kind: Kind
    alt: str
    collection: int | None
    drawing: Drawing


def figures(analysis: AnalysisData, wanted: str | None = None) -> Iterator[Figure]:
    """Yield the laid-out figures of a study.

    Parameters
    ----------
    analysis : AnalysisData
    wanted : str, optional
        Name of a figure; all figures if omitted.
    """
    view = StudyView(analysis)
    height = analysis.settings.report.picture_height_px
    sheets: list[tuple[Kind, Collection | None, Callable[[], Sheet]]] = [
        ("overview", None, lambda: _overview(view)),
        ("straightened", None, lambda: straightened_sheet(view)),
    ]
    series = find_counting_series(analysis)
    if series is not None:
        sheets.append(("count", None, partial(level_count_sheet, view, *series)))
    for c in analysis.localization.collections:
        sheets += [
            ("sagittal", c, partial(_collection_sagittal, view, c)),
            ("axial", c, partial(_collection_axial, view, c)),
            ("coronal", c, partial(_collection_coronal, view, c)),
        ]
    for kind, collection, sheet_of in sheets:
        name = kind if collection is None else f"collection-{collection.id}-{kind}"
        if wanted in (None, name):
            sheet = sheet_of()
            tall = round(height * AXIAL_HEIGHT) if kind == "axial" else height
            yield Figure(
                name=name,
                kind=kind,
                alt=f"{kind.capitalize()} figure. {sheet.title} {' '.join(sheet.lines)}",
                collection=None if collection is None else collection.id,
                drawing=lay_out(sheet, tall),
            )


def render_figure(figure: Figure) -> Picture:
    """Render a figure as pixels."""
    image = render(figure.drawing)
    return Picture(
        name=figure.name,
        kind=figure.kind,
        alt=figure.alt,
        collection=figure.collection,
        rgb=np.asarray(image),
        png=png_bytes(image),
        title_px=min((top for _, top, _ in figure.drawing.parts), default=0),
    )


# --- planes -------------------------------------------------------------------------------


def sagittal_panel(
    view: StudyView,
    columns_i: npt.NDArray[np.intp],
    rows: slice,
    caption: tuple[str, ...],
    depth: slice | None = None,
) -> Panel:
    """Extract a sagittal plane; `columns_i` contains its index i for each slice k.

    The anterior-posterior crop `depth` is that of the region around the canal by default.
    """
    depth = view.depth(rows) if depth is None else depth
    heights = np.arange(rows.start, rows.stop)

    def cut(array: Plane) -> Plane:
        return array[heights, depth, columns_i[heights]][::-1]

    labels, strokes = _level_names(view, rows, depth, "sagittal")
    cells = cut(view.collections)
    _, j_mm, k_mm = view.geometry.spacing_ijk_mm
    return Panel(
        shape=cells.shape,
        spacing_mm=(k_mm, j_mm),
        gray=view.gray(cut(view.image.array)),
        orientation_labels=("A", "P", "H", "F"),
        outlines=((cut(view.sac), BLUE), (cells > 0, ORANGE)),
        labels=(*labels, *collection_labels(cells)),
        strokes=strokes,
        caption=caption,
    )


def _companion(
    view: StudyView, panel: Panel, columns_i: npt.NDArray[np.intp], rows: slice
) -> Panel | None:
    """Show another sequence in the same plane with the same outlines, if it covers the plane."""
    companions = view.analysis.triage.companions
    role = next((role for role in COMPANION_ROLES if role in companions), None)
    if role is None:
        return None
    other = companions[role]
    if other is view.analysis.triage.myelogram:  # the same volume has both roles
        return None
    if other.geometry.in_other_frame(view.geometry):  # not registered: outlines would be wrong
        return None
    depth = view.depth(rows)
    finest = min(other.geometry.spacing_ijk_mm)
    counts = [
        max(n, round(n * mm / max(finest, 0.4)))
        for n, mm in zip(panel.shape, panel.spacing_mm, strict=True)
    ]
    down = (np.arange(counts[0]) + 0.5) * panel.shape[0] / counts[0] - 0.5
    along = (np.arange(counts[1]) + 0.5) * panel.shape[1] / counts[1] - 0.5
    k = rows.stop - 1 - down
    i = np.interp(k, np.arange(len(columns_i)), columns_i)
    kji = np.stack(
        [
            np.broadcast_to(k[:, None], counts),
            np.broadcast_to(depth.start + along, counts),
            np.broadcast_to(i[:, None], counts),
        ],
        axis=-1,
    )
    points = view.geometry.lps_from_kji(kji)
    inside = other.geometry.contains(points)
    if inside.mean() < COMPANION_FRACTION:
        return None
    values = other.sample(points)
    low, high = np.percentile(values[inside], [1.0, 99.5])
    gray = np.clip((values - low) / max(high - low, 1e-6), 0, 1) * inside
    first = f"{_ROLE_NAMES[role]}, same plane"
    return replace(panel, gray=gray.astype(np.float32), caption=(first, *panel.caption[1:]))


def coronal_panel(
    view: StudyView, rows: slice, caption: tuple[str, ...], plane_j: int | None = None
) -> Panel:
    """Extract a coronal plane, or if `plane_j` is None an anterior-posterior projection."""
    across = view.across(rows)
    if plane_j is not None:
        image = view.image.array[rows, plane_j, across][::-1]
        sac = view.sac[rows, plane_j, across][::-1]
        cells = view.collections[rows, plane_j, across][::-1]
    else:
        image, sac, cells = _projected(view, rows, across)
    labels, strokes = _level_names(view, rows, across, "coronal")
    i_mm, _, k_mm = view.geometry.spacing_ijk_mm
    return Panel(
        shape=cells.shape,
        spacing_mm=(k_mm, i_mm),
        gray=view.gray(image),
        orientation_labels=("R", "L", "H", "F"),
        outlines=((np.asarray(sac), BLUE), (np.asarray(cells > 0), ORANGE)),
        tints=((np.asarray(cells > 0), ORANGE),) if plane_j is None else (),
        labels=(*labels, *collection_labels(cells)),
        strokes=strokes,
        caption=caption,
    )


def _projected(view: StudyView, rows: slice, across: slice) -> tuple[Plane, Plane, Plane]:
    """Project the maximum signal of a slab along the canal, and the masks at all depths."""
    half = SLAB_MM / view.geometry.spacing_ijk_mm[1]
    collections = view.collections[rows, :, across]
    found: Plane = np.asarray((collections > 0).max(axis=2))
    depths = np.arange(view.geometry.shape[1])
    image = np.empty((rows.stop - rows.start, across.stop - across.start), dtype=np.float32)
    for n, k in enumerate(range(rows.start, rows.stop)):
        near = np.abs(depths - view.canal_j[k]) <= half
        near |= found[n]
        image[n] = view.image.array[k, :, across][near].max(axis=0)
    sac = view.sac[rows, :, across].max(axis=1)
    return image[::-1], sac[::-1], collections.max(axis=1)[::-1]


def _level_names(
    view: StudyView, rows: slice, columns: slice, plane: Literal["sagittal", "coronal"]
) -> tuple[tuple[Label, ...], tuple[Stroke, ...]]:
    """Label the bodies anteriorly (sagittal) or on the right (coronal), with ticks at discs."""
    levels = view.analysis.levels
    outwards = np.array([0.0, -1.0, 0.0] if plane == "sagittal" else [-1.0, 0.0, 0.0])
    reach = BODY_HALF_MM if plane == "sagittal" else BODY_SIDE_MM

    def place(point: FloatArray) -> Place:
        k, j, i = view.geometry.kji_from_lps(point)
        return rows.stop - 1 - k, (j if plane == "sagittal" else i) - columns.start

    def visible(point: FloatArray) -> bool:
        return bool(rows.start - 0.5 <= view.geometry.kji_from_lps(point)[0] <= rows.stop - 0.5)

    # In the row of the center, also if the grid is oblique.
    spacing = view.geometry.spacing_ijk_mm[1 if plane == "sagittal" else 0]
    labels = []
    for vertebra in levels.vertebrae:
        if visible(vertebra.center_lps):
            row, column = place(vertebra.center_lps)
            column -= (reach + TICK_MM) / spacing  # no overlap with the ticks
            labels.append(Label(vertebra.name, (row, column), side="left"))
    strokes = []
    for disc in levels.discs:
        along = outwards - disc.normal_lps * float(disc.normal_lps @ outwards)
        along = along / max(float(np.linalg.norm(along)), 1e-6)
        start = disc.center_lps + (reach - TICK_MM) * along
        if visible(disc.center_lps):
            strokes.append(Stroke(place(start), place(start + TICK_MM * along), INK))
    return tuple(labels), tuple(strokes)


def _hiatus(view: StudyView, rows: slice) -> tuple[Label, ...]:
    """Label the sacral hiatus."""
    hiatus = view.analysis.localization.planning.sacral_hiatus
    if hiatus.lps_mm is None:
        return ()
    k, j, _ = view.geometry.kji_from_lps(hiatus.lps_mm)
    if not rows.start <= k < rows.stop:
        return ()
    place = (rows.stop - 1 - k, j - view.depth(rows).start)
    return (Label("\N{LEFTWARDS ARROW} hiatus", place, optional=True),)


# --- sheets -------------------------------------------------------------------------------


def _overview(view: StudyView) -> Sheet:
    """Lay out the whole field of view: sagittal plane, companion, coronal projection, sections."""
    located = view.analysis.localization
    rows = slice(0, view.geometry.shape[0])
    columns_i = np.round(view.canal_i).astype(np.intp)
    bend_mm = float(np.ptp(view.canal_i) * view.geometry.spacing_ijk_mm[0])
    middle = "Midline of the canal" + (
        f" (curved by {bend_mm:.0f} mm)" if bend_mm > BEND_MM else ""
    )
    sagittal = sagittal_panel(view, columns_i, rows, (middle, _coverage(view)))
    sagittal = replace(sagittal, labels=(*sagittal.labels, *_hiatus(view, rows)))
    columns = [Column((sagittal,))]
    companion = _companion(view, sagittal, columns_i, rows)
    if companion is not None:
        columns.append(Column((companion,)))
    subtitle = "fluid in color" if located.collections else "maximum signal around the canal"
    columns.append(Column((coronal_panel(view, rows, ("Coronal projection", subtitle)),)))
    if located.collections:
        columns.append(Column(_main_sections(view), max_px_per_mm=AXIAL_PX_PER_MM))
    return Sheet(
        title=located.finding.summary,
        lines=(numbering_text(view),),
        columns=tuple(columns),
        footer=footer(),
        key=legend(bool(located.collections)),
    )


def _main_sections(view: StudyView) -> tuple[Panel, ...]:
    """Show sections of the most certain collections, cranial to caudal."""
    shown = by_certainty(view.analysis.localization.collections)[:OVERVIEW_SECTIONS]
    panels = []
    for collection in sorted(shown, key=lambda c: -view.epicenter(c)[0]):
        where = f"{collection.level or 'level not named'}, {collection.position.label}"
        _, peak, _ = arcs_across(view, collection)
        reach = reach_of(view, (collection,))
        panels.append(section(view, peak, reach, (f"{collection.id}: {where}",)))
    return tuple(panels)


def _collection_sagittal(view: StudyView, collection: Collection) -> Sheet:
    k, j, i = view.epicenter(collection)
    rows = _slices_around(view, collection)
    columns_i = np.full(view.geometry.shape[0], i, dtype=np.intp)
    caption = (f"Sagittal, {format_position(view, (k, j, i), 0)}", _offset_from_midline(view, k, i))
    panel = sagittal_panel(view, columns_i, rows, caption)
    columns = [Column((panel,))]
    companion = _companion(view, panel, columns_i, rows)
    if companion is not None:
        columns.append(Column((companion,)))
    return _sheet(view, collection, tuple(columns))


def _collection_coronal(view: StudyView, collection: Collection) -> Sheet:
    k, _, i = view.epicenter(collection)
    rows = _slices_around(view, collection)
    j = _coronal_plane(view, collection)
    plane = coronal_panel(view, rows, (f"Coronal, {format_position(view, (k, j, i), 1)}",), j)
    projection = coronal_panel(view, rows, ("Coronal projection, fluid in color",))
    return _sheet(view, collection, (Column((plane,)), Column((projection,))))


def _collection_axial(view: StudyView, collection: Collection) -> Sheet:
    """Show the largest cross-section, one above, one below, and their positions."""
    _, _, i = view.epicenter(collection)
    rows = _slices_around(view, collection)
    arcs = arcs_across(view, collection)
    reach = reach_of(view, (collection,))
    tiles = []
    for arc in arcs:
        level = view.coordinate.segment_at(arc) or "level not named"
        first = f"{level}, largest cross-section" if arc == arcs[1] else level
        tiles.append(section(view, arc, reach, (first,), framed=arc == arcs[1]))
    columns_i = np.full(view.geometry.shape[0], i, dtype=np.intp)
    locator = sagittal_panel(view, columns_i, rows, ("Position of the sections",))
    depth = view.depth(rows)

    def place(arc: float, dorsal_mm: float) -> Place:
        point = view.centerline.at(arc) + dorsal_mm * view.centerline.frame_at(arc)[2]
        k, j, _ = view.geometry.kji_from_lps(point)
        return float(rows.stop - 1 - k), float(j - depth.start)

    lines = tuple(
        Stroke(
            place(arc, reach.dorsal_mm[0]),
            place(arc, reach.dorsal_mm[1]),
            ORANGE if arc == arcs[1] else INK,
            width_px=1,
        )
        for arc in arcs
    )
    locator = replace(locator, strokes=(*locator.strokes, *lines))
    return _sheet(view, collection, (Column((locator,)), *(Column((tile,)) for tile in tiles)))


def _sheet(view: StudyView, c: Collection, columns: tuple[Column, ...]) -> Sheet:
    level = c.level or "level not named"
    measures = [
        f"{_span(c)}, {c.extent.length_mm:.0f} mm long",
        f"up to {c.max_thickness_mm:.1f} mm thick",
        c.pattern,
        f"confidence {c.confidence:.2f}",
    ]
    return Sheet(
        title=f"Collection {c.id}: {level}, {c.position.label}, {c.volume_ml:.1f} mL, {c.grade}",
        lines=(" · ".join(measures), numbering_text(view, c)),
        columns=columns,
        footer=footer(),
        key=legend(True),
    )


def _span(c: Collection) -> str:
    if not c.segments:
        return "extent not named"
    return c.segments[0] if len(c.segments) == 1 else f"{c.segments[0]} to {c.segments[-1]}"


# --- positions ----------------------------------------------------------------------------


def _coronal_plane(view: StudyView, collection: Collection) -> int:
    """Return the coronal plane with the largest area of a collection, near the canal if possible.

    The larger part may be in the surgical bed, but a plane there would not show the canal.
    """
    k, j, _ = view.epicenter(collection)
    near = NEAR_CANAL_MM / view.geometry.spacing_ijk_mm[1]
    counts = np.count_nonzero(view.collections == collection.id, axis=(0, 2))
    away = np.abs(np.arange(len(counts)) - view.canal_j[k]) > near
    counts = np.where(away, 0, counts)
    return int(counts.argmax()) if counts.any() else j


def _slice_range(view: StudyView, collection: Collection) -> tuple[int, int]:
    """Return the first and last slice of a collection."""
    box = view.boxes.get(collection.id)
    if box is None:
        k = view.epicenter(collection)[0]
        return k, k
    return box[0].start, box[0].stop - 1


def _slices_around(view: StudyView, collection: Collection) -> slice:
    """Return the slices of a collection with a margin."""
    spacing = view.geometry.spacing_ijk_mm[2]
    low, high = _slice_range(view, collection)
    margin = max(ALONG_MM, (MIN_HEIGHT_MM - (high - low) * spacing) / 2) / spacing
    return view.rows(low - margin, high + margin)


def _offset_from_midline(view: StudyView, k: int, i: int) -> str:
    offset = (i - view.canal_i[k]) * view.geometry.spacing_ijk_mm[0]
    if abs(offset) < 1.0:
        return "in the midline of the canal"
    return f"{abs(offset):.0f} mm to the {'left' if offset > 0 else 'right'} of the canal's midline"


def _coverage(view: StudyView) -> str:
    coverage = view.analysis.localization.coverage
    if coverage.cranial and coverage.caudal:
        return f"field of view from {coverage.cranial} to {coverage.caudal}"
    return "levels of the field of view unknown"

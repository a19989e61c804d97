from collections.abc import Callable
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from leakloc.anatomy.spine import Spine
from leakloc.anatomy.vocabulary import SHORT_NOTICE
from leakloc.core.volume import Volume
from leakloc.pipeline import Analysis
from leakloc.report import canvas, overlays
from leakloc.report.views import StudyView

Make = Callable[..., Analysis]


def stored_as(analysis: Analysis, codes: str) -> Analysis:
    """The same study with every array stored along other axes."""
    segmentation = analysis.segmentation
    return replace(
        analysis,
        triage=replace(analysis.triage, spine=Spine(analysis.triage.myelogram.oriented(codes))),
        segmentation=replace(
            segmentation,
            fluid_fraction=segmentation.fluid_fraction.oriented(codes),
            thecal_sac=segmentation.thecal_sac.oriented(codes),
            collections=segmentation.collections.oriented(codes),
        ),
        levels=replace(analysis.levels, mask=analysis.levels.mask.oriented(codes)),
    )


@pytest.fixture(scope="module")
def pictures(analysis: Analysis) -> dict[str, overlays.Picture]:
    return {picture.name: picture for picture in overlays.draw_pictures(analysis)}


@pytest.fixture(scope="module")
def view(analysis: Analysis) -> StudyView:
    return StudyView(analysis)


def centroid(mask: np.ndarray) -> np.ndarray:
    return np.argwhere(mask).mean(axis=0)


def test_two_pictures_of_the_study_and_three_of_each_collection(
    pictures: dict[str, overlays.Picture],
) -> None:
    assert list(pictures) == ["overview", "straightened"] + [
        f"collection-{n}-{kind}" for n in (1, 2) for kind in ("sagittal", "axial", "coronal")
    ]
    for picture in pictures.values():
        decoded = np.asarray(Image.open(BytesIO(picture.png)))
        np.testing.assert_array_equal(decoded, picture.rgb)
        assert picture.rgb.shape[1] <= 1920


@pytest.mark.parametrize("codes", ["RAI", "PIR", "SLA"])
def test_pictures_do_not_depend_on_how_the_array_was_stored(
    analysis: Analysis, pictures: dict[str, overlays.Picture], codes: str
) -> None:
    stored = stored_as(analysis, codes)
    sheet = overlays._collection_axial(StudyView(stored), stored.localization.collections[1])
    again = canvas.draw(sheet, round(900 * overlays.AXIAL_HEIGHT))
    np.testing.assert_array_equal(np.asarray(again), pictures["collection-2-axial"].rgb)


def test_left_of_the_patient_is_right_in_the_picture(view: StudyView, analysis: Analysis) -> None:
    left = analysis.localization.collections[1]  # 14 mm to the patient's left
    axial = overlays._collection_axial(view, left).columns[2].panels[0]
    sac, fluid = (mask > 0.5 for mask, _ in axial.outlines)
    assert 10 < (centroid(fluid) - centroid(sac))[1] * axial.spacing_mm[1] < 18
    for column in overlays._collection_coronal(view, left).columns:
        coronal = column.panels[0]
        (tag,) = (label for label in coronal.labels if label.text == "2")
        sac_row = np.flatnonzero(coronal.outlines[0][0][round(tag.place[0])])
        assert tag.place[1] > sac_row.max()
        assert axial.orientation_labels[:2] == coronal.orientation_labels[:2] == ("R", "L")


def test_back_of_the_patient_is_right_in_sagittal_and_below_in_axial_pictures(
    view: StudyView, analysis: Analysis
) -> None:
    dorsal = analysis.localization.collections[0]
    sagittal = overlays._collection_sagittal(view, dorsal).columns[0].panels[0]
    axial = overlays._collection_axial(view, dorsal).columns[2].panels[0]
    assert sagittal.orientation_labels == ("A", "P", "H", "F") and axial.orientation_labels == (
        "R",
        "L",
        "A",
        "P",
    )
    sac, fluid = (mask > 0.5 for mask, _ in axial.outlines)
    assert (centroid(fluid) - centroid(sac))[0] > 3
    sac, fluid = (mask for mask, _ in sagittal.outlines)
    row = int(centroid(fluid)[0])
    assert np.flatnonzero(fluid[row]).mean() > np.flatnonzero(sac[row]).mean() + 3


def test_names_are_at_the_height_of_their_vertebrae(view: StudyView, analysis: Analysis) -> None:
    panel = overlays._overview(view).columns[0].panels[0]
    rows = {label.text: label.place[0] for label in panel.labels if label.side == "left"}
    mask = analysis.levels.mask.oriented("LPS").array
    for name, value in {"L2": 21, "L3": 22, "L4": 23, "L5": 24}.items():  # whole in the grid
        k = np.argwhere(mask == value)[:, 0].mean()
        assert rows[name] == pytest.approx(mask.shape[0] - 1 - k, abs=1.0)
    assert rows["L1"] < rows["L5"]  # head up


def test_names_do_not_cover_the_canal(view: StudyView) -> None:
    panel = overlays._overview(view).columns[0].panels[0]
    sac = panel.outlines[0][0]
    for label in panel.labels:
        if label.side == "left":
            front = np.flatnonzero(sac[round(label.place[0])])
            assert not front.size or label.place[1] < front.min()
    for stroke in panel.strokes:
        front = np.flatnonzero(sac[round(stroke.start[0])])
        assert max(stroke.start[1], stroke.end[1]) < front.min()


def test_pixels_keep_their_physical_aspect() -> None:
    panel = canvas.Panel(
        shape=(20, 50),
        spacing_mm=(3.0, 0.8),
        gray=np.zeros((20, 50), np.float32),
        orientation_labels=("A", "P", "H", "F"),
    )
    image = canvas.draw_panel(panel, px_per_mm=6.0)
    assert image.size == (round(50 * 0.8 * 6), 20 * 3 * 6)


@pytest.mark.parametrize("px_per_mm", [3.0, 5.5])
def test_scale_bar_is_20_mm_long(px_per_mm: float) -> None:
    panel = canvas.Panel(
        shape=(100, 100),
        spacing_mm=(1.0, 1.0),
        gray=np.zeros((100, 100), np.float32),
        orientation_labels=("", "", "", ""),
    )
    image = np.asarray(canvas.draw_panel(panel, px_per_mm))
    inked = (image == canvas.INK).all(axis=-1)
    longest = max(np.count_nonzero(row) for row in inked)
    assert longest == pytest.approx(20 * px_per_mm, abs=3)


def test_outline_follows_the_edge_of_the_mask() -> None:
    mask = np.zeros((40, 40), bool)
    mask[10:30, 12:28] = True
    panel = canvas.Panel(
        shape=(40, 40),
        spacing_mm=(1.0, 1.0),
        gray=np.zeros((40, 40), np.float32),
        orientation_labels=("", "", "", ""),
        outlines=((mask, canvas.ORANGE),),
        scale_bar=False,
    )
    image = np.asarray(canvas.draw_panel(panel, 10.0)).astype(int)
    colored = np.abs(image - canvas.ORANGE).sum(axis=-1) < 60
    rows, columns = np.nonzero(colored)
    assert (rows.min(), rows.max()) == (pytest.approx(100, abs=3), pytest.approx(300, abs=3))
    assert (columns.min(), columns.max()) == (pytest.approx(120, abs=3), pytest.approx(280, abs=3))
    assert not colored[150:250, 170:230].any()  # the inside stays undisturbed


@given(
    st.lists(st.floats(0, 900), max_size=25),
    st.floats(5, 20),
)
def test_spread_labels_never_overlap(positions: list[float], gap: float) -> None:
    moved = canvas.spread(positions, gap, 10, 890)
    assert len(moved) == len(positions)
    fitting = min(gap, 880 / max(len(positions) - 1, 1))
    assert np.all(np.diff(np.sort(moved)) >= fitting - 1e-9)
    assert all(10 - 1e-9 <= y <= 890 + 1e-9 for y in moved)
    order = np.argsort(positions, kind="stable")
    assert np.all(np.diff(np.array(moved)[order]) >= 0)


def test_every_sheet_carries_the_notice(view: StudyView, analysis: Analysis) -> None:
    first = analysis.localization.collections[0]
    for sheet in (
        overlays._overview(view),
        overlays._collection_sagittal(view, first),
        overlays._collection_axial(view, first),
        overlays._collection_coronal(view, first),
    ):
        assert SHORT_NOTICE in sheet.footer


def test_sections_name_their_segment_and_position(view: StudyView, analysis: Analysis) -> None:
    sheet = overlays._collection_axial(view, analysis.localization.collections[0])
    above, worst, below = (column.panels[0] for column in sheet.columns[1:])
    assert worst.framed and not above.framed and not below.framed
    assert worst.caption[0].startswith("L4-L5")
    z = [float(panel.caption[1].split()[2]) for panel in (above, worst, below)]
    assert z[0] < z[1] < z[2]  # all towards the feet (F), from the head down


def companion(analysis: Analysis, frame: str | None = None) -> Analysis:
    myelogram = analysis.triage.myelogram
    other = myelogram.oriented("PIR").resample(
        replace(
            myelogram.oriented("PIR").geometry.with_spacing([0.9, 0.9, 3.0]),
            frame_of_reference_uid=frame,
        )
    )
    return replace(analysis, triage=replace(analysis.triage, companions={"sagittal_t2": other}))


def test_companion_shows_the_same_place(analysis: Analysis) -> None:
    both = companion(analysis)
    first = analysis.localization.collections[0]
    sheet = overlays._collection_sagittal(StudyView(both), first)
    panel, t2 = (column.panels[0] for column in sheet.columns)
    assert t2.outlines == panel.outlines and t2.caption[0].startswith("sagittal T2")
    sac = Image.fromarray(panel.outlines[0][0].astype(np.uint8))
    inside = np.asarray(sac.resize(t2.gray.shape[::-1], Image.Resampling.NEAREST)) > 0
    assert t2.gray[inside].mean() > 0.7 > 0.3 > t2.gray[~inside].mean()


def test_companion_in_another_frame_of_reference_is_not_shown(analysis: Analysis) -> None:
    both = companion(analysis, "1.2.3")
    moved = replace(both.triage.myelogram.geometry, frame_of_reference_uid="1.2.4")
    both = replace(
        both,
        triage=replace(both.triage, spine=Spine(Volume(both.triage.myelogram.array, moved))),
    )
    first = analysis.localization.collections[0]
    assert len(overlays._collection_sagittal(StudyView(both), first).columns) == 1


def test_nothing_found_still_gives_an_overview(leakless: Analysis) -> None:
    overview, straightened = overlays.draw_pictures(leakless)
    assert overview.name == "overview" and "does not exclude" in overview.alt
    assert straightened.name == "straightened" and "does not exclude" in straightened.alt


def test_unnamed_levels_and_empty_masks_are_drawn(analysis: Analysis) -> None:
    segmentation = analysis.segmentation
    empty = segmentation.thecal_sac.with_array(np.zeros_like(segmentation.thecal_sac.array))
    bare = replace(
        analysis,
        segmentation=replace(segmentation, thecal_sac=empty, collections=empty),
        levels=replace(analysis.levels, status="unlabelled", vertebrae=(), discs=()),
    )
    assert len(overlays.draw_pictures(bare)) == 8


def test_a_thin_slab_is_padded_for_axis_labels(analysis: Analysis) -> None:
    middle = slice(26, 38)  # 12 of 64 sagittal slices
    box = (middle, slice(None), slice(None))
    thin = replace(
        analysis,
        triage=replace(analysis.triage, spine=Spine(analysis.triage.myelogram.crop(box))),
        segmentation=replace(
            analysis.segmentation,
            thecal_sac=analysis.segmentation.thecal_sac.crop(box),
            collections=analysis.segmentation.collections.crop(box),
        ),
    )
    panel = overlays._overview(StudyView(thin)).columns[1].panels[0]
    image = canvas.draw_panel(panel, 900 / panel.size_mm[0])
    assert image.width >= canvas.MIN_WIDTH_PX - 1


def test_level_names_displace_axis_labels() -> None:
    name = canvas.Label("L3", (50.0, 12.0), side="left")  # at the position of the letter A
    plain = canvas.Panel(
        shape=(100, 100),
        spacing_mm=(1.0, 1.0),
        gray=np.zeros((100, 100), np.float32),
        orientation_labels=("A", "", "", ""),
        scale_bar=False,
    )
    alone = np.asarray(
        canvas.draw_panel(replace(plain, orientation_labels=("", "", "", ""), labels=(name,)), 4)
    )
    both = np.asarray(canvas.draw_panel(replace(plain, labels=(name,)), 4))
    letter = np.asarray(canvas.draw_panel(plain, 4))
    inked = (alone > 0).any(axis=-1)
    np.testing.assert_array_equal(both[inked], alone[inked])  # the name is whole
    assert (both > 0).any(axis=-1).sum() == inked.sum() + (letter > 0).any(axis=-1).sum()


def test_axis_labels_do_not_cover_names_along_the_whole_edge() -> None:
    names = [canvas.Label(f"S{n}", (6.0 * n, 3.0), side="left") for n in range(1, 16)]
    panel = canvas.Panel(
        shape=(100, 60),
        spacing_mm=(1.0, 1.0),
        gray=np.zeros((100, 60), np.float32),
        orientation_labels=("R", "", "", ""),
        labels=names,
        scale_bar=False,
    )
    texts = [item for item in canvas.lay_panel(panel, 4).items if isinstance(item, canvas.TextLine)]
    (marker,) = (text for text in texts if text.text == "R")
    boxes = [canvas._box_of(text) for text in texts if text.text.startswith("S")]
    assert len(boxes) == 15
    assert not any(canvas._overlap(canvas._box_of(marker), box) for box in boxes)

import base64
import json
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from leakloc.anatomy.spine import Spine
from leakloc.core.templates import render_html
from leakloc.core.volume import Geometry, Volume
from leakloc.pipeline import Analysis
from leakloc.report.page import viewer
from leakloc.report.views import axis_labels

ROOM = 1_500_000


@pytest.fixture(scope="module")
def made(analysis: Analysis) -> viewer.Viewer:
    return viewer.make_viewer(analysis, ROOM)


def decoded(texts: list[str], shape: tuple[int, int, int]) -> np.ndarray:
    """The slices as the script decodes them: [k, j, i]."""
    out = np.zeros(shape, np.uint8)
    for i, text in enumerate(texts):
        if text:
            image = Image.open(BytesIO(base64.b64decode(text)))
            out[:, :, i] = np.asarray(image.convert("L"))[::-1]
    return out


def place(made: viewer.Viewer, mask: np.ndarray) -> np.ndarray:
    """Center of a mask of the viewer in patient coordinates."""
    ijk = np.argwhere(mask).mean(axis=0)[::-1]
    return np.array(made.data["affine"]) @ [*ijk, 1]


def test_masks_lie_where_they_lay(made: viewer.Viewer, analysis: Analysis) -> None:
    labels = decoded(made.data["labels"], made.data["shape"])
    found = analysis.segmentation.collections
    assert set(np.unique(labels)) == {0, 1, 2, viewer.SAC}
    for value in (1, 2):
        true = found.geometry.lps_from_kji(np.argwhere(found.array == value)).mean(axis=0)
        np.testing.assert_allclose(place(made, labels == value)[:3], true, atol=0.01)
        assert np.count_nonzero(labels == value) == np.count_nonzero(found.array == value)


def test_signal_lies_under_its_masks(made: viewer.Viewer, analysis: Analysis) -> None:
    stored = decoded(made.data["slices"], made.data["shape"])
    labels = decoded(made.data["labels"], made.data["shape"])
    low, white = made.data["signal"]
    signal = low + (stored / 255.0) ** 2 * (white - low)
    image = analysis.triage.myelogram
    points = image.geometry.lps_from_kji(np.argwhere(analysis.segmentation.collections.array == 1))
    assert signal[labels == 1].mean() == pytest.approx(image.sample(points).mean(), rel=0.08)
    assert signal[labels == 0].mean() < 0.25 * signal[labels == 1].mean()


@given(st.sampled_from(["RAI", "PIR", "SLA", "AIL"]))
@settings(max_examples=4, deadline=None)
def test_how_the_array_was_stored_changes_nothing(
    analysis: Analysis, made: viewer.Viewer, codes: str
) -> None:
    parts = analysis.segmentation
    stored = replace(
        analysis,
        triage=replace(analysis.triage, spine=Spine(analysis.triage.myelogram.oriented(codes))),
        segmentation=replace(
            parts,
            thecal_sac=parts.thecal_sac.oriented(codes),
            collections=parts.collections.oriented(codes),
        ),
    )
    assert viewer.make_viewer(stored, ROOM).data == made.data


def test_positions_have_the_name_of_their_level(made: viewer.Viewer, analysis: Analysis) -> None:
    canal = np.array([place[:3] for place in made.data["canal"]])
    names = [place[3] for place in made.data["canal"]]
    for disc in analysis.levels.discs:
        nearest = np.linalg.norm(canal - np.add(disc.center_lps, [0, 26, 0]), axis=1).argmin()
        assert names[nearest].startswith(disc.name)


def test_what_does_not_fit_is_averaged_and_said(analysis: Analysis) -> None:
    small = viewer.make_viewer(analysis, 60_000)
    assert small.size_bytes < 60_000
    assert max(small.binned) > 1
    assert "averaged over" in small.resolution
    shape = np.array(small.data["shape"]) * small.binned[::-1]
    full = np.array(viewer.make_viewer(analysis, ROOM).data["shape"])
    assert ((full - shape >= 0) & (full - shape < small.binned[::-1])).all()
    labels = decoded(small.data["labels"], small.data["shape"])
    for collection in analysis.localization.collections:
        found = analysis.segmentation.collections
        true = found.geometry.lps_from_kji(np.argwhere(found.array == collection.id)).mean(axis=0)
        assert np.linalg.norm(place(small, labels == collection.id)[:3] - true) < 2.5


def test_a_sheet_one_voxel_thin_survives_averaging() -> None:
    labels = np.zeros((8, 8, 8), np.uint8)
    labels[:, :4] = viewer.SAC
    labels[2:6, 4, 2:6] = 3
    geometry = Geometry.from_axes((8, 8, 8), origin_lps=[0, 0, 0], spacing_ijk_mm=[1, 0.5, 1])
    block = viewer._binned(viewer.Block(np.ones((8, 8, 8), np.float32), labels, geometry))
    assert block.labels.shape == (8, 4, 8) and block.binned == (1, 2, 1)
    assert (block.labels[2:6, 2, 2:6] == 3).all()
    assert block.geometry.spacing_ijk_mm == (1, 1, 1)
    np.testing.assert_allclose(block.geometry.origin_lps, [0, 0.25, 0])


def test_texts_cannot_end_the_data(made: viewer.Viewer, analysis: Analysis) -> None:
    evil = "</script><script>alert(1)</script>"
    data = {**made.data, "collections": [{"id": 1, "title": evil, "lps": [0, 0, 0]}]}
    changed = replace(made, data=data)
    values = {"viewer": changed, "report": analysis.report, "ordered": ()}
    names = {"names": [evil], "study_instance_uid": evil}
    text = render_html("report/page/viewer.html.j2", **values, correctable=names)
    assert text.count("</script>") == 2 and "<script>" not in text
    start = text.index('id="viewer-data">') + len('id="viewer-data">')
    stored = json.loads(text[start : text.index("</script>", start)])
    assert stored["collections"][0]["title"] == evil


def test_an_oblique_axis_has_two_letters() -> None:
    tilt = np.deg2rad(30)
    axes = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    oblique = Geometry.from_axes(
        (4, 4, 4), origin_lps=[0, 0, 0], spacing_ijk_mm=[1, 1, 1], directions_lps=axes
    )
    assert axis_labels(oblique) == (("R", "L"), ("AF", "PH"), ("FP", "HA"))
    straight = Geometry.from_axes((4, 4, 4), origin_lps=[0, 0, 0], spacing_ijk_mm=[1, 1, 1])
    assert axis_labels(straight) == (("R", "L"), ("A", "P"), ("F", "H"))


def test_a_canal_that_leaves_a_thin_slab_is_still_shown(analysis: Analysis) -> None:
    box = (slice(0, 10), slice(None), slice(None))  # the patient's left, lateral to the canal

    def thin(volume: Volume) -> Volume:
        return volume.crop(box)

    parts = analysis.segmentation
    beside = replace(
        analysis,
        triage=replace(analysis.triage, spine=Spine(thin(analysis.triage.myelogram))),
        segmentation=replace(
            parts, thecal_sac=thin(parts.thecal_sac), collections=thin(parts.collections)
        ),
    )
    assert viewer.make_viewer(beside, ROOM).data["shape"][2] == 10

import base64
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from leakloc.pipeline import Analysis
from leakloc.report import build_report
from leakloc.report.page import html
from leakloc.report.page.key_images import KeyImage, key_images
from leakloc.segmentation.result import Candidate


@pytest.fixture(scope="module")
def images(analysis: Analysis) -> dict[str, KeyImage]:
    return {image.plane: image for image in key_images(analysis)}


def pixels(image: KeyImage) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(base64.b64decode(image.data))).convert("L"))


def path_mm(image: KeyImage, kind: str) -> np.ndarray:
    """Points of a path from the upper left corner, shape (n, 2): x, y."""
    (data,) = (data for name, data in image.paths if name == kind)
    return np.array(data.replace("M", " ").replace("L", " ").split(), float).reshape(-1, 2)


def test_sagittal_and_axial_plane_at_the_main_collection(images: dict[str, KeyImage]) -> None:
    assert list(images) == ["sagittal", "axial"]
    assert images["axial"].caption == "Axial, L4-L5"
    for image in images.values():
        x, y = path_mm(image, "fluid").T
        assert 0 < x.min() < x.max() < image.width_mm and 0 < y.min() < y.max() < image.height_mm
        height, width = pixels(image).shape
        assert width / height == pytest.approx(image.aspect, rel=0.02)


def test_names_are_on_their_vertebral_bodies(
    analysis: Analysis, images: dict[str, KeyImage]
) -> None:
    named = {t.text: t for t in images["sagittal"].texts if t.kind == "level"}
    assert {"L3", "L4", "L5"} <= set(named)
    heights = {v.name: v.center_lps[2] for v in analysis.levels.vertebrae}
    below_mm = (named["L5"].y - named["L4"].y) / 100 * images["sagittal"].height_mm
    assert below_mm == pytest.approx(heights["L4"] - heights["L5"], abs=3.0)


def test_the_line_is_at_the_axial_plane(images: dict[str, KeyImage]) -> None:
    sagittal = images["sagittal"]
    line = path_mm(sagittal, "section")
    fluid = path_mm(sagittal, "fluid")
    assert fluid[:, 1].min() < line[:, 1].mean() < fluid[:, 1].max()
    (target,) = (t for t in sagittal.texts if t.kind == "target")
    assert target.text == "L4-L5"


def test_no_orientation_label_covers_a_name(images: dict[str, KeyImage]) -> None:
    sides = {t.text: t for t in images["sagittal"].texts if t.kind in ("left", "right")}
    assert set(sides) == {"A", "P"}
    for text in images["sagittal"].texts:
        if text.kind in ("level", "target"):
            assert all(
                abs(text.x - side.x) > 12 or abs(text.y - side.y) > 5 for side in sides.values()
            )


def test_a_long_collection_is_cropped_around_its_largest_section(analysis: Analysis) -> None:
    volume = analysis.segmentation.collections
    array = volume.array.copy()
    array[analysis.segmentation.thecal_sac.array > 0] = 1  # as long as the field of view
    whole = replace(
        analysis, segmentation=replace(analysis.segmentation, collections=volume.with_array(array))
    )
    sagittal, _ = key_images(whole)
    assert sagittal.height_mm <= 245


def test_without_collection_the_whole_canal_is_shown(leakless: Analysis) -> None:
    sagittal, coronal = key_images(leakless)
    assert (sagittal.plane, coronal.plane) == ("sagittal", "coronal")
    assert sagittal.kinds == ("sac",)
    names = {t.text for t in sagittal.texts if t.kind == "level"}
    assert {"L1", "S1"} <= names
    text = html.page(build_report(leakless), key_images=(sagittal, coronal))
    assert "Blue: thecal sac." in text and "Orange" not in text[: text.index("<nav")]


def test_indeterminate_shows_the_most_probable_candidate(leakless: Analysis) -> None:
    point = np.array([2.0, 20.0, 30.0])
    candidate = Candidate(0, False, 0.4, 1.0, point, "may be fat", ("fat",), ("epidural",))
    finding = leakless.localization.finding.model_copy(update={"leak": "indeterminate"})
    unsure = replace(
        leakless,
        segmentation=replace(leakless.segmentation, candidates=(candidate,)),
        localization=replace(leakless.localization, finding=finding),
    )
    sagittal, axial = key_images(unsure)
    assert axial.caption == "Axial, L2-L3"
    assert "rejected candidate" in sagittal.caption and sagittal.height_mm < 140

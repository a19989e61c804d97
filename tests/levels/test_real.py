"""Real spines that neither the networks were trained on nor the numbering fitted to.

Patients of SPIDER, and the PAM50 template (De Leener et al., NeuroImage 2018), the straightened
mean of 50 people from the brain stem to L2.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from leakloc.anatomy.centerline import Centerline
from leakloc.anatomy.reference import reference_chain
from leakloc.anatomy.spine import Spine
from leakloc.core.settings import LevelSettings, SegmentationSettings
from leakloc.core.volume import Volume
from leakloc.levels import label
from leakloc.segmentation import segment
from leakloc.validation.evaluation.spider import LANDMARKS
from tests.levels.spines import blind_segmentation

DATA = Path(os.environ.get("LEAKLOC_DATA", Path(__file__).parents[3] / "shared" / "data"))
CANAL = 3


def canal_line(mask):
    oriented = mask.oriented("LPS")
    points = [
        oriented.geometry.lps_from_kji([k, *np.argwhere(plane == CANAL).mean(axis=0)])
        for k, plane in enumerate(oriented.array)
        if (plane == CANAL).sum() > 10
    ]
    return Centerline.smoothed(points[::-1])


@pytest.mark.data
@pytest.mark.parametrize(
    "patient",
    ["127", "220", *(pytest.param(number, marks=pytest.mark.slow) for number in ("045", "069"))],
)
def test_every_disc_of_a_patient_has_its_name(patient):
    import nibabel as nib

    path = DATA / "spider" / f"spider-{patient}_T2SPACE.nii.gz"
    if not path.is_file():
        pytest.skip("the public volumes are not here; set LEAKLOC_DATA")
    volume = Volume.from_nibabel(nib.load(path))
    mask = Volume.from_nibabel(nib.load(path.with_name(f"spider-{patient}_mask.nii.gz")))
    truth = json.loads(path.with_name(f"spider-{patient}_discs.json").read_text())
    segmentation = blind_segmentation(volume, canal_line(mask))
    levels = label(Spine(volume), {}, segmentation, LevelSettings())
    found = {disc.name: disc.center_lps for disc in levels.discs}
    for disc in truth["discs"]:
        true = np.array(disc["ras_mm"]) * (-1, -1, 1)
        assert np.linalg.norm(found[disc["name"]] - true) < 6.0, disc["name"]


def template():
    """The template, and the heights of its discs: C2-C3 (3) to T11-T12 (19), marked in the cord."""
    import nibabel as nib

    folder = DATA / "sct-testing" / "PAM50_small"
    if not folder.is_dir():
        pytest.skip("the public volumes are not here; set LEAKLOC_DATA")
    volume = Volume.from_nibabel(nib.load(folder / "PAM50_small_t2.nii.gz")).oriented("LPS")
    marks = Volume.from_nibabel(nib.load(folder / "PAM50_small_label_disc.nii.gz")).oriented("LPS")
    heights = {}
    for n, name in enumerate(reference_chain(5).discs[:17]):
        kji = np.argwhere(marks.array == n + 3).mean(axis=0)
        heights[name] = float(marks.geometry.lps_from_kji(kji)[2])
    return volume, heights


def as_localizer(volume):
    """Sagittal planes of 7 mm and pixels of 2 mm, averaged."""
    geometry = volume.geometry
    coarse = geometry.with_spacing((7.0, 2.0, 2.0))
    over = [
        max(1, round(a / b)) for a, b in zip((7.0, 2.0, 2.0), geometry.spacing_ijk_mm, strict=True)
    ]
    from scipy.ndimage import uniform_filter

    return volume.with_array(uniform_filter(volume.array, over[::-1])).resample(coarse)


@pytest.mark.data
@pytest.mark.parametrize("seen", [lambda v: v, as_localizer], ids=["1 x 1 x 2 mm", "localizer"])
def test_discs_from_the_neck_down_have_their_names(seen):
    volume, heights = template()
    image = seen(volume)
    spine = Spine(image)
    segmentation = segment(spine, {}, SegmentationSettings())
    levels = label(spine, {}, segmentation, LevelSettings())
    assert levels.numbering.method == "c2_count"
    found = {disc.name: disc.center_lps[2] for disc in levels.discs}
    for name, height in heights.items():
        assert abs(found[name] - height) < 5.0, name


@pytest.mark.data
def test_a_chest_without_neck_and_sacrum_is_named_in_doubt():
    volume, _ = template()
    below_neck = volume.geometry.kji_from_lps([0.0, 0.0, 30.0])[0]
    chest = volume.crop((slice(0, int(below_neck)), slice(None), slice(None)))
    spine = Spine(chest)
    segmentation = segment(spine, {}, SegmentationSettings())
    levels = label(spine, {}, segmentation, LevelSettings())
    assert levels.status == "partial" and levels.numbering.confidence < 0.3
    assert "no_anchor" in {note.code for note in levels.notes}


@pytest.mark.data
def test_field_without_sacrum_is_named_by_the_end_of_the_cord():
    """The tutorial of the Spinal Cord Toolbox (MIT) gives voxels, discs at their posterior edge."""
    import nibabel as nib

    path = DATA / "sct-tutorial" / "t2_lumbar.nii.gz"
    if not path.is_file():
        pytest.skip("the public volumes are not here; set LEAKLOC_DATA")
    image = nib.load(path)
    disc, cord_end = (
        (image.affine @ (*voxel, 1.0))[:3] * (-1, -1, 1) for voxel in ((27, 76, 187), (27, 79, 80))
    )
    volume = Volume.from_nibabel(image)
    spine = Spine(volume)
    found = segment(spine, {}, SegmentationSettings())
    levels = label(spine, {}, found, LevelSettings())
    named = {d.name: d.center_lps for d in levels.discs}
    assert abs(named["T9-T10"][2] - disc[2]) < 4.0
    assert abs(levels.detection.conus.point_lps[2] - cord_end[2]) <= 6.0
    assert levels.status == "partial" and levels.numbering.confidence < 0.5
    assert "L5-S1" not in " ".join(a.reason for a in levels.numbering.alternatives)


@pytest.mark.data
@pytest.mark.parametrize("patient", ["127", pytest.param("220", marks=pytest.mark.slow)])
def test_sacral_discs_lie_where_they_were_read(patient):
    import nibabel as nib

    path = DATA / "spider" / f"spider-{patient}_T2SPACE.nii.gz"
    if not path.is_file():
        pytest.skip("the public volumes are not here; set LEAKLOC_DATA")
    volume = Volume.from_nibabel(nib.load(path))
    spine = Spine(volume)
    levels = label(spine, {}, segment(spine, {}, SegmentationSettings()), LevelSettings())
    named = {d.name: d.center_lps for d in levels.discs}
    for name, yz in json.loads(LANDMARKS.read_text())["patients"][patient][
        "sacral_discs_yz_mm"
    ].items():
        assert np.hypot(*(named[name][1:] - np.array(yz))) < 8.0, name

"""Patients of SPIDER that neither the network was trained on nor the numbering fitted to."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from leakloc.centerline import Centerline
from leakloc.levels import label
from leakloc.settings import LevelSettings
from leakloc.volume import Volume
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
@pytest.mark.parametrize("patient", ["045", "069", "127", "220"])
def test_every_disc_of_a_patient_has_its_name(patient):
    import nibabel as nib

    path = DATA / "spider" / f"spider-{patient}_T2SPACE.nii.gz"
    if not path.is_file():
        pytest.skip("the public volumes are not here; set LEAKLOC_DATA")
    volume = Volume.from_nibabel(nib.load(path))
    mask = Volume.from_nibabel(nib.load(path.with_name(f"spider-{patient}_mask.nii.gz")))
    truth = json.loads(path.with_name(f"spider-{patient}_discs.json").read_text())
    segmentation = blind_segmentation(volume, canal_line(mask))
    levels = label(volume, {}, segmentation, LevelSettings())
    found = {disc.name: disc.center_lps for disc in levels.discs}
    for disc in truth["discs"]:
        true = np.array(disc["ras_mm"]) * (-1, -1, 1)
        assert np.linalg.norm(found[disc["name"]] - true) < 6.0, disc["name"]

"""The base installation has no SimpleITK."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from leakloc.core.volume import Geometry, Volume

SAMPLE = Path(__file__).parents[1] / "sample_data" / "postoperative" / "dicom"
BLOCKED = "import sys; sys.modules['SimpleITK'] = None\n"
GRID = Geometry.from_axes((5, 6, 7), origin_lps=(1, 2, 3), spacing_ijk_mm=(1.0, 1.5, 2.0))


def without_simpleitk(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BLOCKED + code, *arguments],
        capture_output=True, text=True, check=True, env=os.environ,
    )  # fmt: skip


def test_volumes_are_read(tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    volume = Volume(np.arange(210, dtype=np.int16).reshape(GRID.shape), GRID)
    for name in ("a.mha", "b.nrrd"):
        sitk.WriteImage(volume.to_sitk(), tmp_path / name, useCompression=True)
    nib.save(volume.to_nibabel(), tmp_path / "c.nii.gz")
    code = (
        "import leakloc as ll\n"
        "for path in sys.argv[1:]:\n"
        "    volume = ll.load(path).stacks[0].load()\n"
        "    print(int(volume.array[4, 5, 6]), volume.geometry.origin_lps.tolist())\n"
    )
    read = without_simpleitk(code, *(str(path) for path in sorted(tmp_path.iterdir())))
    assert read.stdout.splitlines() == ["209 [1.0, 2.0, 3.0]"] * 3


def test_every_module_of_an_analysis_is_imported():
    code = "import leakloc.services.batch.preload, leakloc.validation.evaluation.baseline\n"
    without_simpleitk(code)


def test_conversion_names_the_extra():
    code = (
        "import numpy as np\n"
        "from leakloc.core.errors import SettingsError\n"
        "from leakloc.core.volume import Geometry, Volume\n"
        "volume = Volume(np.zeros((2, 2, 2)), Geometry((2, 2, 2), np.eye(4)))\n"
        "try:\n"
        "    volume.to_sitk()\n"
        "except SettingsError as error:\n"
        "    print(error)\n"
    )
    shown = without_simpleitk(code).stdout
    assert shown == "this needs SimpleITK: pip install 'leakloc[sitk]'\n"


@pytest.mark.slow
def test_a_study_is_analyzed(tmp_path):
    code = "from leakloc.cli import main; main(sys.argv[1:])\n"
    without_simpleitk(code, "analyze", str(SAMPLE), "-o", str(tmp_path / "out"), "--quiet")
    assert json.loads((tmp_path / "out" / "report.json").read_text())["finding"]

"""Run time and peak memory of each stage on a 320 x 320 x 160 study with its companion.

Run by `make bench`. Reading is compared with plain SimpleITK on the same series.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from leakloc.anatomy.spine import Spine
from leakloc.core.settings import Settings
from leakloc.levels import label
from leakloc.loaders import load_study, triage
from leakloc.localization import localize
from leakloc.pipeline import analyze
from leakloc.segmentation import segment
from leakloc.validation.phantom import SCENARIOS, make_phantom, write_study

SETTINGS = Settings()
BENCHMARK_SEED = 0


@pytest.fixture(scope="session")
def study_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    scenario = replace(SCENARIOS["postoperative_dorsal"], myelogram_shape=(320, 320, 160))
    write_study(make_phantom(scenario, BENCHMARK_SEED), folder)
    return folder / "dicom"


@pytest.fixture(scope="session")
def chosen(study_folder):
    return triage(load_study(study_folder, SETTINGS.loaders), SETTINGS.loaders)


@pytest.fixture(scope="session")
def segmentation(chosen):
    return segment(chosen.spine, chosen.companions, SETTINGS.segmentation)


def test_scan_headers(benchmark, study_folder):
    benchmark.pedantic(load_study, (study_folder, SETTINGS.loaders), rounds=3, warmup_rounds=1)


def test_read_myelogram(benchmark, study_folder, chosen):
    uid = chosen.myelogram.provenance.series_instance_uid
    study = load_study(study_folder, SETTINGS.loaders)
    stack = next(s for s in study.stacks if s.series_instance_uid == uid)
    benchmark.pedantic(stack.load, rounds=3, warmup_rounds=1)


def test_read_myelogram_with_plain_simpleitk(benchmark, study_folder, chosen):
    import SimpleITK as sitk

    uid = chosen.myelogram.provenance.series_instance_uid

    def read() -> None:
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(study_folder), uid))
        reader.Execute()

    benchmark.pedantic(read, rounds=3, warmup_rounds=1)


def test_segmentation(benchmark, chosen):
    def run() -> None:
        segment(Spine(chosen.myelogram), chosen.companions, SETTINGS.segmentation)

    benchmark.pedantic(run, rounds=3, warmup_rounds=1)


def test_levels(benchmark, chosen, segmentation):
    arguments = (chosen.spine, chosen.companions, segmentation, SETTINGS.levels)
    benchmark.pedantic(label, arguments, rounds=3, warmup_rounds=1)


def test_localization(benchmark, chosen, segmentation):
    levels = label(chosen.spine, chosen.companions, segmentation, SETTINGS.levels)
    arguments = (segmentation, levels, SETTINGS.localization)
    benchmark.pedantic(localize, arguments, rounds=3, warmup_rounds=1)


def test_whole_study_with_all_outputs(benchmark, study_folder, tmp_path):
    def whole() -> None:
        analyze(study_folder, SETTINGS, output=tmp_path / "out", overwrite=True)

    benchmark.pedantic(whole, rounds=3, warmup_rounds=1)


def test_whole_command_in_a_fresh_process(benchmark, study_folder, tmp_path):
    command = [sys.executable, "-m", "leakloc", "analyze", str(study_folder), "-o"]

    def run() -> None:
        out = Path(tmp_path) / "fresh"
        subprocess.run([*command, str(out), "--overwrite"], check=True, capture_output=True)

    benchmark.pedantic(run, rounds=2)
    # A child inherits the peak memory of this process; a small intermediate process avoids this.
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    small = [sys.executable, "-c", code, *command, str(tmp_path / "fresh"), "--overwrite"]
    peak_kb = int(subprocess.run(small, check=True, capture_output=True).stdout)
    benchmark.extra_info["peak_memory_mb"] = round(peak_kb / 1024)
    print(f"\npeak memory of the command: {peak_kb / 1024:.0f} MB")


def test_relabelling_in_a_fresh_process(benchmark, study_folder, tmp_path):
    out = tmp_path / "out"
    analyze(study_folder, SETTINGS, output=out)
    command = [sys.executable, "-m", "leakloc", "relabel", str(out), "--lumbar-count", "6"]

    def run() -> None:
        subprocess.run(command, check=True, capture_output=True)

    benchmark.pedantic(run, rounds=5, warmup_rounds=1)

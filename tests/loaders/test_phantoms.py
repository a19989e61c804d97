"""Triage on studies as five vendors would write them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from leakloc.errors import InputError
from leakloc.loaders import load_study, triage
from leakloc.phantom import SCENARIOS, make_phantom, write_study

VENDORS = ["siemens", "ge", "philips", "canon", "uih"]
pytestmark = pytest.mark.slow


def written(name, vendor, folder, settings):
    coarse = replace(
        SCENARIOS[name],
        vendor=vendor,
        myelogram_shape=(96, 96, 36),
        companion_matrix=96,
        slice_mm=3.0,
        optional_series=(),
    )
    write_study(make_phantom(coarse, 3), folder, truth=False)
    return load_study(folder, settings)


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("name", ["normal", "anonymised_headers"])
def test_myelogram_and_sagittal_t2_are_found(name, vendor, settings, tmp_path):
    result = triage(written(name, vendor, tmp_path, settings), settings)
    used = [item for item in result.stacks if "fluid" in item.used_for]
    assert [item.role for item in used] == ["myelogram"]
    assert used[0].stack.n_instances == 36
    assert "sagittal_t2" in result.companions
    roles = [item.role for item in result.stacks]
    assert roles.count("localizer") == 3
    assert roles.count("projection") == 2
    assert result.notes == ()


@pytest.mark.parametrize("vendor", VENDORS)
def test_slabs_alone_are_refused(vendor, settings, tmp_path):
    with pytest.raises(InputError, match="thick-slab"):
        triage(written("slab_only", vendor, tmp_path, settings), settings)


def test_stations_are_joined_on_the_composed_grid(settings, tmp_path):
    study = written("three_stations", "siemens", tmp_path, settings)
    result = triage(study, settings)
    assert [note.code for note in result.notes] == ["stations_stitched"]
    composed = max(study.stacks, key=lambda s: 0 if s.geometry is None else s.geometry.shape[1])
    assert result.myelogram.geometry.matches(composed.geometry)

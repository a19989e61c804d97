from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from leakloc.loaders import triage
from leakloc.loaders.stations import adjoin, find_stations, stitch
from leakloc.loaders.study import SeriesStack, Study, StudyInfo
from leakloc.settings import LoaderSettings
from leakloc.volume import Geometry, Volume

WHOLE = Geometry.from_axes(
    (24, 200, 40),
    origin_lps=(-12.0, -20.0, 100.0),
    spacing_ijk_mm=(1.1, 0.9, 1.3),
    directions_lps=np.array([[0, 0, -1.0], [1, 0, 0], [0, -1, 0]]),
    frame_of_reference_uid="1.2.3",
)
PARTS = [slice(0, 90), slice(60, 150), slice(120, 200)]  # head first, 30 rows overlap


def truth() -> np.ndarray:
    rng = np.random.default_rng(0)
    array = rng.uniform(0, 30, WHOLE.shape)
    array[9:14, :, 17:22] = 1000 + rng.uniform(-20, 20, (5, 200, 5))
    return array.astype(np.float32)


def stack(rows: slice, gain: float = 1.0, description: str = "myelo", **extra) -> SeriesStack:
    box = (slice(0, 24), rows, slice(0, 40))
    volume = Volume((gain * truth()[box]).astype(np.uint16), WHOLE.cropped(box))
    number = rows.start + 1 + 1000 * (rows.stop == 200 and rows.start == 0)
    values = {
        "series_instance_uid": f"1.2.{number}",
        "description": description,
        "modality": "MR",
        "n_instances": 24,
        "parameters": {"EchoTime": 600.0, "MRAcquisitionType": "3D"},
        "geometry": volume.geometry,
        "files": (Path("x"),),
        "sop_instance_uids": (),
        "read": lambda: volume,
        "series_number": number,
    }
    return SeriesStack(**{**values, **extra})


def test_stations_are_told_from_repeats_and_from_the_whole():
    stations = [stack(rows) for rows in PARTS]
    assert find_stations(stations).parts == (0, 1, 2)
    assert find_stations(stations).whole is None
    assert adjoin(stations)
    assert not adjoin([stations[0], stations[2]])
    assert not adjoin(stations[:1])
    whole = stack(slice(0, 200))
    assert find_stations([stations[1], whole, stations[0]]).whole == 1
    repeat = stack(slice(0, 88))
    assert find_stations([stations[0], repeat]).whole == 0
    other = replace(stations[1], parameters={"EchoTime": 90.0})
    assert find_stations([stations[0], other]).whole == 0
    elsewhere = replace(
        stations[1], geometry=replace(stations[1].geometry, frame_of_reference_uid="9")
    )
    assert find_stations([stations[0], elsewhere]).whole == 0


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_joined_stations_are_the_body_they_were_cut_from(order):
    volumes = [stack(PARTS[n], gain).load() for n, gain in zip(order, (0.8, 1.2, 1.0), strict=True)]
    joined = stitch(volumes)
    assert joined.geometry.matches(WHOLE, tolerance_mm=1e-6)
    assert joined.geometry.frame_of_reference_uid == "1.2.3"
    reference = 1.0 if order[-1] == 2 else dict(zip(order, (0.8, 1.2, 1.0), strict=True))[2]
    bright = truth() > 500
    error = np.abs(joined.array / reference - truth())[bright]
    assert error.max() < 30  # the gains are matched on noisy fluid to 1 %
    assert joined.array.dtype == np.uint16
    assert "3 stations" in joined.provenance.steps[0]


def test_no_seam_shows_across_an_overlap():
    joined = stitch([stack(PARTS[0], 0.75).load(), stack(PARTS[1], 1.25).load()])
    profile = joined.array[9:14, :, 17:22].mean(axis=(0, 2))
    assert np.abs(np.diff(profile)).max() < 0.02 * profile.mean()


def test_stations_shifted_by_parts_of_a_voxel_are_resampled():
    upper, lower = stack(PARTS[0]).load(), stack(PARTS[1]).load()
    affine = upper.geometry.affine_lps.copy()
    affine[:3, 3] += [0.4, 0.3, 0.2]
    moved = Volume(upper.array, Geometry(upper.array.shape, affine, "1.2.3"))
    joined = stitch([moved, lower])
    assert joined.geometry.spacing_ijk_mm == pytest.approx(WHOLE.spacing_ijk_mm)
    inside = joined.sample(WHOLE.lps_from_kji([[11, 100, 19]]))
    assert inside[0] == pytest.approx(1000, rel=0.05)


def test_triage_joins_and_says_so():
    stations = [stack(rows, gain) for rows, gain in zip(PARTS, (0.8, 1.2, 1.0), strict=True)]
    result = triage(Study(StudyInfo(), tuple(stations)), LoaderSettings())
    assert [note.code for note in result.notes] == ["stations_stitched"]
    assert result.myelogram.geometry.shape == WHOLE.shape
    assert [item.used_for for item in result.stacks] == [("fluid", "levels")] * 3


def test_a_series_composed_by_the_scanner_is_taken_as_it_is():
    stacks = [*(stack(rows) for rows in PARTS), stack(slice(0, 200), description="")]
    result = triage(Study(StudyInfo(), tuple(stacks)), LoaderSettings())
    assert result.myelogram is stacks[3].load()
    assert result.notes == ()


def test_without_overlap_the_lumbar_station_is_taken():
    stations = [stack(PARTS[0]), stack(PARTS[2])]
    result = triage(Study(StudyInfo(), tuple(stations)), LoaderSettings())
    assert [note.code for note in result.notes] == ["one_of_several_stations"]
    assert result.myelogram is stations[1].load()

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from leakloc.core.errors import InputError
from leakloc.core.settings import LoaderSettings
from leakloc.core.volume import Geometry, Volume
from leakloc.loaders import triage
from leakloc.loaders.stations import adjoin, compose_stations, find_stations, neighbors
from leakloc.loaders.study import SeriesStack, Study, StudyInfo

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


def test_stations_are_distinguished_from_repeats_and_from_the_composed_series():
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
    result = compose_stations(volumes, 5.0)
    joined = result.volume
    assert result.moved_mm == 0
    assert joined.geometry.matches(WHOLE, tolerance_mm=1e-6)
    assert joined.geometry.frame_of_reference_uid == "1.2.3"
    reference = 1.0 if order[-1] == 2 else dict(zip(order, (0.8, 1.2, 1.0), strict=True))[2]
    bright = truth() > 500
    error = np.abs(joined.array / reference - truth())[bright]
    assert error.max() < 30  # the gains are matched on noisy fluid to 1 %
    assert joined.array.dtype == np.uint16
    assert "3 stations" in joined.provenance.steps[0]


def test_no_seam_shows_across_an_overlap():
    joined = compose_stations(
        [stack(PARTS[0], 0.75).load(), stack(PARTS[1], 1.25).load()], 5.0
    ).volume
    profile = joined.array[9:14, :, 17:22].mean(axis=(0, 2))
    assert np.abs(np.diff(profile)).max() < 0.02 * profile.mean()


def blobs() -> np.ndarray:
    """Structure in all directions, so that a movement is detectable along each."""
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(np.random.default_rng(4).normal(size=WHOLE.shape), 2.0)
    return (500 + 300 * noise / noise.std()).clip(0, 2000).astype(np.float32)


@pytest.mark.parametrize("movement", [(0.0, 1.8, 0.0), (1.3, -0.9, 1.1), (0.0, 0.0, 0.0)])
def test_a_patient_who_moved_is_moved_back(movement):
    """The upper station shows the body shifted; joined, it fits the lower one again."""
    body = Volume(blobs(), WHOLE)
    affine = WHOLE.affine_lps.copy()
    affine[:3, 3] += movement
    shifted = Volume(body.array, Geometry(WHOLE.shape, affine, "1.2.3")).resample(WHOLE, order=3)
    upper = shifted.crop((slice(0, 24), slice(0, 120), slice(0, 40)))
    lower = body.crop((slice(0, 24), slice(80, 200), slice(0, 40)))
    result = compose_stations([upper, lower], 5.0)
    assert result.moved_mm == pytest.approx(np.linalg.norm(movement), abs=0.3)
    inner = (slice(4, 20), slice(10, 190), slice(5, 35))
    points = WHOLE.lps_from_kji(np.argwhere(np.ones(WHOLE.shape, dtype=bool)))
    points = points.reshape(*WHOLE.shape, 3)[inner]
    error = np.abs(result.volume.sample(points) - body.array[inner])
    assert np.median(error) < 25
    assert compose_stations([upper, lower], 0.0).moved_mm == 0


def tube_with_vertebrae() -> np.ndarray:
    """Uniform CSF in an oblique canal, with vertebrae of a tenth of its signal."""
    points = WHOLE.lps_from_kji(np.argwhere(np.ones(WHOLE.shape, dtype=bool)))
    left, back, up = (points - points.mean(axis=0)).T
    canal = 1 / (1 + np.exp(np.hypot(left, back - 0.2 * up) - 5.0))
    vertebra = (back - 0.2 * up < -7) & (np.abs(left) < 9) & (np.abs(up % 21) > 6)
    return (20 + 900 * canal + 100 * vertebra).reshape(WHOLE.shape).astype(np.float32)


def test_movement_along_a_uniform_canal_is_detected_from_the_vertebrae():
    rng = np.random.default_rng(1)
    movement = np.array([0.6, -0.8, 2.4])
    affine = WHOLE.affine_lps.copy()
    affine[:3, 3] += movement
    body = Volume(tube_with_vertebrae(), WHOLE)
    shifted = Volume(body.array, Geometry(WHOLE.shape, affine, "1.2.3")).resample(WHOLE, order=1)
    noisy = [v.with_array(v.array + rng.normal(0, 8, WHOLE.shape)) for v in (body, shifted)]
    lower = noisy[0].crop((slice(0, 24), slice(80, 200), slice(0, 40)))
    upper = noisy[1].crop((slice(0, 24), slice(0, 120), slice(0, 40)))
    moved_mm = compose_stations([upper, lower], 5.0).moved_mm
    assert moved_mm == pytest.approx(np.linalg.norm(movement), abs=0.6)


def test_triage_joins_and_says_so():
    stations = [stack(rows, gain) for rows, gain in zip(PARTS, (0.8, 1.2, 1.0), strict=True)]
    result = triage(Study(StudyInfo(), tuple(stations)), LoaderSettings())
    assert [note.code for note in result.notes] == ["stations_stitched"]
    assert result.myelogram.geometry.shape == WHOLE.shape
    assert [item.used_for for item in result.stacks] == [("fluid", "levels")] * 3


def test_a_composed_series_keeps_its_grid_and_takes_the_stations_signal():
    whole = stack(slice(0, 200), 0.5, description="")
    stacks = [stack(PARTS[0], 0.8), stack(PARTS[1], 1.2), stack(PARTS[2]), whole]
    result = triage(Study(StudyInfo(), tuple(stacks)), LoaderSettings())
    assert result.myelogram.geometry.matches(whole.geometry, 1e-6)
    bright = truth() > 500
    assert np.median(result.myelogram.array[bright]) == pytest.approx(1000, rel=0.03)
    assert result.myelogram.provenance.series_instance_uid == whole.series_instance_uid
    assert [note.code for note in result.notes] == ["stations_stitched"]


def test_a_composed_series_without_all_its_stations_is_taken_as_it_is():
    stacks = [stack(PARTS[0]), stack(PARTS[1]), stack(slice(0, 200), description="")]
    result = triage(Study(StudyInfo(), tuple(stacks)), LoaderSettings())
    assert result.myelogram.array is stacks[2].load().array
    assert result.notes == ()


def test_without_overlap_the_lumbar_station_is_taken():
    stations = [stack(PARTS[0]), stack(PARTS[2])]
    result = triage(Study(StudyInfo(), tuple(stations)), LoaderSettings())
    assert [note.code for note in result.notes] == ["one_of_several_stations"]
    assert result.myelogram.array is stations[1].load().array


def turned(degrees: float, center_lps: tuple[float, float, float], **extra) -> SeriesStack:
    """A sagittal series of 160 mm about a point, turned about the left-right axis."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    axes = np.stack([[0, c, s], [0, s, -c], [1, 0, 0]], axis=1)
    half = axes @ (np.array([80, 80, 7]) * [1.0, 1.0, 4.0])
    grid = Geometry.from_axes(
        (15, 161, 161), origin_lps=list(np.array(center_lps) - half),
        spacing_ijk_mm=(1.0, 1.0, 4.0), directions_lps=axes,
        frame_of_reference_uid="1.2.3",
    )  # fmt: skip
    points = grid.lps_from_kji(np.indices(grid.shape).transpose(1, 2, 3, 0))
    volume = Volume(signal_at(points).astype(np.float32), grid)
    values = {
        "parameters": {"EchoTime": 100.0},
        "geometry": grid,
        "n_instances": 15,
        "read": lambda: volume,
        "series_instance_uid": f"1.2.{int(center_lps[2]) + 900}",
        "series_number": int(center_lps[2]) + 900,
    }
    return stack(PARTS[0], description="t2_tse_sag", **{**values, **extra})


def signal_at(points: np.ndarray) -> np.ndarray:
    """A body without edges, so that interpolation costs nothing."""
    waves = np.sin(points / 23.0).sum(axis=-1)
    return np.asarray(500 + 60 * waves)


def test_stations_planned_one_by_one_are_neighbours():
    low, middle, high = turned(0, (0, 0, 0)), turned(8, (0, 5, 120)), turned(-9, (0, 0, 240))
    assert neighbors([low, high, middle]) == (2, 1)
    assert neighbors([low, high]) == ()
    repeat = turned(2, (0, 0, 20))
    assert neighbors([low, repeat]) == ()
    other = replace(middle, parameters={"EchoTime": 12.0})
    assert neighbors([low, other]) == ()
    elsewhere = replace(middle, geometry=replace(middle.geometry, frame_of_reference_uid="9"))
    assert neighbors([low, elsewhere]) == ()


def test_turned_stations_join_without_empty_corners():
    parts = [turned(0, (0, 0, 0)), turned(8, (0, 5, 120))]
    joined = compose_stations([part.load() for part in parts], 0.0).volume
    heights = np.arange(-70.0, 180.0, 2.0)
    points = np.stack(np.meshgrid([-20.0, 0.0, 20.0], [-60.0, 0.0, 60.0], heights), axis=-1)
    shown = points[np.any([part.geometry.contains(points) for part in parts], axis=0)]
    assert len(shown) > 1000
    assert np.abs(joined.sample(shown) / signal_at(shown) - 1).max() < 0.05


def test_companion_stations_are_joined_about_the_one_that_shows_the_myelogram():
    myelogram = stack(slice(0, 200))
    center = myelogram.geometry.center_lps
    up = np.array([0.0, 0.0, 1.0])
    low = turned(0, tuple(center))
    high = turned(6, tuple(center + 120 * up))
    highest = turned(-6, tuple(center + 240 * up))
    study = Study(StudyInfo(), (highest, high, low, myelogram))
    result = triage(study, LoaderSettings(), verify=False)
    assert [n.code for n in result.notes] == ["companion_stations_stitched"]
    joined = result.companions["sagittal_t2"].geometry
    assert joined.contains([center, center + 300 * up]).all()
    assert [item.used_for for item in result.stacks] == [("levels",)] * 3 + [("fluid",)]
    alone = replace(study, stacks=(highest, low, myelogram))
    chosen = triage(alone, LoaderSettings(), verify=False)
    assert chosen.companions["sagittal_t2"].geometry.matches(low.geometry)


@pytest.mark.parametrize(
    ("description", "stated"), [("t2_space_myelo_fs", True), ("t2_space_myelo", False)]
)
def test_what_the_header_says_of_fat_goes_with_the_myelogram(description: str, stated: bool):
    study = Study(StudyInfo(), (stack(slice(0, 200), description=description),))
    assert triage(study, LoaderSettings()).myelogram.provenance.fat_suppressed is stated


def scout(lift_mm: float, rows: int, role: str = "localizer", **extra) -> SeriesStack:
    """Sagittal planes about the myelogram's middle, 2 mm voxels, reaching up from its lower end."""
    bottom = stack(slice(0, 200)).geometry.center_lps - [10.0, 60.0, 85.0]
    directions = WHOLE.directions_lps
    grid = Geometry.from_axes(
        (extra.pop("planes", 5), rows, 60),
        origin_lps=tuple(bottom + np.array([0.0, 0.0, lift_mm + 2.0 * rows])),
        spacing_ijk_mm=(2.0, 2.0, 6.0),
        directions_lps=directions,
        frame_of_reference_uid=extra.pop("frame", "1.2.3"),
    )
    volume = Volume(np.full(grid.shape, 100, np.uint16), grid)
    values = {
        "series_instance_uid": f"7.{lift_mm:.0f}.{rows}",
        "description": role,
        "modality": "MR",
        "n_instances": grid.shape[0],
        "parameters": {"EchoTime": 5.0, "ScanningSequence": "GR"},
        "geometry": grid,
        "files": (Path("x"),),
        "sop_instance_uids": (),
        "read": lambda: volume,
        "series_number": 1,
    }
    return SeriesStack(**{**values, **extra})


def counting_field(*items: SeriesStack) -> Geometry | None:
    study = Study(StudyInfo(), (stack(slice(0, 200)), *items))
    found = triage(study, LoaderSettings(), verify=False).companions.get("localizer")
    return None if found is None else found.geometry


def test_a_localizer_up_to_the_neck_is_there_to_count_levels_on():
    whole = scout(0, 300)
    assert counting_field(whole).matches(whole.geometry)
    study = Study(StudyInfo(), (whole, stack(slice(0, 200))))
    result = triage(study, LoaderSettings(), verify=False)
    assert [t.used_for for t in result.stacks] == [("levels",), ("fluid", "levels")]


def test_stations_of_a_localizer_are_joined():
    low, high = scout(0, 150), scout(260, 150)
    joined = counting_field(high, low)
    assert joined.contains([low.geometry.center_lps, high.geometry.center_lps]).all()


@pytest.mark.parametrize(
    "useless",
    [
        scout(0, 130),  # no more than the usual field
        scout(0, 300, planes=2),
        scout(0, 300, frame="9"),
        scout(300, 300),  # shows another part of the spine
        replace(scout(0, 300), read=lambda: (_ for _ in ()).throw(InputError("cut off"))),
    ],
)
def test_other_localizers_are_left_alone(useless):
    assert counting_field(useless) is None

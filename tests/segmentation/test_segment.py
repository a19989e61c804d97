"""The stage end to end, on a small analytic phantom: tapering sac, dura, cord, collection."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest

from leakloc.anatomy.canal import find_canal
from leakloc.anatomy.canal_coordinates import CanalCoordinates
from leakloc.anatomy.centerline import Centerline
from leakloc.anatomy.spine import Spine
from leakloc.core.errors import AnalysisError
from leakloc.core.settings import Settings
from leakloc.core.volume import Geometry, Volume
from leakloc.segmentation import segment
from leakloc.segmentation.collections import find_collections
from leakloc.segmentation.dura import find_dura
from leakloc.segmentation.fluid import FluidMap, map_fluid
from leakloc.segmentation.scene import Scene
from leakloc.segmentation.segment import _fat_like_fluid
from leakloc.validation.evaluation.metrics import dice, hd95_mm, match_collections

SETTINGS = Settings().segmentation


@dataclass(frozen=True)
class Mini:
    image: Volume
    sac: Volume
    fluid: Volume
    tip_z: float


def mini(
    *,
    collection: str = "none",
    noise: float = 0.03,
    bias: float = 0.5,
    fat: float = 0.08,
    tilt_deg: float = 0.0,
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    codes: str = "LPS",
) -> Mini:
    """A phantom in any grid orientation."""
    volumes = painted(collection, noise, bias, fat, tilt_deg, spacing)
    a, b, c = (v.oriented(codes) for v in volumes)
    return Mini(a, b, c, -60.0)


@cache
def painted(
    collection: str,
    noise: float,
    bias: float,
    fat: float,
    tilt_deg: float,
    spacing: tuple[float, float, float],
) -> tuple[Volume, Volume, Volume]:
    """Image, sac and fluid: half axes of 9 and 7 mm, gentle lordosis, tip 40 mm above the edge."""
    i, j, k = (round(n / mm) for n, mm in zip((64, 120, 200), spacing, strict=True))
    tilt = np.deg2rad(tilt_deg)
    turn = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    half = turn @ (np.array([i - 1, j - 1, k - 1]) * spacing / 2)
    geometry = Geometry.from_axes(
        (k, j, i), origin_lps=-half, spacing_ijk_mm=spacing, directions_lps=turn
    )
    kk, jj, ii = np.meshgrid(*(np.arange(n) for n in geometry.shape), indexing="ij")
    # Eight points per voxel: partial volume.
    image = np.zeros(geometry.shape)
    sac, fluid = np.zeros(geometry.shape), np.zeros(geometry.shape)
    for offset in np.stack(np.meshgrid(*[(-0.25, 0.25)] * 3), -1).reshape(-1, 3):
        x, y, z = np.moveaxis(geometry.lps_from_ijk(np.stack([ii, jj, kk], -1) + offset), -1, 0)
        signal, in_sac, in_fluid = _paint(x, y - 10 - 12 * (z / 100) ** 2, z, collection, fat)
        image += signal / 8
        sac += in_sac / 8
        fluid += in_fluid / 8
    rng = np.random.default_rng(0)
    y, z = geometry.lps_from_ijk(np.stack([ii, jj, kk], -1))[..., 1:].transpose(3, 0, 1, 2)
    image = image * (1 + bias * (0.4 * y / 60 + 0.5 * z / 100))
    image = np.hypot(
        image + noise * rng.normal(size=image.shape), noise * rng.normal(size=image.shape)
    )
    return (
        Volume((1000 * image).astype(np.float32), geometry),
        Volume((sac >= 0.5).astype(np.uint8), geometry),
        Volume((fluid >= 0.5).astype(np.uint8), geometry),
    )


def _paint(x, y, z, collection, fat):
    taper = np.clip((z + 60) / 30, 0, 1) ** 0.5
    a, b = 9.0 * np.maximum(taper, 1e-3), 7.0 * np.maximum(taper, 1e-3)
    r = np.hypot(x / a, y / b)
    angle = np.arctan2(y, x)
    edge = np.hypot(a * np.cos(angle), b * np.sin(angle))
    out = (r - 1) * edge
    in_sac = (out <= 0) & (z > -60)
    cord = (np.hypot(x, y) < 4.0) & (z > 40)
    thickness = np.zeros_like(x)
    if collection != "none":
        sign = 1 if collection == "dorsal" else -1
        window = np.clip((np.sin(angle) * sign + 0.1) * 2, 0, 1)
        thickness = 6.0 * window * np.clip(1 - ((z - 0) / 40) ** 2, 0, 1)
    in_fluid = (out > 0.4) & (out <= thickness) & (z > -60)
    dura = (out > 0) & (out <= 0.4) & (z > -60)
    skin = (y > 42) & (y < 48)
    signal = np.full(x.shape, 0.06)
    signal[y > 48] = 0.0
    signal[skin] = fat
    signal[in_sac] = 1.0
    signal[in_sac & cord] = 0.08
    signal[in_fluid] = 0.97
    signal[dura] = 0.03
    return signal, in_sac, in_fluid


@pytest.mark.parametrize("codes", ["LPS", "PIR"])
def test_sac_without_collection(codes):
    m = mini(codes=codes)
    result = segment(Spine(m.image), {}, SETTINGS)
    assert result.thecal_sac.geometry.matches(m.image.geometry)
    assert dice(result.thecal_sac.array, m.sac.array) > 0.94
    assert hd95_mm(result.thecal_sac, m.sac) <= 2.0
    assert not result.accepted
    assert result.fat_suppressed is True


@pytest.mark.parametrize("collection", ["dorsal", "ventral"])
def test_finds_a_collection_adjacent_to_the_sac(collection):
    m = mini(collection=collection)
    result = segment(Spine(m.image), {}, SETTINGS)
    pairs, missed, invented = match_collections(result.collections, m.fluid)
    fluid = m.fluid.with_array((m.fluid.array > 0).astype(np.uint8))
    assert (len(pairs), missed, invented) == (1, [], [])
    assert dice(result.collections.array, fluid.array) > 0.8
    assert dice(result.thecal_sac.array, m.sac.array) > 0.93
    found = result.accepted[0]
    assert "epidural" in found.compartments
    assert (found.features.dorsal_mm > 0) == (collection == "dorsal")


def test_oblique_thick_slices():
    m = mini(collection="dorsal", tilt_deg=12.0, spacing=(0.8, 0.8, 3.0))
    result = segment(Spine(m.image), {}, SETTINGS)
    assert dice(result.thecal_sac.array, m.sac.array) > 0.9
    assert len(match_collections(result.collections, m.fluid)[0]) == 1


def test_a_sac_cut_by_an_oblique_edge_reaches_the_edge():
    m = mini(tilt_deg=12.0)
    upper = (slice(90, None), slice(None), slice(None))
    image, sac = m.image.crop(upper), m.sac.crop(upper)
    result = segment(Spine(image), {}, SETTINGS)
    lowest = sac.array[:8] > 0
    assert not result.accepted
    assert (result.thecal_sac.array[:8] > 0)[lowest].mean() > 0.95
    assert "sac_tip_outside" in {note.code for note in result.notes}


def test_bright_fat_is_noticed_and_no_collection_claimed():
    m = mini(collection="dorsal", fat=0.9)
    result = segment(Spine(m.image), {}, SETTINGS)
    assert result.fat_suppressed is False
    assert not result.accepted
    assert any("fat" in note.code for note in result.notes)
    assert max(c.probability for c in result.candidates) <= 0.3


def test_saturated_signal_has_a_note():
    image = mini(collection="dorsal").image
    limited = image.with_array(np.minimum(image.array, np.quantile(image.array, 0.98)))
    for volume, expected in ((image, False), (limited, True)):
        notes = segment(Spine(volume), {}, SETTINGS).notes
        assert any(note.code == "signal_saturated" for note in notes) is expected


def test_stages_work_alone():
    m = mini(collection="dorsal")
    canal = find_canal(m.image)
    fluid = map_fluid(m.image, canal.centerline)
    assert 0.9 < np.median(fluid.fraction.array[(m.fluid.array > 0)]) <= 1.0
    # The bias field doubles the signal along the canal; the reference follows it.
    assert fluid.csf_profile.max() / fluid.csf_profile.min() > 1.2
    dura = find_dura(fluid.signal, canal.centerline)
    assert dura.tip_arc_mm is not None
    tip = dura.centerline.at(dura.tip_arc_mm)
    assert abs(tip[2] - m.tip_z) < 6.0
    labels, candidates = find_collections(Scene.of(fluid.fraction, dura, False), SETTINGS)
    assert labels.shape == m.image.array.shape
    assert any(c.accepted for c in candidates)


def test_coordinates_agree_with_projection():
    t = np.linspace(0, 1, 60)
    line = Centerline.smoothed(np.stack([4 * t, 15 * np.sin(2 * t), 60 - 120 * t], axis=1))
    geometry = Geometry.from_axes(
        (100, 50, 40), origin_lps=(-20, -25, -50), spacing_ijk_mm=(1.0, 1.1, 1.0)
    )
    coordinates = CanalCoordinates.of(geometry, line)
    rng = np.random.default_rng(1)
    voxels = rng.integers(0, geometry.shape, (300, 3))
    arc, left, dorsal = line.project(geometry.lps_from_kji(voxels))
    index = tuple(voxels.T)
    # The projection itself steps from point to point of the line (1 mm).
    assert np.abs(coordinates.arc[index] - arc).max() < 1.0
    assert np.abs(coordinates.left[index] - left).max() < 0.4
    assert np.abs(coordinates.dorsal[index] - dorsal).max() < 0.8


def noise_volume() -> Volume:
    rng = np.random.default_rng(3)
    array = np.abs(rng.normal(100, 20, (120, 100, 80))).astype(np.float32)
    return Volume(
        array, Geometry.from_axes((120, 100, 80), origin_lps=(0, 0, 0), spacing_ijk_mm=(1, 1, 1))
    )


def test_refuses_noise():
    with pytest.raises(AnalysisError, match="no spinal canal"):
        segment(Spine(noise_volume()), {}, SETTINGS)


def test_refuses_a_bright_ball():
    volume = noise_volume()
    k, j, i = np.indices(volume.array.shape)
    ball = (k - 60) ** 2 + (j - 50) ** 2 + (i - 40) ** 2 < 35**2
    with pytest.raises(AnalysisError):
        segment(
            Spine(volume.with_array(volume.array + 500 * ball.astype(np.float32))), {}, SETTINGS
        )


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_refuses_empty_and_not_finite(value):
    volume = noise_volume()
    with pytest.raises(AnalysisError):
        segment(Spine(volume.with_array(np.full_like(volume.array, value))), {}, SETTINGS)


@pytest.mark.parametrize(
    ("stated", "failed", "noise", "confusing"),
    [
        (True, False, 1.0, False),
        (True, True, 1.0, True),  # measured to have failed
        (True, False, 9.0, True),  # noise may be what looks bright
        (False, False, 1.0, True),
    ],
)
def test_the_header_is_believed_on_fat_where_nothing_speaks_against_it(
    stated, failed, noise, confusing
):
    base = mini(spacing=(4.0, 4.0, 4.0)).image
    volume = replace(base, provenance=replace(base.provenance, fat_suppressed=stated))
    fluid = FluidMap(
        volume,
        np.array([0.0, 1.0]),
        csf_profile=np.array([100.0, 100.0]),
        background_profile=np.array([60.0, 60.0]),
        csf_signal=100.0,
        noise=noise,
        fat_level=None,
        fat_suppressed=False if failed else None,
    )
    assert _fat_like_fluid(volume, fluid, SETTINGS) is confusing

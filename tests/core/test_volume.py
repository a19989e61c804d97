from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from leakloc.core.errors import GeometryError
from leakloc.core.volume import Geometry, Provenance, Volume

CODES = [
    "".join(letters) for axes in permutations(("LR", "PA", "SI")) for letters in product(*axes)
]
quick = hypothesis_settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@st.composite
def geometries(draw: st.DrawFn, largest: int = 7) -> Geometry:
    """Oblique, anisotropic, left- or right-handed, anywhere in space."""
    angles = [draw(st.floats(-180, 180)) for _ in range(3)]
    axes = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    axes = axes[:, list(draw(st.permutations(range(3))))]
    axes = axes * np.array([draw(st.sampled_from([-1.0, 1.0])) for _ in range(3)])
    spacing = [draw(st.floats(0.3, 6.0)) for _ in range(3)]
    shape = tuple(draw(st.integers(1, largest)) for _ in range(3))
    origin = [draw(st.floats(-900, 900)) for _ in range(3)]
    return Geometry.from_axes(shape, origin_lps=origin, spacing_ijk_mm=spacing, directions_lps=axes)


@st.composite
def volumes(draw: st.DrawFn, dtype: type = np.int16, smallest: int = 1) -> Volume:
    geometry = draw(geometries())
    shape = tuple(max(n, smallest) for n in geometry.shape)
    values = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    return Volume(values, Geometry(shape, geometry.affine_lps, "1.2"), Provenance("made"))


def places(volume: Volume) -> dict[int, np.ndarray]:
    """LPS place of every (unique) value."""
    kji = np.argwhere(np.ones(volume.array.shape, dtype=bool))
    points = volume.geometry.lps_from_kji(kji)
    return dict(zip(volume.array.ravel().tolist(), points, strict=True))


def assert_same_places(one: Volume, other: Volume, atol: float) -> None:
    first, second = places(one), places(other)
    assert first.keys() == second.keys()
    gap = max(np.abs(first[value] - second[value]).max() for value in first)
    assert gap <= atol


@quick
@given(geometries(), st.lists(st.tuples(*[st.floats(-50, 50)] * 3), min_size=1, max_size=5))
def test_indices_and_points_are_inverse(geometry: Geometry, ijk: list[tuple[float, ...]]) -> None:
    points = geometry.lps_from_ijk(ijk)
    np.testing.assert_allclose(geometry.ijk_from_lps(points), ijk, atol=1e-8)
    np.testing.assert_allclose(geometry.kji_from_lps(points), np.array(ijk)[:, ::-1], atol=1e-8)
    np.testing.assert_allclose(geometry.lps_from_kji(np.array(ijk)[:, ::-1]), points, atol=1e-9)
    expected = geometry.affine_lps @ np.append(ijk[0], 1.0)
    np.testing.assert_allclose(points[0], expected[:3], atol=1e-9)


@quick
@given(geometries())
def test_axes_rebuild_the_affine(geometry: Geometry) -> None:
    again = Geometry.from_axes(
        geometry.shape,
        origin_lps=geometry.origin_lps,
        spacing_ijk_mm=geometry.spacing_ijk_mm,
        directions_lps=geometry.directions_lps,
    )
    assert again.matches(geometry, tolerance_mm=1e-9)
    assert geometry.spacing_kji_mm == geometry.spacing_ijk_mm[::-1]
    np.testing.assert_allclose(
        geometry.voxel_volume_ml, abs(np.linalg.det(geometry.affine_lps[:3, :3])) / 1000
    )
    assert geometry.contains(geometry.center_lps)


@quick
@given(volumes())
def test_sitk_round_trip(volume: Volume) -> None:
    back = Volume.from_sitk(volume.to_sitk(), volume.provenance)
    np.testing.assert_array_equal(back.array, volume.array)
    assert back.geometry.matches(volume.geometry, tolerance_mm=1e-6)


@quick
@given(volumes())
def test_sitk_places_voxels_where_we_do(volume: Volume) -> None:
    image = volume.to_sitk()
    k, j, i = volume.array.shape
    index = (i - 1, 0, k - 1)
    ours = volume.geometry.lps_from_ijk(index)
    np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(index), ours, atol=1e-6)
    assert image[index] == volume.array[k - 1, 0, i - 1]
    assert j == image.GetSize()[1]


@quick
@given(volumes())
def test_nibabel_round_trip(volume: Volume) -> None:
    image = volume.to_nibabel()
    back = Volume.from_nibabel(image)
    np.testing.assert_array_equal(back.array, volume.array)
    assert back.geometry.matches(volume.geometry, tolerance_mm=5e-4)
    # The header keeps b, c, d in float32 and a = sqrt(1 - b2 - c2 - d2). Near half a turn, where
    # a vanishes, nibabel takes up to 3 * 2^-23 for nothing: a is off by 6e-4, the turn by twice.
    apart = np.abs(image.get_sform() - image.get_qform())
    assert (apart[:3, :3] < 1.2e-3 * np.array(volume.geometry.spacing_ijk_mm)).all()
    assert apart[:3, 3].max() < 1e-3
    assert image.header.get_xyzt_units()[0] == "mm"


@quick
@given(volumes())
def test_nibabel_is_ras(volume: Volume) -> None:
    corner = volume.to_nibabel().affine @ np.array([0, 0, 0, 1.0])
    np.testing.assert_allclose(corner[:3] * [-1, -1, 1], volume.geometry.origin_lps, atol=1e-4)


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint16, np.int64, np.float16, np.float64])
def test_every_array_type_can_be_written(dtype: type) -> None:
    geometry = Geometry((2, 3, 4), np.diag([0.5, 0.6, 0.7, 1.0]))
    volume = Volume(np.arange(24).reshape(2, 3, 4).astype(dtype), geometry)
    np.testing.assert_array_equal(Volume.from_sitk(volume.to_sitk()).array, volume.array)
    np.testing.assert_array_equal(Volume.from_nibabel(volume.to_nibabel()).array, volume.array)


@pytest.mark.parametrize("codes", CODES)
@hypothesis_settings(max_examples=4, deadline=None)
@given(volume=volumes())
def test_oriented_keeps_every_voxels_place(codes: str, volume: Volume) -> None:
    turned = volume.oriented(codes)
    assert_same_places(volume, turned, atol=1e-9)
    assert turned.geometry.frame_of_reference_uid == "1.2"
    assert turned.provenance == volume.provenance


@pytest.mark.parametrize("codes", CODES)
@hypothesis_settings(max_examples=4, deadline=None)
@given(geometry=geometries())
def test_oriented_points_as_asked(codes: str, geometry: Geometry) -> None:
    volume = Volume(np.zeros(geometry.shape), geometry).oriented(codes)
    assert volume.geometry.axis_codes == codes
    for column, letter in zip(volume.geometry.directions_lps.T, codes, strict=True):
        axis = next(n for n, pair in enumerate(("LR", "PA", "SI")) if letter in pair)
        assert column[axis] * (1 if letter in "LPS" else -1) >= -1e-12


@quick
@given(geometries())
def test_axis_codes_name_three_different_axes(geometry: Geometry) -> None:
    pairs = {letter: pair for pair in ("LR", "PA", "SI") for letter in pair}
    assert len({pairs[letter] for letter in geometry.axis_codes}) == 3


@pytest.mark.parametrize("codes", ["LLS", "LP", "LPX", "LRS", "lps"])
def test_impossible_orientations_are_refused(codes: str) -> None:
    volume = Volume(np.zeros((2, 2, 2)), Geometry((2, 2, 2), np.eye(4)))
    with pytest.raises(ValueError, match="codes"):
        volume.oriented(codes)


@quick
@given(volumes(smallest=3), st.data())
def test_crop_keeps_places(volume: Volume, data: st.DataObject) -> None:
    box = []
    for length in volume.array.shape:
        start = data.draw(st.integers(0, length - 1))
        box.append(slice(start, data.draw(st.integers(start + 1, length))))
    part = volume.crop(tuple(box))
    whole = places(volume)
    for value, point in places(part).items():
        np.testing.assert_allclose(point, whole[value], atol=1e-9)


def test_invalid_crops_are_refused() -> None:
    geometry = Geometry((4, 4, 4), np.eye(4))
    for box in [
        (slice(2, 2), slice(0, 4), slice(0, 4)),
        (slice(0, 4, 2), slice(0, 4), slice(0, 4)),
        (slice(5, 9), slice(0, 4), slice(0, 4)),
    ]:
        with pytest.raises(GeometryError, match="crop"):
            geometry.cropped(box)


@quick
@given(geometries(largest=9), st.data(), st.floats(0, 5))
def test_box_holds_its_points_and_margin(
    geometry: Geometry, data: st.DataObject, margin: float
) -> None:
    kji = [
        [data.draw(st.floats(0, n - 1)) for n in geometry.shape]
        for _ in range(data.draw(st.integers(1, 4)))
    ]
    box = geometry.box_around(geometry.lps_from_kji(kji), margin)
    for axis, (part, length, spacing) in enumerate(
        zip(box, geometry.shape, geometry.spacing_kji_mm, strict=True)
    ):
        low = min(point[axis] for point in kji) - margin / spacing
        high = max(point[axis] for point in kji) + margin / spacing
        assert part.start <= max(low, 0) + 1e-6
        assert part.stop - 1 >= min(high, length - 1) - 1e-6
        assert 0 <= part.start < part.stop <= length


def test_box_outside_is_refused() -> None:
    geometry = Geometry((4, 4, 4), np.eye(4))
    with pytest.raises(GeometryError, match="outside"):
        geometry.box_around([[100.0, 0, 0]], 1.0)


HARDLY_TURNED = np.eye(4)
HARDLY_TURNED[[0, 2], [2, 0]] = 1.5e-12, -1.5e-12


@quick
@given(geometries(), st.tuples(*[st.floats(0.3, 6.0)] * 3))
@example(Geometry((1, 1, 1), HARDLY_TURNED), (1.0, 1.0, 0.5))
def test_another_spacing_covers_the_same_field(
    geometry: Geometry, spacing: tuple[float, float, float]
) -> None:
    other = geometry.with_spacing(spacing)
    np.testing.assert_allclose(other.spacing_ijk_mm, spacing)
    np.testing.assert_allclose(other.directions_lps, geometry.directions_lps, atol=1e-12)
    corner = geometry.lps_from_ijk([-0.5, -0.5, -0.5])
    np.testing.assert_allclose(other.lps_from_ijk([-0.5, -0.5, -0.5]), corner, atol=1e-8)
    extent = np.array(geometry.shape[::-1]) * geometry.spacing_ijk_mm
    new_extent = np.array(other.shape[::-1]) * spacing
    assert (np.abs(extent - new_extent) <= np.maximum(0.5 * np.array(spacing), extent * 0) + 1e-6)[
        np.array(other.shape[::-1]) > 1
    ].all()


@quick
@given(geometries())
def test_its_own_spacing_changes_nothing(geometry: Geometry) -> None:
    assert geometry.with_spacing(geometry.spacing_ijk_mm).matches(geometry, 1e-8)


@quick
@given(volumes(dtype=np.float32, smallest=2), st.sampled_from([0, 1, 3]))
def test_resampling_onto_itself_is_the_identity(volume: Volume, order: int) -> None:
    nudged = volume.geometry.affine_lps.copy()
    nudged[:3, 3] += 2e-6  # past the shortcut for equal grids
    target = Geometry(volume.array.shape, nudged)
    moved = volume.resample(target, order=order)
    np.testing.assert_allclose(moved.array, volume.array, atol=0.01)
    assert volume.resample(volume.geometry).array is volume.array


@pytest.mark.parametrize("shape", [(2, 3, 7), (3, 2, 7), (2, 7, 7), (4, 4, 4)])
def test_cubic_interpolation_of_thin_volumes_stays_inside_the_array(
    shape: tuple[int, int, int],
) -> None:
    """ITK's B-spline read past the end of axes shorter than four."""
    volume = Volume(
        np.arange(np.prod(shape), dtype=np.float32).reshape(shape), Geometry(shape, np.eye(4))
    )
    nudged = np.eye(4)
    nudged[:3, 3] = 2e-6
    for _ in range(30):
        moved = volume.resample(Geometry(shape, nudged), order=3)
        np.testing.assert_allclose(moved.array, volume.array, atol=0.01)


def test_vanishing_cosines_do_not_upset_the_resampling() -> None:
    affine = np.zeros((4, 4))
    affine[0, 1] = affine[2, 2] = -1
    affine[1, 0], affine[1, 2], affine[2, 0] = -0.625, 3.88e-310, -2.43e-310
    affine[3, 3] = 1
    volume = Volume(np.arange(27, dtype=np.float32).reshape(3, 3, 3), Geometry((3, 3, 3), affine))
    affine = affine.copy()
    affine[:3, 3] = volume.geometry.lps_from_ijk([1, 1, 1])
    moved = volume.resample(Geometry((3, 3, 3), affine), order=0, fill=-1)
    np.testing.assert_array_equal(moved.array[:-1, :-1, :-1], volume.array[1:, 1:, 1:])


@quick
@given(volumes(dtype=np.float32, smallest=3))
def test_resampling_by_whole_voxels_is_a_shift(volume: Volume) -> None:
    affine = volume.geometry.affine_lps.copy()
    affine[:3, 3] = volume.geometry.lps_from_ijk([1, 1, 1])
    moved = volume.resample(Geometry(volume.array.shape, affine), order=0, fill=-1)
    np.testing.assert_array_equal(moved.array[:-1, :-1, :-1], volume.array[1:, 1:, 1:])
    assert (moved.array[-1] == -1).all()


@quick
@given(geometries(), geometries(), st.tuples(*[st.floats(-1, 1)] * 3))
def test_resampling_keeps_a_linear_ramp_in_place(
    source: Geometry, target: Geometry, slope: tuple[float, float, float]
) -> None:
    """A function of patient coordinates reads the same on any grid."""
    shape = (12, 12, 12)
    source = Geometry(shape, source.affine_lps)
    centered = target.affine_lps.copy()
    centered[:3, :3] *= 0.2
    centered[:3, 3] += source.center_lps - Geometry(target.shape, centered).center_lps
    target = Geometry(target.shape, centered)
    grid = source.lps_from_kji(np.argwhere(np.ones(shape, dtype=bool)))
    ramp = ((grid - source.center_lps) @ slope).reshape(shape).astype(np.float32)
    points = target.lps_from_kji(np.argwhere(np.ones(target.shape, dtype=bool)))
    inside = source.contains(points) & (
        (source.kji_from_lps(points) >= 0) & (source.kji_from_lps(points) <= 11)
    ).all(axis=-1)
    expected = (points - source.center_lps) @ slope
    volume = Volume(ramp, source)
    np.testing.assert_allclose(
        volume.resample(target).array.ravel()[inside], expected[inside], atol=1e-3
    )
    np.testing.assert_allclose(volume.sample(points)[inside], expected[inside], atol=1e-3)


def test_sampling_outside_gives_the_fill_value() -> None:
    volume = Volume(np.ones((3, 3, 3), dtype=bool), Geometry((3, 3, 3), np.eye(4)))
    values = volume.sample([[[1.0, 1.0, 1.0], [9.0, 0, 0]]], fill=-5.0)
    np.testing.assert_array_equal(values, [[1.0, -5.0]])


def test_contains_counts_whole_voxels() -> None:
    geometry = Geometry((2, 3, 4), np.diag([2.0, 1.0, 1.0, 1.0]))
    points = [[-0.9, 0, 0], [-1.1, 0, 0], [6.9, 2.4, 1.4], [6.9, 2.6, 1.4]]
    np.testing.assert_array_equal(geometry.contains(points), [True, False, True, False])


@pytest.mark.parametrize(
    "affine",
    [
        np.zeros((4, 4)),
        np.full((4, 4), np.nan),
        np.eye(3),
        np.array([[1, 0.01, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]),
    ],
)
def test_invalid_grids_are_refused(affine: np.ndarray) -> None:
    with pytest.raises(GeometryError):
        Geometry((2, 2, 2), affine)
    with pytest.raises(GeometryError):
        Geometry((2, 0, 2), np.eye(4))


def test_array_and_grid_must_fit() -> None:
    with pytest.raises(GeometryError, match="does not fit"):
        Volume(np.zeros((2, 3, 4)), Geometry((4, 3, 2), np.eye(4)))


def test_matching_measures_millimetres_at_the_corners() -> None:
    """A tiny rotation is small at the origin and large at the far corner."""
    geometry = Geometry((200, 200, 200), np.eye(4))
    turned = np.eye(4)
    turned[:3, :3] = Rotation.from_euler("z", 0.01, degrees=True).as_matrix()
    other = Geometry((200, 200, 200), turned)
    assert not geometry.matches(other)
    assert geometry.matches(other, tolerance_mm=0.1)


def test_time_axes_are_refused() -> None:
    import nibabel as nib

    image = nib.Nifti1Image(np.zeros((3, 4, 5, 2), np.int16), np.eye(4))
    with pytest.raises(GeometryError, match="three axes"):
        Volume.from_nibabel(image)
    single = nib.Nifti1Image(np.zeros((3, 4, 5, 1), np.int16), np.eye(4))
    assert Volume.from_nibabel(single).array.shape == (5, 4, 3)


def test_steps_are_remembered() -> None:
    volume = Volume(np.zeros((2, 2, 2)), Geometry((2, 2, 2), np.eye(4)), Provenance("x"))
    assert volume.with_array(volume.array + 1, "plus one").provenance.steps == ("plus one",)
    assert volume.provenance.steps == ()


def test_nearly_orthogonal_axes_are_replaced_by_orthogonal_ones() -> None:
    shape = (9, 40, 50)
    affine = Geometry.from_axes(
        shape, origin_lps=(-20.0, 5.0, 30.0), spacing_ijk_mm=(1.0, 1.5, 3.0)
    ).affine_lps.copy()
    affine[:3, 2] += 0.0009 * 3.0 * affine[:3, 1] / 1.5
    geometry = Geometry(shape, affine)
    cosines = geometry.directions_lps.T @ geometry.directions_lps
    np.testing.assert_allclose(cosines, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(geometry.spacing_ijk_mm, np.linalg.norm(affine[:3, :3], axis=0))
    corners = np.indices((2, 2, 2)).reshape(3, -1).T * (np.array(shape[::-1]) - 1)
    given = corners @ affine[:3, :3].T + affine[:3, 3]
    # Half of the angle, over half of the largest extent.
    assert np.abs(geometry.corners_lps - given).max() < 0.5 * 0.0009 * 30.0

"""Peculiarities of NIfTI, NRRD and MetaImage headers."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from leakloc.core.errors import GeometryError, InputError
from leakloc.core.volume import Geometry, Volume
from leakloc.loaders import load_study, read_mask

GRID = Geometry.from_axes(
    (8, 10, 12), origin_lps=(-20.0, 30.0, 5.0), spacing_ijk_mm=(1.0, 1.5, 3.0)
)


def made() -> Volume:
    array = np.random.default_rng(0).integers(0, 900, GRID.shape).astype(np.int16)
    return Volume(array, GRID)


def only(path, settings):
    (stack,) = load_study(path, settings).stacks
    return stack


def nifti(affine, array, unit="mm") -> nib.Nifti1Image:
    image = nib.Nifti1Image(array, affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    image.header.set_xyzt_units(unit)
    return image


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1e-3), ("micron", 1e3)])
def test_units_of_nifti_are_converted_with_a_note(settings, tmp_path, unit, factor):
    image = made().to_nibabel()
    affine = image.affine * np.array([[factor]] * 3 + [[1.0]])
    nib.save(nifti(affine, np.asarray(image.dataobj), unit), tmp_path / "a.nii.gz")
    stack = only(tmp_path, settings)
    assert [note.code for note in stack.notes] == ["units_converted"]
    volume = stack.load()
    assert volume.geometry.matches(GRID, 0.01)
    np.testing.assert_array_equal(volume.array, made().array)


@pytest.mark.parametrize(
    ("name", "factor", "before", "added"),
    [
        ("a.nrrd", 1e-3, b"kinds:", b'space units: "m" "m" "m"\n'),
        ("a.mha", 1e3, b"ElementSpacing", b"DistanceUnits = um\n"),
    ],
)
def test_units_of_other_formats_are_converted(settings, tmp_path, name, factor, before, added):
    affine = GRID.affine_lps.copy()
    affine[:3] *= factor
    path = tmp_path / name
    image = Volume(made().array, Geometry(GRID.shape, affine)).to_sitk()
    sitk.WriteImage(image, str(path))
    content = path.read_bytes()
    assert content.count(before) == 1
    path.write_bytes(content.replace(before, added + before))
    volume = only(path, settings).load()
    assert volume.geometry.matches(GRID, 0.01)


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1e-3), ("unknown", 1e-3), ("meter", 1.0)])
def test_an_implausible_unit_is_named(settings, tmp_path, unit, factor):
    image = made().to_nibabel()
    affine = image.affine * np.array([[factor]] * 3 + [[1.0]])
    nib.save(nifti(affine, np.asarray(image.dataobj), unit), tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match="the unit in the header is wrong or missing"):
        load_study(tmp_path, settings)


def disagreeing(path, change):
    image = nifti(made().to_nibabel().affine, (made().array.T > 500).astype(np.uint8))
    image.set_qform(change @ image.affine, 1)
    nib.save(image, path)
    return path


def test_mirrored_forms_of_nifti_are_refused(settings, tmp_path):
    path = disagreeing(tmp_path / "a.nii.gz", np.diag([-1.0, 1.0, 1.0, 1.0]))
    with pytest.raises(InputError, match="qform and sform of the NIfTI header disagree"):
        load_study(path, settings)
    with pytest.raises(InputError, match="qform and sform of the NIfTI header disagree"):
        read_mask(path)


def test_displaced_forms_of_nifti_are_noted_and_refused_for_masks(settings, tmp_path):
    moved = np.eye(4)
    moved[2, 3] = 40.0
    path = disagreeing(tmp_path / "a.nii.gz", moved)
    stack = only(path, settings)
    assert [note.code for note in stack.notes] == ["nifti_forms_disagree"]
    assert "40 mm" in stack.notes[0].message
    assert stack.geometry.matches(GRID)
    with pytest.raises(GeometryError, match="the position is unknown"):
        read_mask(path)


@pytest.mark.parametrize("slope", [0.0, np.nan, np.inf])
def test_an_unusable_slope_of_nifti_is_ignored(settings, tmp_path, slope):
    path = tmp_path / "a.nii"
    nib.save(made().to_nibabel(), path)
    content = bytearray(path.read_bytes())
    content[112:116] = np.float32(slope).tobytes()
    path.write_bytes(content)
    np.testing.assert_array_equal(only(path, settings).load().array, made().array)


def test_big_endian_nifti_can_be_processed(settings, tmp_path):
    image = made().to_nibabel()
    header = nib.Nifti1Header(endianness=">")
    header.set_xyzt_units("mm")
    swapped = nib.Nifti1Image(np.asarray(image.dataobj).astype(">i2"), image.affine, header)
    nib.save(swapped, tmp_path / "a.nii")
    volume = only(tmp_path / "a.nii", settings).load()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(volume.to_sitk()), made().array)


def test_values_beyond_single_precision_print_nothing(settings, tmp_path, recwarn, capfd):
    array = made().array.T.astype(np.float64)
    array[0, 0, 0] = 1e300
    nib.save(nifti(made().to_nibabel().affine, array), tmp_path / "a.nii")
    assert np.isfinite(only(tmp_path / "a.nii", settings).load().array).all()
    assert not recwarn.list
    assert capfd.readouterr() == ("", "")


def test_the_text_of_a_library_error_is_shown(settings, tmp_path):
    path = tmp_path / "a.nii"
    nib.save(made().to_nibabel(), path)
    content = bytearray(path.read_bytes())
    content[70:72] = np.int16(7777).tobytes()  # data type
    path.write_bytes(content)
    with pytest.raises(InputError, match="7777"):
        load_study(path, settings)

"""The sleeve network: position and orientation of its patches, and missing weights."""

import numpy as np
import pytest

from leakloc.anatomy.centerline import Centerline
from leakloc.core.errors import LeaklocError
from leakloc.core.volume import Geometry
from leakloc.segmentation import sleeve_network
from leakloc.segmentation.sleeve_network import SHAPE, cyst_logits, sleeve_patch

GEOMETRY = Geometry.from_axes((61, 61, 61), origin_lps=(-30, -30, -30), spacing_ijk_mm=(1, 1, 1))
LINE = Centerline.smoothed(
    np.stack([np.zeros(61), np.zeros(61), np.arange(30.0, -31.0, -1.0)], axis=1),
    step_mm=1.0,
    smoothing_mm=0.0,
)


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_axes_are_caudal_lateral_and_dorsal_on_either_side(side: float) -> None:
    x, y, z = np.moveaxis(GEOMETRY.lps_from_kji(np.moveaxis(np.indices((61,) * 3), 0, -1)), -1, 0)
    ramps = (-z, side * x, y)
    patches = [
        sleeve_patch(r.astype(np.float32), x > 0, GEOMETRY, LINE, (30.0, side * 12.5, -2.0))
        for r in ramps
    ]
    for axis, (patch, center, opposite) in enumerate(
        zip(patches, (0.0, 12.5, -2.0), (0.0, -12.5, -2.0), strict=True)
    ):
        assert patch.shape == (3, *SHAPE)
        assert patch[0].mean() == pytest.approx(center, abs=0.01)
        assert patch[2].mean() == pytest.approx(opposite, abs=0.01)
        np.testing.assert_allclose(np.diff(patch[0], axis=axis), 1.0, atol=1e-3)
        # On the opposite side, lateral is mirrored.
        np.testing.assert_allclose(
            np.diff(patch[2], axis=axis), -1.0 if axis == 1 else 1.0, atol=1e-3
        )
        assert patch[1].min() == patch[1].max() == (side > 0)


def test_no_patches_need_no_weights(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sleeve_network, "MODEL_PATH", tmp_path / "sleeves.onnx")
    assert cyst_logits([]).shape == (0,)
    with pytest.raises(LeaklocError, match="sleeve network are missing"):
        cyst_logits([np.zeros((3, *SHAPE), np.float32)])

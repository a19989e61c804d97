"""The made-up canals that the dura network learns from."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from leakloc.segmentation.dura_network import ANGLES, RADII

PIPELINES = Path(__file__).parents[2] / "pipelines"


@pytest.fixture
def pieces(monkeypatch):
    monkeypatch.syspath_prepend(str(PIPELINES))
    import dura_pieces

    yield dura_pieces
    sys.modules.pop("dura_pieces", None)


def test_pieces_are_canals(pieces) -> None:
    rng = np.random.default_rng(4)
    wet = 0
    for _ in range(10):
        piece = pieces.make_piece(rng)
        assert piece.signal.shape == (pieces.SLICES, ANGLES, RADII)
        assert np.isfinite(piece.signal).all()
        assert (piece.inside >= 0).all() and (piece.inside <= 1).all()
        # A place is inside the dura or holds fluid outside it, never both in full.
        assert (piece.inside + piece.fluid).max() < 1.2
        shown = piece.in_field & (piece.inside > 0.95)
        around = piece.in_field & (piece.inside < 0.02) & (piece.fluid < 0.02)
        assert np.median(piece.signal[shown]) > np.median(piece.signal[around])
        wet += piece.fluid.max() > 0.5
    assert 3 <= wet <= 10


def test_the_same_seed_draws_the_same_piece(pieces) -> None:
    first, second = (pieces.make_piece(np.random.default_rng(11)) for _ in range(2))
    np.testing.assert_array_equal(first.signal, second.signal)

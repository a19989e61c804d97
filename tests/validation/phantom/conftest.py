from dataclasses import replace

import pytest

from leakloc.validation.phantom import SCENARIOS, compact


def tiny(name, **changes):
    """A scenario at 2.5 mm: fast, and coarse enough to need partial volume."""
    return replace(
        compact(SCENARIOS[name]),
        myelogram_shape=(128, 80, 36),
        voxel_mm=2.5,
        slice_mm=2.5,
        companion_matrix=96,
        obliquity_deg=(3.0, 6.0),
        **changes,
    )


@pytest.fixture(scope="session")
def make_tiny():
    return tiny

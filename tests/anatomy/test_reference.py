import numpy as np
import pytest

from leakloc.anatomy.reference import reference_chain


@pytest.mark.parametrize("count", [4, 5, 6])
def test_one_disc_below_every_vertebra_but_the_last(count):
    chain = reference_chain(count)
    assert len(chain.discs) == len(chain.vertebrae) - 1 == len(chain.tilt_deg)
    assert chain.lumbar_count == count
    assert chain.discs[chain.junction] == f"L{count}-S1"
    assert (chain.pitch_mm > 0).all() and (chain.chord_mm > 10).all()


def test_first_and_last_lumbar_keep_their_shape():
    five, six = reference_chain(5), reference_chain(6)
    assert six.pitch_mm[six.vertebrae.index("L6")] == five.pitch_mm[five.vertebrae.index("L5")]
    assert six.pitch_mm[six.vertebrae.index("L1")] == five.pitch_mm[five.vertebrae.index("L1")]


def test_tilt_is_steepest_in_the_sacrum_whatever_the_lumbar_count():
    for count in (4, 5, 6):
        chain = reference_chain(count)
        assert chain.tilt_deg[chain.junction] == 33.0
        assert (np.diff(chain.tilt_deg[chain.junction - 4 :]) >= 0).all()

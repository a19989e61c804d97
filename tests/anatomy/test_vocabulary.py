from __future__ import annotations

from itertools import pairwise

import pytest

from leakloc.anatomy.vocabulary import LABEL_VALUES, segment_name, split_segment, vertebra_chain


@pytest.mark.parametrize("lumbar", [4, 5, 6])
@pytest.mark.parametrize("thoracic", [11, 12, 13])
def test_chain_is_complete_and_every_name_has_a_value_of_its_own(lumbar, thoracic):
    chain = vertebra_chain(lumbar, thoracic)
    assert len(chain) == 7 + thoracic + lumbar + 5
    assert chain[0] == "C1"
    assert chain[-1] == "S5"
    assert len({LABEL_VALUES[name] for name in chain}) == len(chain)


@pytest.mark.parametrize("counts", [(3, 12), (7, 12), (5, 10), (5, 14)])
def test_impossible_counts_are_refused(counts):
    with pytest.raises(ValueError, match="must be"):
        vertebra_chain(*counts)


def test_values_match_the_contract_example_and_published_scheme():
    assert LABEL_VALUES["L4"] == 23
    assert (LABEL_VALUES["C1"], LABEL_VALUES["T1"], LABEL_VALUES["T13"]) == (1, 8, 28)
    assert len(set(LABEL_VALUES.values())) == len(LABEL_VALUES)
    assert max(LABEL_VALUES.values()) < 256


def test_segments_split_into_their_vertebrae():
    chain = vertebra_chain()
    for upper, lower in pairwise(chain):
        assert split_segment(segment_name(upper, lower)) == (upper, lower)


@pytest.mark.parametrize("text", ["L4", "L4L5", "L4-X1", "", "4-5"])
def test_what_is_no_segment_is_refused(text):
    with pytest.raises(ValueError, match="not a motion segment"):
        split_segment(text)

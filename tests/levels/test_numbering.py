from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leakloc.anatomy.reference import FORAMEN_ABOVE_AXIS_MM
from leakloc.core.settings import LevelSettings
from leakloc.levels import numbering
from leakloc.levels.search import detect_discs
from tests.levels.spines import MadeSpine

SETTINGS = LevelSettings()


def candidates_of(spine):
    return detect_discs(spine.volume, {}, spine.centerline, spine.detect).candidates


def named(spine, **options):
    candidates = candidates_of(spine)
    solutions = numbering.solve(candidates, **options)
    found = numbering.best_of(solutions, SETTINGS)
    assert found is not None
    right = {tuple(np.round(c, 3)): n for n, c in spine.centers.items()}
    return [
        (found.chain.discs[n], right.get(tuple(np.round(candidates[m].center_lps, 3))))
        for m, n in zip(found.candidates, found.discs, strict=True)
    ], found


@settings(max_examples=12, deadline=None)
@given(
    scale=st.floats(0.88, 1.12),
    missed=st.sampled_from([(), ("L2-L3",), ("T12-L1",), ("L3-L4",)]),
    false_at=st.sampled_from([(), (0.3,), (0.52, 0.8)]),
)
def test_lumbar_chain_is_named_despite_missed_and_false_discs(scale, missed, false_at):
    spine = MadeSpine(scale=scale, missed=missed, false_at=false_at)
    pairs, found = named(spine, lumbar_counts=(5,))
    assert found.has_junction
    assert all(got == true for got, true in pairs)
    presacral = [n for n in spine.names if not n.startswith("S") and n not in missed]
    assert {got for got, _ in pairs} >= set(presacral)


def test_clipping_preserves_the_kind_of_a_high_score_disc(monkeypatch):
    """Clipping must preserve the score difference between two kinds of a high-score disc."""
    candidates = candidates_of(MadeSpine())
    scores = np.tile([15.0, 12.0, -20.0, -20.0], (len(candidates), 1))
    monkeypatch.setattr(numbering, "kind_scores", lambda _: scores)
    chain = numbering.solve(candidates, lumbar_counts=(5,))[0].chain
    evidence = numbering._local_evidence(candidates, chain)
    presacral, lumbosacral = evidence[0, 0], evidence[0, chain.junction]
    assert presacral - lumbosacral == pytest.approx(numbering._KIND_WEIGHT * 3.0)
    assert presacral == pytest.approx(
        numbering._PRIOR_LOG_ODDS + numbering._KIND_WEIGHT * numbering._MAX_KIND_EVIDENCE
    )


@pytest.mark.parametrize("count", [4, 5, 6])
def test_count_from_c2_finds_the_number_of_lumbar_vertebrae(count):
    spine = MadeSpine(first="C2-C3", lumbar_count=count, margin_mm=30.0)
    pairs, found = named(spine)
    assert found.has_c2 and found.has_junction
    assert found.chain.lumbar_count == count
    assert all(got == true for got, true in pairs)


@pytest.mark.parametrize("count", [4, 5, 6])
def test_whole_discs_between_c2_and_the_sacrum_count_in_full(count):
    candidates = candidates_of(MadeSpine(first="C2-C3", lumbar_count=count, margin_mm=30.0))
    solutions = numbering.solve(candidates)
    counted = numbering.lumbar_count_probabilities(solutions, SETTINGS, counted=True)
    looks = numbering.lumbar_count_probabilities(solutions, SETTINGS)
    assert sum(counted.values()) == pytest.approx(1.0)
    assert counted[count] == max(counted.values())
    assert counted[count] >= looks[count]


def test_pinned_candidate_carries_all_names_with_it():
    spine = MadeSpine()
    candidates = candidates_of(spine)
    index = next(
        n for n, c in enumerate(candidates) if np.allclose(c.center_lps, spine.centers["L3-L4"])
    )
    solutions = numbering.solve(candidates, lumbar_counts=(5,), pinned=(index, "L4-L5"))
    found = numbering.best_of(solutions, SETTINGS)
    names = {m: found.chain.discs[n] for m, n in zip(found.candidates, found.discs, strict=True)}
    assert names[index] == "L4-L5"
    assert names[index - 1] == "L3-L4" and names[index + 1] == "L5-S1"


def test_probability_is_normalized_and_lower_without_the_sacrum():
    _, certain = named(MadeSpine(), lumbar_counts=(5,))
    _, uncertain = named(MadeSpine(first="T10-T11", last="L2-L3"), lumbar_counts=(5,))
    assert sum(certain.shifted.values()) == pytest.approx(1.0)
    assert not uncertain.has_junction
    assert uncertain.shifted[0] < certain.shifted[0]


def test_the_foramen_magnum_names_discs_without_c2_and_sacrum():
    scale = 0.92
    spine = MadeSpine(first="C6-C7", last="T5-T6", scale=scale, margin_mm=120.0)
    without, _ = named(spine, lumbar_counts=(5,))
    assert any(got != true for got, true in without)
    chain = spine.chain
    above_mm = FORAMEN_ABOVE_AXIS_MM + chain.chord_mm[: chain.discs.index("C6-C7") + 1].sum()
    foramen_z = spine.centers["C6-C7"][2] + scale * above_mm
    candidates = [
        replace(c, below_foramen_mm=foramen_z - c.center_lps[2]) for c in candidates_of(spine)
    ]
    found = numbering.best_of(numbering.solve(candidates, lumbar_counts=(5,)), SETTINGS)
    assert [found.chain.discs[n] for n in found.discs] == list(spine.centers)


def test_nothing_to_number():
    assert numbering.solve([]) == []
    assert numbering.best_of([], SETTINGS) is None

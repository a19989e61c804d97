from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from leakloc.core.notes import Note
from leakloc.levels.result import AlternativeNumbering
from leakloc.localization import localize
from leakloc.segmentation.result import Candidate

SMALL = {"half_width_mm": 15.0, "field_mm": (60.0, 160.0), "length_mm": 300.0}


def rejected(probability, *mimics):
    return Candidate(
        0, False, probability, 0.8, np.zeros(3), "It looks like something else.", mimics,
        ("epidural",), {},
    )  # fmt: skip


def with_candidates(model, *candidates):
    segmentation = model.segmentation()
    changed = replace(segmentation, candidates=(*segmentation.candidates, *candidates))
    return localize(changed, model.levels(), model.settings)


@pytest.mark.parametrize(
    ("probability", "leak"), [(0.95, "present"), (0.6, "present"), (0.3, "indeterminate")]
)
def test_the_grade_decides(spine, crescent, probability, leak):
    model = spine(crescents=(crescent(80.0, 110.0, 4.0, probability=probability),), **SMALL)
    finding = model.localized().finding
    assert finding.leak == leak
    assert finding.level is not None
    assert finding.confidence == pytest.approx(probability, abs=0.05)


def test_a_definite_collection_precedes_a_larger_possible_one(spine, crescent):
    big = crescent(65.0, 105.0, 5.0, probability=0.3)
    sure = crescent(130.0, 145.0, 4.0)
    model = spine(crescents=(big, sure), **SMALL)
    result = model.localized()
    assert result.finding.leak == "present"
    assert result.finding.level == result.collections[1].level != result.collections[0].level
    assert "1 other collection" in result.finding.summary


def test_without_collections_absent_does_not_exclude_a_leak(spine):
    finding = spine(**SMALL).localized().finding
    assert finding.leak == "absent"
    assert finding.level is None
    assert finding.summary.startswith("No epidural fluid collection detected from ")
    assert "does not exclude a leak" in finding.summary
    assert 0.5 < finding.confidence < 0.95


def test_uncertain_candidates_lower_the_confidence_of_absent(spine):
    model = spine(**SMALL)
    plain = model.localized().finding
    doubtful = with_candidates(model, rejected(0.4, "nerve root sleeve")).finding
    assert doubtful.leak == "absent"
    assert doubtful.confidence < plain.confidence


@pytest.mark.parametrize(
    ("suppressed", "mimic", "probability", "leak"),
    [
        (False, "epidural fat", 0.4, "indeterminate"),
        (False, "epidural fat", 0.02, "absent"),
        (False, "fatigue artefact", 0.4, "absent"),
        (True, "epidural fat", 0.4, "absent"),
        (None, "epidural fat", 0.4, "absent"),
    ],
)
def test_fat_that_may_be_fluid_is_indeterminate(spine, suppressed, mimic, probability, leak):
    model = spine(fat_suppressed=suppressed, **SMALL)
    assert with_candidates(model, rejected(probability, mimic)).finding.leak == leak


def test_fat_like_fluid_without_collections_is_indeterminate(spine):
    model = spine(fat_suppressed=False, **SMALL)
    note = Note("fat_like_fluid", "Soft tissue and fat are bright.")
    segmentation = replace(model.segmentation(), notes=(note,))
    finding = localize(segmentation, model.levels(), model.settings).finding
    assert (finding.leak, finding.level) == ("indeterminate", None)
    assert model.localized().finding.leak == "absent"


@pytest.mark.parametrize("fluid", [True, False])
def test_without_a_fluid_sensitive_volume_the_finding_is_indeterminate(spine, crescent, fluid):
    crescents = (crescent(80.0, 110.0, 4.0),) if fluid else ()
    notes = (Note("no_myelogram", "There is none."),)
    result = spine(crescents=crescents, **SMALL).localized(input_notes=notes)
    assert result.finding.leak == "indeterminate"
    assert "neither shown nor ruled out" in result.finding.summary
    assert {c.grade for c in result.collections} == ({"possible"} if fluid else set())


def test_other_notes_change_nothing(spine, crescent):
    model = spine(crescents=(crescent(80.0, 110.0, 4.0),), **SMALL)
    noted = model.localized(input_notes=(Note("uneven_slices", "Spacing varies."),))
    assert noted.finding == model.localized().finding


def test_the_numbering_is_stated(spine, crescent):
    other = (AlternativeNumbering(1, 0.3, "S1 may be lumbarised"),)
    options = {**SMALL, "crescents": (crescent(80.0, 110.0, 4.0),), "alternatives": other}
    sure = spine(numbering_confidence=0.97, **options).localized().finding.summary
    unsure = spine(numbering_confidence=0.7, **options).localized().finding.summary
    assert "numbering assumes five lumbar vertebrae" in sure
    assert "(or L3-L4 if numbered otherwise)" in unsure and "otherwise" not in sure
    # A level of the set is not named again.
    long = {**options, "crescents": (crescent(60.0, 135.0, 4.0),)}
    named = spine(numbering_confidence=0.7, **long).localized()
    (found,) = named.collections
    assert "L3-L4" in found.level_set
    assert "largest at L2-L3 or L3-L4" in named.finding.summary
    assert "otherwise" not in named.finding.summary
    unnamed = spine(status="unlabelled", **options).localized().finding.summary
    assert "vertebral levels could not be named" in unnamed
    assert not re.search(r"\b[CTLS]\d", unnamed)


# --- forbidden statements (no diagnosis, tear, dose, needle, technique, exclusion) ------

FORBIDDEN = (
    r"\btears?\b", r"\btorn\b", r"extravasation", r"\bconfirm", r"\bdiagnos", r"\bdose",
    r"\bneedle", r"\bcatheter", r"\bpatch\b", r"\binject", r"\brecommend", r"\bshould\b",
    r"\bmust\b", r"\bsafe", r"\btrajectory", r"\btuohy", r"\bpuncture", r"\bleak at\b",
    r"\bleak (is|was)\b", r"no leak", r"leak (present|absent|found|seen)", r"\brules? out\b",
    r"(?<!not )(?<!not tell CSF )\bexcludes?\b", r"\bcertain", r"\bis (csf|cerebrospinal)\b",
    r"CSF (leak|collection)", r"\bsite of\b",
)  # fmt: skip


def sentences_of(result):
    yield result.finding.summary
    for note in result.notes:
        yield note.message
    for collection in result.collections:
        yield from collection.basis
        yield collection.extent.cranial.description
        yield collection.extent.caudal.description
        for alternative in collection.alternatives:
            yield from alternative.basis


@pytest.fixture(scope="module")
def results(spine, crescent):
    return tuple(every_kind_of_result(spine, crescent))


def every_kind_of_result(spine, crescent):
    other = (AlternativeNumbering(1, 0.3, "S1 may be lumbarised"),)
    fluids = {
        "none": (),
        "dorsal": (crescent(80.0, 130.0, 4.0),),
        "ring": (crescent(80.0, 130.0, 3.0, half_angle_deg=180.0),),
        "two": (crescent(70.0, 90.0, 4.0), crescent(120.0, 150.0, 4.0, toward_deg=90.0)),
        "tiny": (crescent(80.0, 83.0, 1.6, toward_deg=-90.0, half_angle_deg=15.0),),
        "doubtful": (crescent(80.0, 110.0, 4.0, 180.0, probability=0.3),),
        "fat": (crescent(80.0, 110.0, 4.0, mimics=("epidural fat",)),),
        "apart": (crescent(80.0, 110.0, 4.0, inner_mm=11.0),),
        "bulk": (
            crescent(80.0, 110.0, 24.0, compartments=("epidural", "paraspinal", "subcutaneous")),
        ),
        "edge": (crescent(55.0, 165.0, 4.0),),
    }
    for fluid in fluids.values():
        for fat_suppressed, noise, status in (
            (True, 10.0, "labelled"),
            (False, 300.0, "partial"),
            (None, 0.0, "unlabelled"),
        ):
            model = spine(
                crescents=fluid, fat_suppressed=fat_suppressed, noise=noise, status=status,
                numbering_confidence=0.7, alternatives=other, spacing_ijk_mm=(2.0, 2.0, 2.0),
                half_width_mm=34.0, field_mm=(60.0, 160.0),
            )  # fmt: skip
            segmentation = model.segmentation()
            fatty = replace(
                segmentation,
                candidates=(*segmentation.candidates, rejected(0.4, "epidural fat")),
            )
            for notes in ((), (Note("no_myelogram", "There is none."),)):
                yield localize(fatty, model.levels(), model.settings, input_notes=notes)
    full = spine(crescents=fluids["dorsal"], half_width_mm=15.0, spacing_ijk_mm=(1.5, 1.5, 1.5))
    yield full.localized()
    stretched = replace(full.levels(), discs=())
    near = tuple(v for v in stretched.vertebrae if v.name not in ("T12", "L1", "L2"))
    renamed = tuple(
        replace(v, name={"L3": "L5", "L4": "S1", "L5": "S2", "S1": "S3", "S2": "S4"}[v.name])
        for v in near
        if v.name in ("L3", "L4", "L5", "S1", "S2")
    )
    yield localize(full.segmentation(), replace(stretched, vertebrae=renamed), full.settings)


def test_no_sentence_exceeds_the_evidence_of_images(results):
    seen = set()
    for result in results:
        seen.update(sentences_of(result))
    assert len(seen) > 60
    for words in (
        "possible", "circumferential", "not exclude", "neither shown", "numbered differently",
        "noisy", "hardly thicker", "so small", "may be fluid or epidural fat", "No contact",
        "could not be named", "reaches the cranial end", "hiatus",
    ):  # fmt: skip
        assert any(words.lower() in sentence.lower() for sentence in seen), words
    for sentence in seen:
        for pattern in FORBIDDEN:
            assert not re.search(pattern, sentence, re.IGNORECASE), (pattern, sentence)


def test_every_summary_is_one_sentence(results):
    for result in results:
        summary = result.finding.summary
        assert summary[0].isupper() and summary.endswith(".")
        assert not re.search(r"[.!?]\s", summary), summary


def test_summary_names_each_segment_of_the_level_set(spine, crescent):
    even = spine(crescents=(crescent(70.0, 150.0, 4.0),), **SMALL).localized()
    (collection,) = even.collections
    assert collection.level_set[0] == collection.level
    assert len(collection.level_set) > 1
    assert set(collection.level_set) <= set(collection.segments)
    assert f"largest at {' or '.join(collection.level_set)}" in even.finding.summary
    focal = spine(crescents=(crescent(100.0, 108.0, 4.0),), **SMALL).localized()
    assert focal.collections[0].level_set == (focal.collections[0].level,)


@pytest.mark.parametrize("with_fluid", [False, True])
def test_an_incomplete_myelogram_is_indeterminate(spine, crescent, with_fluid):
    crescents = (crescent(80.0, 110.0, 4.0),) if with_fluid else ()
    model = spine(crescents=crescents, **SMALL)
    left_out = Note("series_incomplete", "20 of 72 slices of series 3 were not used")
    result = localize(model.segmentation(), model.levels(), model.settings, input_notes=(left_out,))
    assert result.finding.leak == "indeterminate"
    assert "slices could not be used" in result.finding.summary
    assert [c.grade for c in result.collections] == ["definite"] * with_fluid

import os
from pathlib import Path

import pytest

from leakloc.core.settings import Settings
from leakloc.validation.evaluation import evaluate_spider, spider_text

DATA = Path(os.environ.get("LEAKLOC_DATA", Path(__file__).parents[4] / "shared" / "data"))


@pytest.mark.data
def test_one_patient_is_compared_with_discs_and_landmarks():
    if not (DATA / "spider" / "spider-239_T2SPACE.nii.gz").is_file():
        pytest.skip("the public volumes are not here; set LEAKLOC_DATA")
    (case,) = evaluate_spider(DATA / "spider", Settings(), patients=["239"])
    assert case.discs_correct == case.discs_true == 7
    assert set(case.sacral_error_mm) == {"S1-S2", "S2-S3"}
    assert max(case.sacral_error_mm.values()) < 8.0
    assert case.cord_detected and abs(case.cord_error_mm) <= 6.0
    text = spider_text([case])
    assert "Sacral discs (2)" in text and "detected in 1 of 1" in text

"""Comparison of the CSF volume with published volumes."""

from itertools import pairwise

import pytest

from leakloc.anatomy.vocabulary import segment_name, vertebra_chain
from leakloc.localization.result import CaudalEnd, SacSegment
from leakloc.report import build_report
from leakloc.report.csf_reference import THORACOLUMBAR, WHOLE_SPINE, csf_volume_ml, reference_volume

CHAIN = vertebra_chain()


@pytest.fixture
def with_sac(analysis):
    """A report whose sac has 2 mL of CSF in each segment between two vertebrae."""
    report = build_report(analysis)

    def make(first, last, end="S2", without=None):
        names = CHAIN[CHAIN.index(first) : CHAIN.index(last) + 1]
        parts = tuple(
            SacSegment(segment=segment_name(a, b), volume_ml=3.0, min_area_mm2=1.0,
                       mean_area_mm2=1.0, csf_volume_ml=2.0)
            for a, b in pairwise(names) if a != without
        )  # fmt: skip
        caudal_end = CaudalEnd(lps_mm=(0.0, 0.0, 0.0), level=end)
        sac = report.thecal_sac.model_copy(update={"by_segment": parts, "caudal_end": caudal_end})
        return report.model_copy(update={"thecal_sac": sac})

    return make


def test_half_of_the_first_segment_is_below_its_disc(with_sac):
    # Half of T11-T12, and seven complete segments down to S1-S2.
    assert csf_volume_ml(with_sac("T10", "S2"), THORACOLUMBAR) == pytest.approx(1 + 7 * 2)


def test_an_incomplete_sac_has_no_volume(with_sac):
    assert csf_volume_ml(with_sac("T12", "S2"), THORACOLUMBAR) is None
    assert csf_volume_ml(with_sac("T11", "S2", without="L3"), THORACOLUMBAR) is None
    assert csf_volume_ml(with_sac("T11", "S2", end="S3"), THORACOLUMBAR) is None
    assert csf_volume_ml(with_sac("T11", "S2", end=None), THORACOLUMBAR) is None
    assert csf_volume_ml(with_sac("T11", "S2"), WHOLE_SPINE) is None


def test_the_largest_complete_part_is_compared(with_sac):
    whole, part, short = with_sac("C1", "S2"), with_sac("T11", "S2"), with_sac("L1", "S2")
    found = reference_volume(whole, whole)
    assert found.published is WHOLE_SPINE
    assert found.volumes_ml == (2.0 * (CHAIN.index("S2") - CHAIN.index("C2")),) * 2
    assert reference_volume(part, short).published is THORACOLUMBAR
    assert reference_volume(part, short).volumes_ml == (pytest.approx(15.0), None)
    assert reference_volume(short, short) is None

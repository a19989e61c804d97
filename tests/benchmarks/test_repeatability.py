"""Summary of the repeatability benchmark."""

import numpy as np
import pytest

from tests.benchmarks.test_numbering import load


@pytest.fixture(scope="module")
def repeatability():
    return load("repeatability")


def test_change_is_two_standard_deviations_of_the_difference(repeatability):
    rng = np.random.default_rng(0)
    values = 100.0 + rng.normal(0.0, 1.0, (20_000, 2))
    pairs = [tuple(pair) for pair in values]
    assert repeatability.change_of(pairs) == pytest.approx(2 * np.sqrt(2), rel=0.03)
    relative = repeatability.change_of(pairs, relative=True)
    assert relative == pytest.approx(2 * np.sqrt(2), rel=0.03)


def test_csf_is_compared_in_common_segments(repeatability):
    def scan(**csf_ml):
        return repeatability.Scan("phantom", "a", 0, True, "present", 1, 1.0, 10.0, csf_ml, {})

    assert repeatability.csf_pair(scan(a=1.0, b=2.0), scan(b=2.5, c=9.0)) == (2.0, 2.5)


def test_scans_with_another_protocol_are_a_group(repeatability):
    def scan(group, same_protocol):
        return repeatability.Scan(group, "a", 0, same_protocol, "present", 1, 1.0, 10.0, {}, {})

    first, other = (scan(repeatability.SIMULATED, same) for same in (True, False))
    assert repeatability.group_of(first, first).endswith("same protocol")
    assert repeatability.group_of(first, other).endswith("another protocol")
    assert repeatability.group_of(scan("phantom", True), scan("phantom", True)) == "phantom"

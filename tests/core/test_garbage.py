"""Frequency of garbage collection."""

import gc

import pytest

from leakloc.core.garbage import collect_rarely


@pytest.fixture(autouse=True)
def _restored():
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def test_few_collections_while_many_objects_are_created():
    def collections():
        before = gc.get_stats()[0]["collections"]
        objects = [[] for _ in range(50_000)]
        return gc.get_stats()[0]["collections"] - before, len(objects)

    gc.set_threshold(700)
    frequent, _ = collections()
    collect_rarely()
    rare, _ = collections()
    assert frequent > 50
    assert rare <= 1

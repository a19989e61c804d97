"""Sessions of the shipped networks: threads they may use."""

import pytest

from leakloc.anatomy import network as anatomy_network
from leakloc.core.networks import network_session


def threads_of(wanted):
    session = network_session(anatomy_network.MODEL_PATH, "anatomy", wanted)
    return session.get_session_options().intra_op_num_threads


@pytest.mark.parametrize(("allowed", "used"), [("1", 1), ("2", 2), ("8,4", 3), ("0", 1)])
def test_a_scheduler_bounds_the_threads(monkeypatch, allowed, used):
    monkeypatch.setenv("OMP_NUM_THREADS", allowed)
    assert threads_of(3) == used


def test_the_cores_bound_the_threads(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert threads_of(1) == 1
    assert threads_of(9) == 2


def test_a_session_is_made_once(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    first = network_session(anatomy_network.MODEL_PATH, "anatomy", 1)
    assert network_session(anatomy_network.MODEL_PATH, "anatomy", 4) is first

"""Sessions of the shipped networks: threads they may use."""

import pytest

from leakloc.anatomy import network as anatomy_network
from leakloc.core.networks import network_session


def session():
    return network_session(anatomy_network.MODEL_PATH, "anatomy")


def threads():
    return session().get_session_options().intra_op_num_threads


@pytest.mark.parametrize(("allowed", "used"), [("1", 1), ("2", 2), ("8,4", 2), ("0", 1)])
def test_a_scheduler_bounds_the_threads(monkeypatch, allowed, used):
    monkeypatch.setenv("OMP_NUM_THREADS", allowed)
    assert threads() == used


@pytest.mark.parametrize(("cores", "used"), [(1, 1), (8, 2)])
def test_the_cores_bound_the_threads(monkeypatch, cores, used):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert threads() == used


def test_a_session_is_created_once(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert session() is session()

"""A quick node's settings, small studies to send to it, and a peer that takes results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydicom.uid import generate_uid

from leakloc.core.settings import Settings

if TYPE_CHECKING:
    from tests.services.node.peers import Archive

collect_ignore_glob = [] if find_spec("pynetdicom") else ["*.py"]  # the extra `node`
ROOT = Path(__file__).parents[3]
SMALL = (6, 16, 16)


@pytest.fixture(autouse=True)
def _fakes_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.fixture(scope="session")
def quick() -> Settings:
    """A node that does not wait long."""
    return Settings().changed(
        node__settle_s=0.5, node__min_free_mib=0, node__resend_s=0.3, node__poll_s=0.3
    )


@pytest.fixture
def study(series: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """Write a small MR study; gives its series."""

    def make(name: str = "study", shape: tuple[int, int, int] = SMALL, **tags: Any) -> Any:
        made = series(shape=shape, study_uid=str(generate_uid()))
        return made.set(PatientName="Doe^Jane", **tags).write(tmp_path / name)

    return make


@pytest.fixture
def archive() -> Iterator[Archive]:
    from tests.services.node.peers import Archive

    peer = Archive()
    yield peer
    peer.stop()

from __future__ import annotations

import pytest

from leakloc.core.settings import LoaderSettings


@pytest.fixture
def settings() -> LoaderSettings:
    return LoaderSettings()

"""Fixtures that several rooms' tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# No test fails on a clock.
settings.register_profile("clockless", deadline=None)
settings.load_profile("clockless")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of open real files; tests that need it are skipped, with the reason, when it is not there."""
    folder = os.environ.get("CLINICAL_SYMILE_REAL_DATA")
    if not folder:
        pytest.skip("CLINICAL_SYMILE_REAL_DATA is not set: the open real files are not here")
    if not Path(folder).is_dir():
        pytest.fail(f"CLINICAL_SYMILE_REAL_DATA={folder} is not a folder")
    return Path(folder)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests first: a mistake shows within seconds. The order is otherwise that of the files."""
    items.sort(key=lambda item: any(item.get_closest_marker(name) for name in ("slow", "browser")))

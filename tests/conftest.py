"""Fixtures that several rooms' tests share."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# No test fails on a clock.
settings.register_profile("clockless", deadline=None)
settings.load_profile("clockless")


@pytest.fixture(autouse=True)
def process_is_left_as_it_was() -> Iterator[None]:
    """Puts back what commands, servers and browsers set for a whole process: log handlers, levels, signal handlers."""
    loggers = [logging.getLogger(), logging.getLogger("clinical_symile")]
    before = [(list(log.handlers), log.level, log.propagate) for log in loggers]
    signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for log, (handlers, level, propagate) in zip(loggers, before, strict=True):
        log.handlers[:], log.propagate = handlers, propagate
        log.setLevel(level)
    for number, handler in signals.items():
        if handler is not None:  # None: it was not Python that set it
            signal.signal(number, handler)


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

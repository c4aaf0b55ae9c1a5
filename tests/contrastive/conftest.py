"""Processes for tests of what happens across ranks."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def ranks() -> Iterator[Any]:
    """``distributed/ranks.py``'s ``Ranks``: ``ranks.run(k, function, *args)``, ``ranks.outcomes(k, function, *args)``."""
    if sys.platform == "win32":
        pytest.skip("the processes talk over inherited sockets")
    # A dataclass needs its module to be known under its name.
    spec = importlib.util.spec_from_file_location("ranks", Path(__file__).parent / "distributed" / "ranks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["ranks"] = module
    spec.loader.exec_module(module)
    pool = module.Ranks()
    yield pool
    pool.close()


@pytest.fixture
def run_ranks(ranks: Any) -> Callable[..., list[Any]]:
    """``run_ranks(k, function, *args)``: what the function returned on each of k ranks that form a gloo group."""
    return ranks.run

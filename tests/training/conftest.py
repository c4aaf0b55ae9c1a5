"""A tiny model and random admissions, shared with the script that is killed at every moment."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """The module ``crash_points``: ``MODEL``, ``TRAIN``, ``tiny_data``."""
    spec = importlib.util.spec_from_file_location("crash_points", Path(__file__).with_name("crash_points.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _one_thread():
    """Sums in one order: results are equal to the last bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)

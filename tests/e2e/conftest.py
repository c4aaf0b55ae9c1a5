"""A tiny but whole configuration, and the command line as a subprocess."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TINY = """
simulation: {admissions: 90, synergy: 0.5, seed: 3}
cohort: {val_fraction: 0.2, test_fraction: 0.3, candidates: 4}
model: {cxr_encoder: small, ecg_encoder: small, labs_hidden: [16], embed_dim: 16, logit_scale_init: -1.0}
train: {negative_sampling: n, epochs: 3, batch_size: 16, lr: 0.003, weight_decay: 0.01, select_by: loss}
evaluate: {bootstrap: 2000}
"""

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny configuration as a file."""
    file = tmp_path_factory.mktemp("config") / "tiny.yaml"
    file.write_text(TINY)
    return file


@pytest.fixture(scope="session")
def cli() -> Cli:
    """Runs ``clinical-symile`` and, unless told otherwise, expects success."""

    def call(*arguments: str | Path, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(command(*arguments), capture_output=True, text=True, check=False, timeout=600, env=environment())
        if code is not None:
            assert done.returncode == code, f"{arguments}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return call


def command(*arguments: str | Path) -> list[str]:
    """The command line as a list."""
    return [sys.executable, "-m", "clinical_symile", *map(str, arguments)]


def environment() -> dict[str, str]:
    """One thread, so that results are the same to the last bit and tests do not starve each other."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def manifest(folder: Path) -> dict[str, Any]:
    """A stage's manifest."""
    loaded: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return loaded

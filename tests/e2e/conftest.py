"""A tiny but whole configuration, and the command line as a subprocess."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

TINY = """
simulation: {admissions: 90, synergy: 0.5, seed: 3}
cohort: {val_fraction: 0.2, test_fraction: 0.3, candidates: 4}
model: {cxr_encoder: small, ecg_encoder: small, labs_hidden: [16], embed_dim: 16, logit_scale_init: -1.0}
train: {negative_sampling: n, epochs: 3, batch_size: 16, lr: 0.003, weight_decay: 0.01, select_by: loss}
evaluate: {bootstrap: 2000}
"""

# With synergy 0 one look at either modality tells the X-ray, so a tiny model learns enough to pass the gate.
LEARNABLE = """
simulation: {admissions: 200, synergy: 0, seed: 1}
cohort: {val_fraction: 0.2, test_fraction: 0.3, candidates: 5}
model: {cxr_encoder: small, ecg_encoder: small, labs_hidden: [32], embed_dim: 16, logit_scale_init: -1.5}
train: {negative_sampling: n, epochs: 12, batch_size: 16, lr: 0.004, weight_decay: 0.01, schedule: cosine, select_by: loss}
"""

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny configuration as a file."""
    file = tmp_path_factory.mktemp("config") / "tiny.yaml"
    file.write_text(TINY)
    return file


@pytest.fixture(scope="session")
def learnable_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration whose models are above chance."""
    file = tmp_path_factory.mktemp("config") / "learnable.yaml"
    file.write_text(LEARNABLE)
    return file


@pytest.fixture(scope="session")
def start() -> Callable[..., subprocess.Popen[str]]:
    """Starts ``clinical-symile`` in a process group of its own.

    One thread: then results are the same to the last bit, and tests do not starve each other.
    """
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

    def call(*arguments: str | Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "clinical_symile", *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, text=True, env=one_thread, start_new_session=True, **pipes)

    return call


@pytest.fixture(scope="session")
def cli(start: Callable[..., subprocess.Popen[str]]) -> Cli:
    """Runs ``clinical-symile`` to its end and, unless told otherwise, expects success; never a traceback."""

    def call(*arguments: str | Path, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        process = start(*arguments)
        stdout, stderr = process.communicate(timeout=900)
        if code is not None:
            assert process.returncode == code, f"{arguments}\n{stdout}\n{stderr}"
        assert "Traceback" not in stderr, stderr
        return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)

    return call

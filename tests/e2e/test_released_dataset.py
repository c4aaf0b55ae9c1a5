"""``clinical-symile import dataset`` as a researcher runs it: the whole path afterwards, kill -9 in the middle, memory."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import psutil
import pytest

Cli = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]

CONFIG = """
hospital: {access: synthetic}
model: {cxr_encoder: small, ecg_encoder: small, labs_hidden: [16], embed_dim: 16, logit_scale_init: -1.0}
train: {negative_sampling: n, epochs: 1, batch_size: 16, lr: 0.003, weight_decay: 0.01, select_by: loss}
evaluate: {bootstrap: 100}
"""


@pytest.fixture(scope="module")
def writer() -> ModuleType:
    """The module that writes made-up releases."""
    file = Path(__file__).parent.parent / "benchmarks" / "released_dataset.py"
    spec = importlib.util.spec_from_file_location("released_dataset", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def release(writer: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """150 admissions, some 350 MB; removed afterwards."""
    folder = tmp_path_factory.mktemp("e2e_release") / "release"
    writer.write_release(folder, *writer.made_up(150), candidates=5)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("e2e_config") / "tiny.yaml"
    file.write_text(CONFIG)
    return file


@pytest.mark.slow
def test_everything_after_the_import_runs_unchanged(release: Path, config: Path, cli: Cli, tmp_path: Path) -> None:
    shared = ("--config", config, "--workspace", tmp_path / "ws")
    planned = cli("import", "dataset", release, *shared, "--dry-run")
    assert "admissions: 150 (train 132, val 11, test 7)" in planned.stdout
    assert not (tmp_path / "ws").exists()
    done = cli("import", "dataset", release, *shared)
    assert "in a split" in done.stdout
    assert "amplitude and offset in mV are not known" in done.stderr
    for stage in (("cohort",), ("prepare",), ("train",), ("evaluate", "--run", "symile"), ("index", "--run", "symile")):
        cli(*stage, *shared)
    assert "already done" in cli("import", "dataset", release, *shared).stderr
    report = json.loads((tmp_path / "ws" / "reports" / "symile" / "report.json").read_text())
    assert report["access"] == "synthetic"
    ranks = pd.read_parquet(tmp_path / "ws" / "reports" / "symile" / "ranks.parquet")
    csv = pd.read_csv(release / "test.csv")
    assert len(ranks) % csv["label_hadm_id"].nunique() == 0
    cli("prepare", *shared, "--overwrite", code=3)
    assert (tmp_path / "ws" / "dataset" / "manifest.json").exists()


@pytest.mark.slow
def test_a_killed_import_goes_on_where_it_stopped(release: Path, config: Path, cli: Cli, start: Start, tmp_path: Path) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    arguments = ("import", "dataset", release, "--config", config, "--jobs", "1", "--workspace")
    cli(*arguments, undisturbed)
    process = start(*arguments, killed)
    partial = killed / "dataset" / ".partial"
    while not list(partial.glob("*.npz")):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (killed / "dataset" / "manifest.json").exists(), "killed too late: this run would show nothing"
    chunk = min(partial.glob("*.npz"))
    finished = chunk.stat().st_mtime_ns
    prepared = cli("prepare", "--workspace", killed, "--config", config, code=6)
    assert "run 'clinical-symile import dataset DIR'" in prepared.stderr
    # Writing into the finished chunk's folder from now on must leave that chunk as it is.
    process = start(*arguments, killed)
    while process.poll() is None:
        if chunk.exists():
            assert chunk.stat().st_mtime_ns == finished, "the finished chunk was made again"
        time.sleep(0.01)
    assert process.returncode == 0, process.communicate()[1]
    process.communicate()
    for stage in ("cohort", "dataset"):
        digests = [json.loads((root / stage / "manifest.json").read_text())["digest"] for root in (undisturbed, killed)]
        assert digests[0] == digests[1]
    assert not list(killed.rglob("*.tmp"))
    assert not partial.exists()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_release(
    release: Path, writer: ModuleType, config: Path, start: Start, tmp_path: Path
) -> None:
    """Six times the training split: 0.8 GB more of tensors."""
    large = tmp_path / "large"
    n = 800
    admissions, _, ecg = writer.made_up(n)
    record, picture = ecg(20_000_000), writer.to_tensor(np.resize(np.arange(256, dtype=np.uint8), (320, 320)))
    split = np.where(np.arange(n) < n - 12, "train", np.where(np.arange(n) < n - 6, "val", "test"))
    writer.write_release(large, admissions.assign(split=split), lambda _: picture, lambda _: record, candidates=5)
    peaks = []
    for folder, workspace in ((release, tmp_path / "a"), (large, tmp_path / "b")):
        process = start("import", "dataset", folder, "--config", config, "--jobs", "1", "--quiet", "--workspace", workspace)
        peaks.append(watch_memory(process))
        assert process.returncode == 0, process.communicate()[1]
        process.communicate()
    size = sum(path.stat().st_size for path in large.rglob("*.npy"))
    shutil.rmtree(large)
    assert size > 1.1e9
    assert peaks[1] < peaks[0] + 60, f"peaks of {peaks} MB"


def watch_memory(process: subprocess.Popen[str]) -> float:
    """Largest resident size in MB that was seen until the process ended.

    Looked at from outside: what the system accounts as a process's peak starts with the peak of the process that made it.
    """
    watched, peak = psutil.Process(process.pid), 0
    while process.poll() is None:
        with contextlib.suppress(psutil.Error):
            peak = max(peak, watched.memory_info().rss)
        time.sleep(0.01)
    return peak / 1e6

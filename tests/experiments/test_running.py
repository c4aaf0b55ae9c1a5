"""How experiments are run: on any number of processes, through a kill, and with one message for wrong input."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from clinical_symile.errors import ClinicalSymileError
from clinical_symile.experiments.digits import DigitsConfig, cells
from clinical_symile.experiments.running import run_experiment
from clinical_symile.stage import RunOptions, Workspace

TINY = {"repeats": 2, "rows_train": 400, "rows_test": 50, "epochs": 1, "batch_size": 100, "hidden": 8, "embed_dim": 4}
SETTINGS = [f"--set={key}={value}" for key, value in TINY.items()]
OUTPUTS = ("results.csv", "summary.json", "figure.svg")


def command(*arguments: str, **options) -> subprocess.CompletedProcess:
    call = [sys.executable, "-m", "clinical_symile", "experiment", *arguments]
    return subprocess.run(call, capture_output=True, text=True, timeout=300, **options)


def digests(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in OUTPUTS}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which the command line ran the tiny experiment on two processes."""
    workspace = tmp_path_factory.mktemp("experiment")
    completed = command("digits", "--workspace", str(workspace), "--jobs", "2", *SETTINGS)
    assert completed.returncode == 0, completed.stderr
    assert "symile_sum" in completed.stdout
    return workspace


def test_results_summary_figure_manifest_and_mlflow_run(finished: Path) -> None:
    folder = finished / "experiments" / "digits"
    results = pd.read_csv(folder / "results.csv")
    assert list(zip(results["repeat"], results["loss"], strict=True)) == [(0, "symile"), (0, "clip"), (1, "symile"), (1, "clip")]
    assert results["accuracy_sum"].between(0, 1).all()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["counts"] == {"cells": 4, "rows": 4}
    assert manifest["config"]["epochs"] == 1
    assert set(manifest["outputs"]) == set(OUTPUTS)

    from clinical_symile.config import ExperimentConfig
    from clinical_symile.tracking import open_store

    run = open_store(Workspace(finished), ExperimentConfig()).get_run(manifest["mlflow_run"])
    assert run.info.status == "FINISHED"
    assert run.data.params["batch_size"] == "100"
    assert run.data.metrics == json.loads((folder / "summary.json").read_text())


def test_the_same_on_one_process_to_the_byte(finished: Path, tmp_path: Path) -> None:
    outcome = run_experiment("digits", DigitsConfig(**TINY), Workspace(tmp_path), RunOptions(jobs=1, quiet=True))
    assert outcome is not None
    assert digests(outcome.folder) == digests(finished / "experiments" / "digits")


def test_a_finished_experiment_is_not_run_again(finished: Path) -> None:
    results = finished / "experiments" / "digits" / "results.csv"
    before = results.stat().st_mtime_ns
    completed = command("digits", "--workspace", str(finished), *SETTINGS)
    assert "already done" in completed.stderr
    assert "symile_sum" in completed.stdout
    assert results.stat().st_mtime_ns == before


def test_another_seed_gives_other_results(finished: Path, tmp_path: Path) -> None:
    config = DigitsConfig(seed=1, **TINY)
    outcome = run_experiment("digits", config, Workspace(tmp_path), RunOptions(jobs=1, quiet=True))
    assert outcome is not None
    assert digests(outcome.folder)["results.csv"] != digests(finished / "experiments" / "digits")["results.csv"]


def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    completed = command("digits", "--workspace", str(tmp_path / "ws"), "--dry-run", *SETTINGS)
    assert completed.returncode == 0
    assert "would run" in completed.stdout
    assert "cells: 4, of which 0 are done" in completed.stdout
    assert not (tmp_path / "ws").exists()


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(finished: Path, tmp_path: Path) -> None:
    call = [
        sys.executable,
        "-m",
        "clinical_symile",
        "experiment",
        "digits",
        "--workspace",
        str(tmp_path),
        "--jobs",
        "1",
        *SETTINGS,
    ]
    records = tmp_path / "experiments" / "digits" / ".partial" / "cells.jsonl"
    with subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        deadline = time.monotonic() + 120
        while not (records.is_file() and '"rows"' in records.read_text()):
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
    whole = [line for line in records.read_text().splitlines() if line]
    assert 1 <= len(whole) < 4
    # What was being written when the power went: the beginning of a line.
    records.write_text(records.read_text() + whole[0][:25])
    state = records.read_text()

    outcome = run_experiment("digits", DigitsConfig(**TINY), Workspace(tmp_path), RunOptions(jobs=1, quiet=True))
    assert outcome is not None
    assert digests(outcome.folder) == digests(finished / "experiments" / "digits")
    assert '"rows"' in state
    assert not records.exists(), "what was kept for a restart is gone when all is done"


def test_finished_cells_are_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import clinical_symile.experiments.digits as digits

    config, calls, original = DigitsConfig(**TINY), [], digits.run_cell

    def fails_at_the_third(config, cell):
        calls.append(cell)
        if len(calls) == 3:
            raise ValueError("the loss became nan; try a smaller lr")
        return original(config, cell)

    monkeypatch.setattr(digits, "run_cell", fails_at_the_third)
    options = RunOptions(jobs=1, quiet=True)
    with pytest.raises(ClinicalSymileError, match=r"experiment digits, loss symile, repeat 1: .* smaller lr"):
        run_experiment("digits", config, Workspace(tmp_path), options)
    run_experiment("digits", config, Workspace(tmp_path), options)
    assert calls == [*cells(config)[:3], *cells(config)[2:]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digits", "--set", "epoch=3"], "unknown key 'epoch'; did you mean 'epochs'?"),
        (["digits", "--set", "epochs"], "write it as key=value, for example epochs=5"),
        (["digits", "--set", "losses=[gram]"], "losses.0 = 'gram'"),
        (["digits", "--set", "rows_train=10"], "rows_train=10 is smaller than batch_size"),
        (["digits", "--set", "losses=[clip, clip]"], "loss clip, repeat 0 would be run twice"),
        (["digits", "--set", "lr=.inf"], "lr = inf: Input should be a finite number"),
        (["digits", "--config", "digitz"], "no such preset (presets: "),
        (["digits", "--set", "share_test=0.9"], "add up to more than 1"),
    ],
)
def test_wrong_input_is_one_message(arguments: list[str], message: str, tmp_path: Path) -> None:
    completed = command(*arguments, "--workspace", str(tmp_path / "ws"))
    assert completed.returncode == 2
    assert message in completed.stderr
    assert "Traceback" not in completed.stderr
    assert not (tmp_path / "ws").exists()


def test_help_does_not_import_torch() -> None:
    probe = "import sys; sys.argv = ['x', 'experiment', '--help']\nfrom clinical_symile.cli.main import app\n"
    probe += "try:\n    app()\nexcept SystemExit:\n    pass\nprint('torch' in sys.modules)"
    completed = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert completed.stdout.strip().endswith("False")
    assert "digits" in completed.stdout

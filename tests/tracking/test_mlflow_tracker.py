"""One training run in MLflow, across interruptions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clinical_symile.config import ExperimentConfig
from clinical_symile.errors import ClinicalSymileError
from clinical_symile.stage import Workspace
from clinical_symile.tracking import MlflowTracker, open_store
from clinical_symile.tracking.mlflow_tracker import flatten

pytestmark = pytest.mark.usefixtures("store")


def run_of(workspace: Workspace, config: ExperimentConfig, run_id: str) -> Any:
    return open_store(workspace, config).get_run(run_id)


def history(workspace: Workspace, config: ExperimentConfig, run_id: str, key: str) -> list[tuple[int, float]]:
    points = open_store(workspace, config).get_metric_history(run_id, key)
    return sorted((point.step, point.value) for point in points)


def test_it_is_a_run_tracker() -> None:
    """Structural typing: training does not import this room, nor this room training; mypy checks the call in the cli."""
    tracker = pytest.importorskip("clinical_symile.training.tracker")
    import inspect

    for name in ("start", "log_metrics", "log_artifact", "finish"):
        ours, theirs = (inspect.signature(getattr(kind, name)) for kind in (MlflowTracker, tracker.RunTracker))
        assert list(ours.parameters) == list(theirs.parameters), name


def test_a_run_records_configuration_provenance_metrics_and_files(
    workspace: Workspace, config: ExperimentConfig, tmp_path: Path
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("train: {}", encoding="utf-8")
    tracker = MlflowTracker(workspace, config)
    run_id = tracker.start("symile", {"train.lr": 0.5, "steps": 7}, {"role": "test"}, None)
    tracker.log_metrics({"val/recall_at_1": 0.25, "loss": 3.0}, 1)
    tracker.log_artifact(file)
    tracker.finish("FINISHED")

    run = run_of(workspace, config, run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "symile"
    assert run.data.params["steps"] == "7"
    assert run.data.params["train.lr"] == "0.5", "what training says of a parameter wins"
    assert run.data.params["model.embed_dim"] == "8"
    assert set(flatten(config.model_dump(mode="json"))) <= set(run.data.params)
    assert run.data.tags["role"] == "test"
    assert {"config_digest", "dataset_digest", "access", "code_version"} <= set(run.data.tags)
    assert run.data.metrics == {"val/recall_at_1": 0.25, "loss": 3.0}
    (dataset,) = run.inputs.dataset_inputs
    assert run.data.tags["dataset_digest"].startswith(dataset.dataset.digest)
    assert (workspace.tracking / "artifacts" / run_id / "artifacts" / "config.yaml").is_file()


def test_a_resumed_run_is_the_same_run_without_repeated_steps(workspace: Workspace, config: ExperimentConfig) -> None:
    first = MlflowTracker(workspace, config)
    run_id = first.start("symile", {}, {}, None)
    for epoch in (1, 2, 3):
        first.log_metrics({"loss": 1 / epoch}, epoch)
    # Killed; the last checkpoint was that of epoch 2.
    second = MlflowTracker(workspace, config)
    assert second.start("symile", {}, {}, run_id) == run_id
    assert run_of(workspace, config, run_id).info.status == "RUNNING"
    for epoch in (3, 4):
        second.log_metrics({"loss": 1 / epoch, "new": 1.0}, epoch)
    second.finish("FINISHED")
    assert history(workspace, config, run_id, "loss") == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3)), (4, 0.25)]
    assert history(workspace, config, run_id, "new") == [(3, 1.0), (4, 1.0)]
    assert run_of(workspace, config, run_id).info.status == "FINISHED"


VICTIM = """
import sys, time
from pathlib import Path
from clinical_symile.config import ExperimentConfig
from clinical_symile.stage import Workspace
from clinical_symile.tracking import MlflowTracker
tracker = MlflowTracker(Workspace(Path(sys.argv[1])), ExperimentConfig.model_validate_json(sys.argv[2]))
run_id = tracker.start("symile", {}, {}, None)
tracker.log_metrics({"loss": 1.0}, 1)
print(run_id, flush=True)
time.sleep(60)
"""


def test_a_killed_process_continues_under_its_id(workspace: Workspace, config: ExperimentConfig) -> None:
    open_store(workspace, config)
    command = [sys.executable, "-c", VICTIM, str(workspace.root), config.model_dump_json()]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    run_id = process.stdout.readline().strip()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert run_of(workspace, config, run_id).info.status == "RUNNING"
    tracker = MlflowTracker(workspace, config)
    assert tracker.start("symile", {}, {}, run_id) == run_id
    tracker.log_metrics({"loss": 0.5}, 2)
    tracker.finish("FINISHED")
    assert history(workspace, config, run_id, "loss") == [(1, 1.0), (2, 0.5)]


def test_abandoned_runs_of_the_same_name_do_not_run_for_ever(workspace: Workspace, config: ExperimentConfig) -> None:
    abandoned = MlflowTracker(workspace, config).start("symile", {}, {}, None)
    other = MlflowTracker(workspace, config).start("clip", {}, {}, None)
    current = MlflowTracker(workspace, config).start("symile", {}, {}, None)
    statuses = {name: run_of(workspace, config, name).info.status for name in (abandoned, other, current)}
    assert statuses == {abandoned: "KILLED", other: "RUNNING", current: "RUNNING"}


def test_a_run_that_the_store_does_not_know_begins_anew(workspace: Workspace, config: ExperimentConfig) -> None:
    run_id = MlflowTracker(workspace, config).start("symile", {}, {}, "0123456789abcdef0123456789abcdef")
    assert run_id != "0123456789abcdef0123456789abcdef"


def test_a_store_that_fails_does_not_stop_the_training(
    workspace: Workspace, config: ExperimentConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = MlflowTracker(workspace, config)
    tracker.start("symile", {}, {}, None)
    (workspace.tracking / "mlflow.db").write_bytes(b"damaged" * 1000)
    tracker.log_metrics({"loss": 1.0}, 1)
    tracker.log_artifact(tmp_path / "missing.txt")
    tracker.finish("FINISHED")
    assert "the run goes on" in caplog.text


def test_a_tracker_that_was_not_started_says_so(workspace: Workspace, config: ExperimentConfig) -> None:
    with pytest.raises(ClinicalSymileError, match="start"):
        MlflowTracker(workspace, config).log_metrics({"loss": 1.0}, 1)


def test_flatten_names_every_leaf_once() -> None:
    assert flatten({"a": {"b": {"c": 1}, "d": [1, 2]}, "e": None}) == {"a.b.c": 1, "a.d": [1, 2], "e": None}

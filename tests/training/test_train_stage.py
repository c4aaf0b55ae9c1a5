"""The stage: what lies in ``runs/<run>/`` afterwards, who was told, and what happens when something is wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from clinical_symile.config import ExperimentConfig
from clinical_symile.errors import ConfigError, IncompleteStage
from clinical_symile.modalities.labs import LabStatistics
from clinical_symile.models import load_model, read_metadata
from clinical_symile.stage import RunOptions, Stage, Workspace, digest_file, write_json
from clinical_symile.training import NullTracker, train
from clinical_symile.training.tracker import RunStatus

QUIET = RunOptions(quiet=True)
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


class Recorder(NullTracker):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.resume_id: str | None = None
        self.steps: list[int] = []
        self.artifacts: list[str] = []
        self.status: str | None = None
        self.params: dict = {}
        self.tags: dict = {}

    def start(self, run_name: str, params: Mapping, tags: Mapping[str, str], resume_id: str | None) -> str:
        self.resume_id, self.params, self.tags = resume_id, dict(params), dict(tags)
        return resume_id or "run-1"

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        self.steps.append(step)

    def log_artifact(self, path: Path) -> None:
        assert path.is_file()
        self.artifacts.append(path.name)

    def finish(self, status: RunStatus) -> None:
        self.status = status


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a dataset of 30 random admissions, as ``prepare`` leaves it."""
    workspace = Workspace(tmp_path_factory.mktemp("ws"))
    rng = np.random.default_rng(0)
    n, side = 30, 320
    split = np.array(["train"] * 20 + ["val"] * 10)
    hadm = np.arange(100, 100 + n)
    stage = Stage("prepare", workspace.dataset, inputs={}, config={}, options=QUIET)
    with stage.writing() as run:
        folder = run.output
        arrays = {
            "cxr": rng.integers(0, 256, n * side * side, dtype=np.uint8),
            "ecg": rng.integers(-200, 200, (n, 5000, 12), dtype=np.int16),
            "ecg_scale": np.tile([200.0, 0.0], (n, 12, 1)),
            "labs": rng.random((n, 50), dtype=np.float32),
            "labs_observed": rng.integers(0, 2, (n, 50), dtype=np.uint8),
            "labs_values": rng.random((n, 50), dtype=np.float32),
        }
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)
        table = {"row": range(n), "hadm_id": hadm, "split": split, "cxr_offset": np.arange(n) * side * side}
        pd.DataFrame({**table, "cxr_height": side, "cxr_width": side}).to_parquet(folder / "manifest.parquet")
        sets = [
            ("val", int(query), p, int(hadm[20 + (i + p) % 10]), p == 0) for i, query in enumerate(hadm[20:]) for p in range(4)
        ]
        columns = ["split", "query_hadm_id", "position", "candidate_hadm_id", "is_positive"]
        pd.DataFrame(sets, columns=columns).to_parquet(folder / "candidates.parquet")
        write_json(folder / "labs_statistics.json", LabStatistics.fit(arrays["labs_values"][split == "train"]).to_json())
        run.facts.update(access="synthetic", hospital={"kind": "mimic", "access": "synthetic"})
    return workspace.root


@pytest.fixture
def workspace(tmp_path: Path, dataset: Path) -> Workspace:
    """An empty workspace with that dataset."""
    (tmp_path / "dataset").symlink_to(dataset / "dataset")
    return Workspace(tmp_path)


@pytest.fixture
def config(tiny) -> ExperimentConfig:
    """Two epochs of the tiny model."""
    return ExperimentConfig(model=tiny.MODEL, train=tiny.TRAIN.model_copy(update={"epochs": 2}))


def test_a_run_leaves_a_usable_model_and_its_history(workspace: Workspace, config: ExperimentConfig) -> None:
    tracker = Recorder()
    manifest = train(config, workspace, QUIET, tracker)
    run = workspace.run("symile")
    assert sorted(manifest["outputs"]) == [
        f"checkpoints/best-{manifest['best_epoch']:05d}.safetensors",
        "checkpoints/last.safetensors",
        "config.yaml",
        "metrics.jsonl",
        *(f"model/{name}" for name in ("SHA256SUMS", "labs_statistics.json", "model.json", "model.safetensors")),
        "run.json",
    ]
    assert manifest["counts"] == {"train": 20, "val": 10, "epochs": 2, "steps": 4}
    assert manifest["inputs"]["dataset"] == json.loads((workspace.dataset / "manifest.json").read_text())["digest"]
    assert (manifest["loss"], manifest["access"], manifest["hospital"]["kind"]) == ("symile", "synthetic", "mimic")
    assert 0 <= manifest["best"]["accuracy_10way"] <= 1
    assert ExperimentConfig.model_validate(yaml.safe_load((run / "config.yaml").read_text())) == config

    metadata = read_metadata(run / "model")
    assert (metadata["loss"], metadata["access"], metadata["run"]) == ("symile", "synthetic", "symile")
    assert metadata["dataset"] == manifest["inputs"]["dataset"]
    assert metadata["epoch"] == manifest["best_epoch"]
    assert load_model(run / "model")({"labs": torch.rand(2, 100)})["labs"].shape == (2, 8)
    prepared = (workspace.dataset / "labs_statistics.json").read_text()
    assert json.loads((run / "model" / "labs_statistics.json").read_text()) == json.loads(prepared)

    assert (tracker.resume_id, tracker.steps, tracker.status) == (None, [1, 2], "FINISHED")
    assert tracker.artifacts == ["config.yaml", "metrics.jsonl", "model.json"]
    assert tracker.params["train.lr"] == config.train.lr
    assert tracker.params["model.labs_hidden"] == "[8]"
    assert tracker.tags["dataset_digest"] == metadata["dataset"]


def test_a_finished_run_is_skipped_and_a_changed_one_is_not(workspace: Workspace, config: ExperimentConfig) -> None:
    first = train(config, workspace, QUIET, NullTracker())
    idle = Recorder()
    assert train(config, workspace, QUIET, idle) == first
    assert idle.status is None
    changed = config.model_copy(update={"train": config.train.model_copy(update={"seed": 1})})
    assert train(changed, workspace, QUIET, NullTracker())["digest"] != first["digest"]


def test_equal_runs_have_equal_digests_and_each_loss_its_folder(
    workspace: Workspace, config: ExperimentConfig, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = Workspace(tmp_path_factory.mktemp("elsewhere"))
    (elsewhere.root / "dataset").symlink_to(workspace.dataset)
    here, there = (train(config, place, QUIET, NullTracker()) for place in (workspace, elsewhere))
    assert here["digest"] == there["digest"]
    assert digest_file(workspace.run("symile") / "model" / "SHA256SUMS") == digest_file(
        elsewhere.run("symile") / "model" / "SHA256SUMS"
    )
    clip = config.model_copy(update={"train": config.train.model_copy(update={"loss": "clip"})})
    assert train(clip, workspace, QUIET, NullTracker())["digest"] != here["digest"]
    assert read_metadata(workspace.run("clip") / "model")["loss"] == "clip"


@pytest.mark.parametrize(("error", "status"), [(RuntimeError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_an_interrupted_run_continues_as_the_same_tracked_run(
    workspace: Workspace, config: ExperimentConfig, error: type[BaseException], status: str
) -> None:
    class Broken(Recorder):
        def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
            super().log_metrics(metrics, step)
            if step == 1:
                raise error

    broken, after = Broken(), Recorder()
    with pytest.raises(error):
        train(config, workspace, QUIET, broken)
    assert broken.status == status
    assert not (workspace.run("symile") / "manifest.json").exists()
    manifest = train(config, workspace, QUIET, after)
    assert after.resume_id == "run-1"
    assert after.steps == [1, 2], "what the tracker may have missed is told again"
    assert manifest["counts"]["epochs"] == 2
    undisturbed = train(config, workspace, RunOptions(quiet=True, overwrite=True), NullTracker())
    assert manifest["digest"] == undisturbed["digest"]


def test_a_dry_run_says_what_it_would_do_and_writes_nothing(
    workspace: Workspace, config: ExperimentConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(config, workspace, RunOptions(dry_run=True), NullTracker()) == {}
    said = capsys.readouterr().out
    assert "20 to train on, 10 to validate on" in said
    assert "2 epochs of 2" in said
    assert "minutes, roughly" in said
    assert not workspace.run("symile").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"devices": 2}, "trains on one device"),
        pytest.param(
            {"accelerator": "gpu"},
            r"train\.accelerator = 'gpu'",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU"),
        ),
    ],
)
def test_what_cannot_be_is_refused(workspace: Workspace, config: ExperimentConfig, change: dict, message: str) -> None:
    impossible = config.model_copy(update={"train": config.train.model_copy(update=change)})
    with pytest.raises(ConfigError, match=message):
        train(impossible, workspace, QUIET, NullTracker())


def test_without_a_dataset_the_command_to_run_is_named(tmp_path: Path, config: ExperimentConfig) -> None:
    with pytest.raises(IncompleteStage, match="clinical-symile prepare"):
        train(config, Workspace(tmp_path), QUIET, NullTracker())

"""A workspace with trained and evaluated runs, as small as they can be, and with real (untrained) models."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from clinical_symile.config import ExperimentConfig, ModelConfig, RegistryConfig
from clinical_symile.models import SymileModel, save_model
from clinical_symile.stage import RunOptions, Stage, Workspace, digest_file, write_json, write_text
from clinical_symile.tracking import open_store

OPTIONS = RunOptions(quiet=True)
TINY = ModelConfig(cxr_encoder="small", ecg_encoder="small", labs_hidden=(8,), embed_dim=8)


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """MLflow may drop a database into the current folder; then a test should not do so in the repository."""
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def config() -> ExperimentConfig:
    return ExperimentConfig(model=TINY, registry=RegistryConfig(name="symile-test"))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A workspace with a dataset."""
    workspace = Workspace(tmp_path / "ws")
    with Stage("prepare", workspace.dataset, inputs={}, config={}, options=OPTIONS).writing() as writing:
        table = pa.table({"subject_id": [1, 2, 3], "split": ["train", "val", "test"]})
        pq.write_table(table, writing.output / "manifest.parquet")
        writing.facts["access"] = "synthetic"
    return workspace


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store; making one takes a second."""
    workspace = Workspace(tmp_path_factory.mktemp("store"))
    open_store(workspace, ExperimentConfig())
    return workspace.tracking / "mlflow.db"


@pytest.fixture
def store(workspace: Workspace, empty_store: Path) -> Path:
    """The workspace's store, made already."""
    workspace.tracking.mkdir(mode=0o700)
    return Path(shutil.copy(empty_store, workspace.tracking))


MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(workspace: Workspace, config: ExperimentConfig) -> MakeRun:
    """Adds a finished run with its report to the workspace."""
    digest = json.loads((workspace.dataset / "manifest.json").read_text(encoding="utf-8"))["digest"]

    def make(
        run: str = "symile",
        loss: str = "symile",
        seed: int = 0,
        accuracy: float = 0.42,
        models: Mapping[str, str] | None = None,
        **report: Any,
    ) -> Path:
        settings = {"model": TINY.model_dump(mode="json"), "train": {"loss": loss, "seed": seed}}
        train = Stage("train", workspace.run(run), inputs={"dataset": digest}, config=settings, options=OPTIONS)
        with train.writing() as writing:
            torch.manual_seed(seed)
            save_model(SymileModel(TINY), writing.output / "model", {"loss": loss, "access": "synthetic"})
        model = digest_file(workspace.run(run) / "model" / "SHA256SUMS")
        content = {
            "run": run,
            "split": "test",
            "n_queries": 100,
            "n_subjects": 90,
            "gallery_size": 100,
            "candidates": 10,
            "metrics": {run: {"accuracy_10way": _estimate(accuracy), "mrr": _estimate(accuracy / 2)}},
            "chance": {"accuracy_10way": 0.1, "mrr": 0.05},
            "paired_differences": {},
            "data": {"dataset_digest": digest},
            "models": {run: model, **(models or {})},
            "losses": {run: loss},
            "configuration": {"runs": {run: settings}},
            **report,
        }
        evaluate = Stage("evaluate", workspace.report(run), inputs={"model": model}, config=content, options=OPTIONS)
        with evaluate.writing() as writing:
            write_json(writing.output / "report.json", content)
            write_text(writing.output / "report.html", "<html>")
        return workspace.run(run) / "model"

    return make


def _estimate(value: float) -> dict[str, Any]:
    return {"value": value, "low": value - 0.08, "high": value + 0.08, "n": 100}


@pytest.fixture
def verdict(workspace: Workspace) -> Callable[..., dict[str, Any]]:
    """What governance would say of a run and a card; the two rooms do not import each other."""

    def judge(run: str, card: str, **changes: Any) -> dict[str, Any]:
        subject = {
            "model": digest_file(workspace.run(run) / "model" / "SHA256SUMS"),
            "report": digest_file(workspace.report(run) / "report.json"),
            "card": hashlib.sha256(card.encode()).hexdigest(),
            "policy": "f" * 64,
        }
        return {"action": "register", "passed": True, "subject": subject, "results": [], **changes}

    return judge

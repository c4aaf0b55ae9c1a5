"""A tiny prepared dataset and a tiny trained run, written as their stages write them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from clinical_symile.config import ExperimentConfig, ModelConfig
from clinical_symile.dataset import ArrayStore
from clinical_symile.modalities import LabStatistics
from clinical_symile.models import SymileModel, save_model
from clinical_symile.stage import RunOptions, Stage, Workspace, write_json

QUIET = RunOptions(quiet=True, jobs=1)
ADMISSIONS = 14


def _write_dataset(workspace: Workspace, seed: int = 0) -> None:
    """14 admissions of 7 people: 4 to train on, 4 val, 6 test; the last two admissions share an X-ray."""
    rng = np.random.default_rng(seed)
    stage = Stage("prepare", workspace.dataset, inputs={"cohort": str(seed)}, config={}, options=QUIET)
    with stage.writing() as writing:
        images = [rng.integers(0, 256, size=(320, 320 + 10 * (n % 3)), dtype=np.uint8) for n in range(ADMISSIONS)]
        images[-1] = images[-2]
        shapes = np.array([image.shape for image in images])
        offsets = np.concatenate([[0], np.cumsum(shapes.prod(axis=1))[:-1]])
        values = rng.normal(10, 3, size=(ADMISSIONS, 50)).astype(np.float32)
        values[rng.random(values.shape) < 0.3] = np.nan
        statistics = LabStatistics.fit(values[:4])
        percentiles, observed = statistics.transform(values)
        arrays = {
            "cxr": np.concatenate([image.ravel() for image in images]),
            "ecg": rng.integers(-1000, 1000, size=(ADMISSIONS, 5000, 12), dtype=np.int16),
            "ecg_scale": np.stack([np.full((ADMISSIONS, 12), 200.0), np.zeros((ADMISSIONS, 12))], axis=-1),
            "labs": percentiles,
            "labs_observed": observed,
            "labs_values": values,
        }
        for name, array in arrays.items():
            np.save(writing.output / f"{name}.npy", array)
        pd.DataFrame(
            {
                "row": range(ADMISSIONS),
                "hadm_id": 20_000_000 + np.arange(ADMISSIONS),
                "subject_id": 10_000_000 + np.arange(ADMISSIONS) // 2,
                "split": ["train"] * 4 + ["val"] * 4 + ["test"] * 6,
                "cxr_offset": offsets,
                "cxr_height": shapes[:, 0],
                "cxr_width": shapes[:, 1],
                "cxr_sha256": [f"{n:064x}" for n in [*range(ADMISSIONS - 1), ADMISSIONS - 2]],
                "cxr_dicom_id": [f"image-{n}" for n in range(ADMISSIONS)],
                "cxr_view": ["AP", "PA"] * (ADMISSIONS // 2),
                "gender": ["F", "M"] * (ADMISSIONS // 2),
                "age": 50,
            }
        ).to_parquet(writing.output / "manifest.parquet")
        pd.DataFrame({"split": [], "query_hadm_id": [], "position": [], "candidate_hadm_id": [], "is_positive": []}).to_parquet(
            writing.output / "candidates.parquet"
        )
        write_json(writing.output / "labs_statistics.json", statistics.to_json())
        writing.facts["access"] = "synthetic"


def _write_run(workspace: Workspace, run: str = "tiny", seed: int = 0, loss: str = "symile") -> Path:
    """An untrained model in the form of a finished run; returns the model's folder."""
    store = ArrayStore.open(workspace.dataset)
    torch.manual_seed(seed)
    model = SymileModel(ModelConfig(cxr_encoder="small", ecg_encoder="small", labs_hidden=(8,), embed_dim=6))
    stage = Stage("train", workspace.run(run), inputs={"dataset": store.digest}, config={"seed": seed}, options=QUIET)
    with stage.writing() as writing:
        save_model(model, writing.output / "model", {"loss": loss, "dataset": store.digest}, {})
    return workspace.run(run) / "model"


@pytest.fixture
def write_dataset() -> Callable[..., None]:
    """Replaces the dataset of a workspace: (workspace, seed)."""
    return _write_dataset


@pytest.fixture
def write_run() -> Callable[..., Path]:
    """Writes a run into a workspace: (workspace, run, seed, loss)."""
    return _write_run


@pytest.fixture
def config() -> ExperimentConfig:
    """Everything by default but small batches."""
    defaults = ExperimentConfig()
    return defaults.model_copy(update={"index": defaults.index.model_copy(update={"batch_size": 4})})


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A workspace with a dataset and the run ``tiny``."""
    made = Workspace(tmp_path / "workspace")
    _write_dataset(made)
    _write_run(made)
    return made

"""The whole path on real files: what hospitals and open data sets really write, with an invented pairing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clinical_symile.resources import resource_root

Cli = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = [pytest.mark.realdata, pytest.mark.slow]


@pytest.fixture(scope="module")
def workspace(real_data: Path, cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace after ``clinical-symile run`` on the real files."""
    folder = tmp_path_factory.mktemp("real-path")
    script = resource_root() / "pipelines" / "real_files.py"
    subprocess.run([sys.executable, script, real_data, folder / "hospital"], check=True)
    cli("run", *options(folder), "--quiet")
    return folder / "workspace"


def options(folder: Path) -> list[str]:
    """The preset, with the tables of this hospital."""
    tables = {"manifest": "admissions", "labs": "labs"}
    settings = [f"hospital.{key}={folder / 'hospital' / f'{name}.csv'}" for key, name in tables.items()]
    return ["--config", "real_files", "--workspace", str(folder / "workspace"), *[x for s in settings for x in ("--set", s)]]


def manifest(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())


def test_every_admission_reaches_the_dataset(workspace: Path) -> None:
    cohort, dataset = manifest(workspace / "cohort"), manifest(workspace / "dataset")
    assert cohort["counts"]["admissions"] == dataset["counts"]["admissions"] > 50
    assert dataset["counts"]["rejected"] == 0
    assert cohort["hospital"]["access"] == dataset["access"] == "open"
    rows = pd.read_parquet(workspace / "dataset" / "manifest.parquet")
    ecg = np.load(workspace / "dataset" / "ecg.npy", mmap_mode="r")
    assert ecg.shape == (len(rows), 5000, 12)
    assert (np.minimum(rows.cxr_height, rows.cxr_width) == 320).all()


def test_no_person_is_in_two_splits(workspace: Path) -> None:
    rows = pd.read_parquet(workspace / "dataset" / "manifest.parquet")
    assert (rows.groupby("subject_id").split.nunique() == 1).all()


def test_models_reports_and_a_gallery_come_out(workspace: Path) -> None:
    for loss in ("symile", "clip"):
        assert (workspace / "runs" / loss / "model" / "model.safetensors").is_file()
        assert (workspace / "reports" / loss / "report.html").stat().st_size > 1000
    galleries = list((workspace / "gallery").iterdir())
    assert len(galleries) == 1
    embeddings = np.load(galleries[0] / "embeddings.npy")
    assert np.isfinite(embeddings).all()
    assert manifest(galleries[0])["access"] == "open"


def test_a_second_run_has_nothing_to_do(workspace: Path, cli: Cli) -> None:
    before = manifest(workspace / "dataset")
    again = cli("run", *options(workspace.parent))
    assert "already done" in again.stdout + again.stderr
    assert manifest(workspace / "dataset") == before

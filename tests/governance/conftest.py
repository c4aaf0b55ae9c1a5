"""Evidence of a run that passes every check; each test breaks what it is about."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clinical_symile.governance import Evidence, load_intended_use
from clinical_symile.governance.evidence import ReportFacts, model_digest


def estimate(value: float, low: float, high: float, n: int = 120) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": n}


@pytest.fixture
def report(model_dir: Path) -> dict[str, Any]:
    """A report as ``evaluation`` writes it: Symile clearly above chance, CLIP beside it."""
    return {
        "schema_version": 1,
        "run": "symile",
        "split": "test",
        "n_queries": 120,
        "n_subjects": 100,
        "gallery_size": 120,
        "candidates": 10,
        "access": "synthetic",
        "metrics": {
            "symile": {"accuracy_10way": estimate(0.42, 0.34, 0.51), "mrr": estimate(0.2, 0.15, 0.26)},
            "clip": {"accuracy_10way": estimate(0.3, 0.22, 0.38), "mrr": estimate(0.14, 0.1, 0.19)},
        },
        "chance": {"accuracy_10way": 0.1, "mrr": 0.045},
        "oracle": {"accuracy_10way": estimate(0.6, 0.52, 0.68), "mrr": estimate(0.35, 0.3, 0.41)},
        "paired_differences": {"clip": {"accuracy_10way": estimate(0.12, 0.03, 0.21), "mrr": estimate(0.06, 0.01, 0.11)}},
        "data": {
            "dataset_digest": "d" * 64,
            "hospital_kind": "mimic",
            "simulated": True,
            "splits": {name: {"admissions": 120, "subjects": 100} for name in ("train", "val", "test")},
            "candidate_sets_with_same_patient": 0,
        },
        "models": {"symile": model_digest(model_dir), "clip": "c" * 64},
        "losses": {"symile": "symile", "clip": "clip"},
        "trained_on": {"symile": "d" * 64, "clip": "d" * 64},
        "bootstrap": {"method": "percentile, patients resampled", "resamples": 2000, "confidence": 0.95, "seed": 0},
        "configuration": {"evaluate": {"split": "test"}, "runs": {"symile": {"train": {"seed": 0}}, "clip": {}}},
        "notes": ["The data are simulated. These figures say nothing about patients."],
    }


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    """A folder like that of ``models.save_model``; governance never loads the weights."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "model.json").write_text(
        json.dumps({"format": 1, "loss": "symile", "parameters": 12_345_678, "architecture": {"embed_dim": 8}}), encoding="utf-8"
    )
    write_sums(folder)
    return folder


def write_sums(folder: Path) -> None:
    names = sorted(path.name for path in folder.iterdir() if path.name != "SHA256SUMS")
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (folder / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


@pytest.fixture
def evidence(report: dict[str, Any], model_dir: Path) -> Evidence:
    """Evidence with which every check passes."""
    return Evidence(
        run="symile",
        report=ReportFacts.model_validate(report),
        report_text=json.dumps(report),
        report_digest="e" * 64,
        model_dir=model_dir,
        model_digest=model_digest(model_dir),
        metadata=json.loads((model_dir / "model.json").read_text(encoding="utf-8")),
        code={"version": "0.1.0", "commit": "a" * 40, "modified": False},
        subjects={split: frozenset(range(start, start + 50)) for split, start in (("train", 0), ("val", 50), ("test", 100))},
        dataset_digest="d" * 64,
        intended_use=load_intended_use(),
        installed={"lightning": "2.6.6", "torch": "2.13.0+cpu", "mlflow": "3.17.2"},
    )


@pytest.fixture
def with_report(evidence: Evidence, report: dict[str, Any]) -> Callable[[Callable[[dict[str, Any]], None]], Evidence]:
    """The evidence after an edit of its report."""

    def edited(edit: Callable[[dict[str, Any]], None]) -> Evidence:
        edit(report)
        return replace(evidence, report=ReportFacts.model_validate(report), report_text=json.dumps(report))

    return edited

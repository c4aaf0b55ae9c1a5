"""A review over a handful of made-up admissions: real retrieval, a small untrained model, no file but the audit log."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from app.records import Provenance
from app.services import Review
from clinical_symile.config import ModelConfig
from clinical_symile.governance.audit import AuditLog
from clinical_symile.modalities import LabStatistics
from clinical_symile.models import SymileModel, score
from clinical_symile.retrieval import ExactIndex, Gallery
from clinical_symile.types import ECG_SAMPLES, LAB_ITEMS

ADMISSIONS = 24
WIDTH = 8


class FakeStore:
    """What the dashboard uses of ``dataset.ArrayStore``: two admissions of each of twelve people, six of them held out."""

    access = "synthetic"
    digest = "d" * 64
    ecg_is_calibrated = True

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.table = pd.DataFrame(
            {
                "hadm_id": 20_000_000 + np.arange(ADMISSIONS),
                "subject_id": 10_000_000 + np.arange(ADMISSIONS) // 2,
                "split": ["val"] * 12 + ["test"] * 12,
                "age": np.where(np.arange(ADMISSIONS) == 13, 91, 40 + np.arange(ADMISSIONS)),
                "gender": ["F", "M"] * 12,
                "cxr_dicom_id": [f"image-{n}" for n in range(ADMISSIONS)],
                "cxr_view": ["AP", "AP", "PA"] * 8,
                "cxr_sha256": [f"{n:064d}" for n in range(ADMISSIONS)],
            }
        )
        low = np.array([item.reference_low or 0 for item in LAB_ITEMS])
        high = np.array([item.reference_high or 10 for item in LAB_ITEMS])
        values = rng.uniform(low - 0.3 * (high - low), high + 0.3 * (high - low), size=(ADMISSIONS, 50)).round(1)
        self.labs_values = np.where(rng.random((ADMISSIONS, 50)) < 0.3, np.nan, values).astype(np.float32)

    def rows(self, split: str) -> np.ndarray:
        return np.flatnonzero(self.table["split"] == split)

    def ecg_mv(self, row: int) -> np.ndarray:
        beats = np.sin(np.arange(ECG_SAMPLES)[:, None] * 2 * np.pi / 400) ** 40
        return (beats * np.linspace(0.4, 1.5, 12) * (1 + row / 50)).astype(np.float32)

    def cxr(self, row: int) -> np.ndarray:
        y, x = np.mgrid[0:320, 0 : 320 + 4 * row].astype(np.float32)
        return np.clip(60 + 8 * row - y / 5 + x / 5, 0, 255).astype(np.uint8)


@pytest.fixture(autouse=True)
def main_module_is_put_back() -> Iterator[None]:
    """AppTest makes its script ``__main__``; worker processes of later tests would then run that script first, and die."""
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


@pytest.fixture
def fake_store() -> FakeStore:
    """The made-up dataset."""
    return FakeStore()


@pytest.fixture
def review(tmp_path: Path, fake_store: FakeStore) -> Review:
    """A review over it; its audit log lies in ``tmp_path``."""
    rng = np.random.default_rng(1)
    table = fake_store.table[["hadm_id", "subject_id", "cxr_dicom_id", "cxr_view", "split"]].copy()
    table.insert(0, "position", range(ADMISSIONS))
    table.insert(1, "row", range(ADMISSIONS))
    means = {modality: torch.from_numpy(rng.normal(size=(1, WIDTH)).astype(np.float32)) for modality in ("ecg", "labs")}
    embeddings = rng.normal(size=(ADMISSIONS, WIDTH)).astype(np.float32)
    facts = {"digest": "9" * 64, "access": fake_store.access}
    torch.manual_seed(0)
    return Review(
        provenance=Provenance("symile-mimic", 3, "symile", fake_store.access, ADMISSIONS, "a" * 64, "9" * 64, fake_store.digest),
        store=fake_store,
        model=SymileModel(ModelConfig(cxr_encoder="small", ecg_encoder="small", labs_hidden=(8,), embed_dim=WIDTH)).eval(),
        statistics=LabStatistics.fit(fake_store.labs_values),
        gallery=Gallery(table, ExactIndex(embeddings, functools.partial(score, "symile")), means, facts),
        audit=AuditLog(tmp_path / "audit.db"),
        scratch=tmp_path / "tmp",
    )

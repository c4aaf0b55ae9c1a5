"""A cohort of real little files on disk: JPGs and WFDB records, written here, so that each pixel and sample is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import wfdb
from PIL import Image

from clinical_symile.stage import RunOptions, Stage, Workspace
from clinical_symile.types import ECG_LEADS, LAB_ITEM_IDS

QUIET = RunOptions(quiet=True, jobs=1)
MakeCohort = Callable[..., Workspace]


def write_ecg(root: Path, name: str, rng: np.random.Generator, *, nan: bool = False) -> None:
    """A record as MIMIC writes it: format 16, 200 per mV."""
    signal = rng.integers(-400, 400, (5000, 12)) / 200
    if nan:
        signal[10, 3] = np.nan
    leads = list(ECG_LEADS)
    wfdb.wrsamp(
        name,
        500,
        ["mV"] * 12,
        leads,
        p_signal=signal,
        fmt=["16"] * 12,
        adc_gain=[200] * 12,
        baseline=[0] * 12,
        write_dir=str(root),
    )


@pytest.fixture(scope="session")
def make_cohort() -> MakeCohort:
    """Writes a workspace with a finished cohort of ``n`` admissions of ``n`` subjects; two thirds train."""

    def make(folder: Path, n: int = 24, broken: tuple[int, ...] = (), nan_ecg: tuple[int, ...] = ()) -> Workspace:
        rng = np.random.default_rng(7)
        workspace = Workspace(folder / "ws")
        files = folder / "files"
        files.mkdir(parents=True)
        for number in range(n):
            height, width = (340 + number, 400) if number % 2 else (400, 340 + number)
            picture = Image.fromarray(rng.integers(0, 256, (height, width), dtype=np.uint8))
            picture.save(files / f"{number}.jpg", quality=95)
            if number in broken:
                (files / f"{number}.jpg").write_bytes((files / f"{number}.jpg").read_bytes()[:500])
            write_ecg(files, f"e{number}", rng, nan=number in nan_ecg)
        split = np.array(["test", "val", "train", "train"] * n)[:n]
        admissions = pd.DataFrame(
            {
                "subject_id": np.arange(n) + 10_000_000,
                "hadm_id": np.arange(n) + 20_000_000,
                "split": split,
                "admittime": pd.Timestamp("2150-01-01"),
                "gender": "F",
                "age": 60,
                "race": "WHITE",
                "cxr_dicom_id": [f"d{number}" for number in range(n)],
                "cxr_path": [f"{number}.jpg" for number in range(n)],
                "cxr_view": "AP",
                "ecg_study_id": np.arange(n) + 40_000_000,
                "ecg_path": [f"e{number}" for number in range(n)],
            }
        )
        labs = rng.normal(100, 10, (n, len(LAB_ITEM_IDS)))
        labs[rng.random(labs.shape) < 0.3] = np.nan
        admissions = admissions.join(pd.DataFrame(labs, columns=list(LAB_ITEM_IDS)))
        sets = []
        for name in ("test", "val"):
            ids = admissions.loc[split == name, "hadm_id"].to_numpy()
            for place, query in enumerate(ids):
                members = np.roll(ids, -place)[:4]
                rows = {"split": name, "query_hadm_id": query, "position": range(4), "candidate_hadm_id": members}
                sets.append(pd.DataFrame(rows).assign(is_positive=members == query))
        stage = Stage("cohort", workspace.cohort, inputs={}, config={}, options=QUIET)
        with stage.writing() as run:
            admissions.to_parquet(workspace.cohort / "admissions.parquet")
            pd.concat(sets).to_parquet(workspace.cohort / "candidates.parquet")
            (workspace.cohort / "attrition.json").write_text(json.dumps([]))
            run.counts["admissions"] = n
            run.facts["hospital"] = {"kind": "mimic", "cxr_root": str(files), "ecg_root": str(files), "access": "synthetic"}
        return workspace

    return make

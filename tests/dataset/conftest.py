"""A cohort of real little files on disk, written here, so that each pixel and sample is known; and a made-up release."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import wfdb
from PIL import Image

from clinical_symile.cohort import build_cohort
from clinical_symile.config import CohortConfig, ExperimentConfig, SimulationConfig
from clinical_symile.dataset import import_released_dataset, prepare
from clinical_symile.simulation import simulate
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


def load_writer() -> ModuleType:
    """``tests/benchmarks/released_dataset.py``, which writes releases."""
    file = Path(__file__).parent.parent / "benchmarks" / "released_dataset.py"
    spec = importlib.util.spec_from_file_location("released_dataset", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Released:
    """A made-up release and the ordinary store that it should agree with.

    Attributes:
        folder: of the release.
        ordinary: a workspace in which ``cohort`` and ``prepare`` read the same admissions from raw files.
        corners: hadm_id -> where the training crop was taken.
        left_out: admissions that are in no split.
        writer: the module that wrote it.
    """

    folder: Path
    ordinary: Workspace
    corners: dict[int, tuple[int, int]]
    left_out: int
    writer: ModuleType

    def copy(self, folder: Path, *, sums: bool = False) -> Path:
        """A copy whose files are links: a test must replace a file, not write into it."""
        for path in self.folder.rglob("*"):
            if path.is_file() and (sums or path.name != "SHA256SUMS.txt"):
                target = folder / path.relative_to(self.folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.link(path, target)
        return folder


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Released]:
    """Built as the authors build it, from the raw files of a simulated hospital, with training crops at random places."""
    root = tmp_path_factory.mktemp("released")
    workspace = Workspace(root / "ordinary")
    config = ExperimentConfig(
        simulation=SimulationConfig(admissions=60, seed=5),
        cohort=CohortConfig(val_fraction=0.2, test_fraction=0.2, candidates=4),
    )
    simulate(config, workspace, QUIET)
    build_cohort(config, workspace, QUIET)
    prepare(config, workspace, QUIET)
    admissions = pd.read_parquet(workspace.cohort / "admissions.parquet")
    writer, rng, corners = load_writer(), np.random.default_rng(3), {}
    known = admissions.set_index("hadm_id")

    def cxr(hadm_id: int) -> np.ndarray:
        picture = Image.open(workspace.hospital / "mimic-cxr" / known.cxr_path[hadm_id]).convert("RGB")
        width, height = picture.size
        size = (320, int(320 * height / width)) if width <= height else (int(320 * width / height), 320)
        picture = picture.resize(size, Image.Resampling.BILINEAR)
        left, top = round((picture.width - 320) / 2), round((picture.height - 320) / 2)
        if known.split[hadm_id] == "train":
            left, top = int(rng.integers(picture.width - 319)), int(rng.integers(picture.height - 319))
            corners[hadm_id] = (top, left)
        channels = np.asarray(picture.crop((left, top, left + 320, top + 320))).transpose(2, 0, 1)
        scaled = channels.astype(np.float32) / np.float32(255)
        return (scaled - writer.MEAN[:, None, None]) / writer.STD[:, None, None]

    def ecg(hadm_id: int) -> np.ndarray:
        return writer.minmax(wfdb.rdrecord(str(workspace.hospital / "mimic-ecg" / known.ecg_path[hadm_id])).p_signal)

    # The last ones again, under other numbers.
    left_out = admissions.tail(3).assign(
        split=None, hadm_id=lambda frame: frame.hadm_id + 5_000_000, subject_id=lambda frame: frame.subject_id + 5_000_000
    )
    writer.write_release(root / "release", pd.concat([admissions, left_out]), cxr, ecg, candidates=4)
    yield Released(root / "release", workspace, corners, len(left_out), writer)
    shutil.rmtree(root)


@pytest.fixture(scope="session")
def imported(released: Released, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with the release imported. Tests must not change it."""
    workspace = Workspace(tmp_path_factory.mktemp("imported") / "ws")
    import_released_dataset(ExperimentConfig(), workspace, QUIET, released.folder)
    return workspace

"""One small simulated hospital with everything switched on, and the paper's cohort rules in plain pandas.

The rules here are slow and literal: the tests' own reading of them, independent of the package.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import wfdb

from clinical_symile.config import ExperimentConfig, SimulationConfig
from clinical_symile.simulation import simulate
from clinical_symile.stage import RunOptions, Workspace
from clinical_symile.types import LAB_ITEM_IDS

DAY = pd.Timedelta(hours=24)


@pytest.fixture(scope="session")
def configured() -> Callable[..., ExperimentConfig]:
    """Makes a configuration of 24 admissions at synergy 0.6, with the given changes."""

    def configure(**values: object) -> ExperimentConfig:
        return ExperimentConfig(simulation=SimulationConfig(**{"admissions": 24, "synergy": 0.6, **values}))

    return configure


@pytest.fixture(scope="session")
def hospital(tmp_path_factory: pytest.TempPathFactory, configured: Callable[..., ExperimentConfig]) -> Path:
    """A simulated hospital of 24 complete admissions, with quirks and DICOM files."""
    workspace = Workspace(tmp_path_factory.mktemp("quirky"))
    simulate(configured(quirks=True, dicom=True), workspace, RunOptions(jobs=1, quiet=True))
    return workspace.hospital


@pytest.fixture(scope="session")
def cohort(hospital: Path) -> pd.DataFrame:
    """What the rules select there, by hadm_id."""
    return select(hospital).set_index("hadm_id")


def select(hospital: Path) -> pd.DataFrame:
    """Admissions with all three modalities: hadm_id, ecg_study_id, cxr_dicom_id, and the 50 values."""
    hosp, cxr_root, ecg_root = hospital / "mimic-iv" / "hosp", hospital / "mimic-cxr", hospital / "mimic-ecg"
    admissions = pd.read_csv(hosp / "admissions.csv.gz", parse_dates=["admittime"])
    labs = pd.read_csv(hosp / "labevents.csv.gz", parse_dates=["charttime"], low_memory=False)
    labs = labs[labs.itemid.astype(str).isin(LAB_ITEM_IDS) & labs.valuenum.notna()]
    ecgs = pd.read_csv(ecg_root / "record_list.csv", parse_dates=["ecg_time"])
    ecgs = ecgs[[_usable(ecg_root / path) for path in ecgs.path]]
    images = _images(cxr_root)
    labelled = set(pd.read_csv(cxr_root / "mimic-cxr-2.0.0-chexpert.csv.gz").study_id)
    rows = []
    for admission in admissions.itertuples():
        own_ecgs = ecgs[ecgs.subject_id == admission.subject_id]
        own_ecgs = own_ecgs[(own_ecgs.ecg_time - admission.admittime).abs() <= DAY].sort_values("ecg_time", kind="stable")
        own_labs = labs[labs.subject_id == admission.subject_id]
        own_labs = own_labs[(own_labs.charttime - admission.admittime).abs() <= DAY].sort_values("charttime", kind="stable")
        own_images = images[images.subject_id == admission.subject_id]
        delay = own_images.time - admission.admittime
        own_images = own_images[(delay > DAY) & (delay <= 3 * DAY)].sort_values("time", kind="stable")
        if len(own_ecgs) and len(own_labs) and len(own_images) and own_images.iloc[0].study_id in labelled:
            first = own_labs.groupby("itemid").valuenum.first()
            values = {itemid: first.get(int(itemid), np.nan) for itemid in LAB_ITEM_IDS}
            chosen = {"ecg_study_id": own_ecgs.iloc[0].study_id, "cxr_dicom_id": own_images.iloc[0].dicom_id}
            rows.append({"hadm_id": admission.hadm_id, **chosen, **values})
    return pd.DataFrame(rows)


def _images(root: Path) -> pd.DataFrame:
    table = pd.read_csv(root / "mimic-cxr-2.0.0-metadata.csv.gz")
    table = table[table.ViewPosition.isin(["AP", "PA"])]
    clock = table.StudyTime.astype(int).astype(str).str.zfill(6)
    table["time"] = pd.to_datetime(table.StudyDate.astype(str) + clock, format="%Y%m%d%H%M%S")
    folders = [f"p{str(row.subject_id)[:2]}/p{row.subject_id}/s{row.study_id}" for row in table.itertuples()]
    exists = [(root / "files" / folder / f"{i}.jpg").exists() for folder, i in zip(folders, table.dicom_id, strict=True)]
    return table[exists]


def _usable(record: Path) -> bool:
    try:
        signal = wfdb.rdrecord(str(record)).p_signal
    except (OSError, ValueError):
        return False
    return bool(np.isfinite(signal).all() and np.any(signal != 0))

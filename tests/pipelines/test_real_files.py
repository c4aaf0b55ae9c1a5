"""The hospital of real files: its pairing is invented, says so, keeps patients together, and is the same every time."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from clinical_symile.config import load_config
from clinical_symile.modalities.cxr import read_cxr
from clinical_symile.modalities.ecg import read_ecg
from clinical_symile.resources import preset, resource_root
from clinical_symile.types import FRONTAL_VIEWS, LAB_ITEM_IDS

SCRIPT = resource_root() / "pipelines" / "real_files.py"


def run(data_dir: Path, out_dir: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, data_dir, out_dir], capture_output=True, text=True, check=False)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def hospital(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real") / "hospital"
    completed = run(real_data, folder)
    assert completed.returncode == 0, completed.stderr
    return folder


@pytest.fixture(scope="module")
def admissions(hospital: Path) -> pd.DataFrame:
    return pd.read_csv(hospital / "admissions.csv", parse_dates=["admittime", "ecg_time", "cxr_time"])


@pytest.fixture(scope="module")
def labs(hospital: Path) -> pd.DataFrame:
    return pd.read_csv(hospital / "labs.csv", parse_dates=["charttime"])


def test_a_wrong_folder_gives_one_clear_message(tmp_path: Path) -> None:
    completed = run(tmp_path, tmp_path / "out")
    assert completed.returncode == 3
    assert "DATA_DIR must hold the MIMIC-IV demo" in completed.stderr
    assert "Traceback" not in completed.stderr
    assert not (tmp_path / "out").exists()


def test_the_preset_is_a_valid_configuration() -> None:
    config = load_config(preset("real_files"), ["hospital.manifest=x/admissions.csv", "hospital.labs=x/labs.csv"])
    assert (config.hospital.kind, config.hospital.access) == ("manifest", "open")


@pytest.mark.realdata
def test_both_tables_and_the_readme_say_that_the_pairing_is_invented(
    hospital: Path, admissions: pd.DataFrame, labs: pd.DataFrame
) -> None:
    assert admissions.subject_id.str.startswith("invented-").all()
    assert labs.subject_id.str.startswith("invented-").all()
    text = (hospital / "README.md").read_text(encoding="utf-8")
    assert "No row of these tables describes a person who exists" in text
    assert f"{len(admissions)} admissions of {admissions.subject_id.nunique()} invented subjects" in text


@pytest.mark.realdata
def test_the_same_files_give_the_same_bytes(real_data: Path, hospital: Path, tmp_path: Path) -> None:
    assert run(real_data, tmp_path / "again").returncode == 0
    assert digests(tmp_path / "again") == digests(hospital)


@pytest.mark.realdata
def test_every_admission_has_its_files_in_the_windows(hospital: Path, admissions: pd.DataFrame) -> None:
    assert admissions.hadm_id.is_unique
    assert set(admissions.cxr_view) <= set(FRONTAL_VIEWS)
    ecg_hours = (admissions.ecg_time - admissions.admittime) / pd.Timedelta(hours=1)
    cxr_hours = (admissions.cxr_time - admissions.admittime) / pd.Timedelta(hours=1)
    assert ecg_hours.abs().max() <= 24
    assert cxr_hours.between(24, 72, inclusive="right").all()
    for row in admissions.itertuples():
        assert min(read_cxr(hospital / row.cxr_path).shape) >= 64
        assert read_ecg(hospital / row.ecg_path).adc.shape == (5000, 12)


@pytest.mark.realdata
def test_every_admission_has_laboratory_results_near_its_beginning(admissions: pd.DataFrame, labs: pd.DataFrame) -> None:
    assert set(labs.itemid.astype(str)) <= set(LAB_ITEM_IDS)
    assert labs.valuenum.notna().all()
    assert not labs.duplicated().all()
    joined = admissions[["subject_id", "hadm_id", "admittime"]].merge(labs, on="subject_id")
    near = joined[(joined.charttime - joined.admittime).abs() <= pd.Timedelta(hours=24)]
    assert set(near.hadm_id) == set(admissions.hadm_id)


@pytest.mark.realdata
def test_one_signal_or_picture_is_never_in_two_admissions_and_one_person_never_in_two_subjects(
    hospital: Path, admissions: pd.DataFrame
) -> None:
    """Otherwise the same patient could be in train and test. NIH names the patient in its file names."""
    assert admissions.cxr_path.is_unique
    assert admissions.ecg_path.is_unique
    contents = [read_ecg(hospital / path).adc.tobytes() for path in admissions.ecg_path]
    assert len(set(contents)) == len(contents), "CinC 2021 holds one signal under two names"
    nih = admissions[admissions.cxr_path.str.contains("nih-chestxray14")]
    patient = nih.cxr_path.str.extract(r"/(\d{8})_", expand=False)
    assert (nih.groupby(patient).subject_id.nunique() == 1).all()

"""``clinical-symile export meds-labels`` and the laboratory options of ``cohort``, as a person calls them."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest


def run_cli(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "clinical_symile", *arguments], capture_output=True, text=True, check=False, cwd=cwd, timeout=300
    )


@pytest.fixture
def hospital(tmp_path: Path) -> Path:
    """A manifest of twelve admissions with labs only, in MEDS form."""
    with (tmp_path / "admissions.csv").open("w") as handle:
        rows = [(number, 900 + number, "2024-05-31 13:45") for number in range(1, 13)]
        csv.writer(handle).writerows([("subject_id", "hadm_id", "admittime"), *rows])
    data = tmp_path / "meds" / "data"
    data.mkdir(parents=True)
    times = pa.array(["2024-05-31 14:00:00"] * 12).cast(pa.timestamp("us"))
    columns = {"subject_id": range(1, 13), "time": times, "code": ["LOINC//2951-2//mmol/L"] * 12, "numeric_value": [140.0] * 12}
    pq.write_table(pa.table({name: pa.array(column) for name, column in columns.items()}), data / "0.parquet")
    return tmp_path


def test_a_cohort_from_meds_becomes_meds_labels(hospital: Path) -> None:
    options = ("--manifest", "admissions.csv", "--labs-meds", "meds", "--set", "cohort.require=[labs]", "--workspace", "ws")
    done = run_cli("cohort", *options, cwd=hospital)
    assert done.returncode == 0, done.stderr
    done = run_cli("export", "meds-labels", "labels", "--workspace", "ws", cwd=hospital)
    assert done.returncode == 0, done.stderr
    assert "wrote labels: train" in done.stdout
    assert "access: credentialed" in done.stdout
    tables = [pq.read_table(hospital / "labels" / f"{name}.parquet") for name in ("train", "tuning", "held_out")]
    assert sum(map(len, tables)) == 12
    again = run_cli("export", "meds-labels", "labels", "--workspace", "ws", cwd=hospital)
    assert again.returncode == 3
    assert "--overwrite replaces it" in again.stderr
    assert run_cli("export", "meds-labels", "labels", "--workspace", "ws", "--overwrite", "-q", cwd=hospital).stdout == ""


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("export", "meds-labels", "out"), 6, "clinical-symile cohort"),
        (("export", "meds-labels", "out", "--at", "noon"), 2, "--at noon: must be one of window-end, admission"),
        (("export", "meds-labels", "out", "--label", "Oedema"), 2, "there is no such CheXpert label"),
        (("cohort", "--manifest", "admissions.csv", "--labs-omop", "nowhere"), 3, "nowhere: there is no such file or folder"),
        (("cohort", "--manifest", "admissions.csv", "--labs-meds", "nowhere"), 3, "nowhere: there is no such folder"),
        (("cohort", "--manifest", "admissions.csv", "--labs", "x", "--labs-meds", "meds"), 2, "from one source only"),
        (("cohort", "--labs-meds", "meds"), 2, "hospital.labs_meds has no meaning"),
    ],
)
def test_a_mistake_is_one_message_and_an_exit_code(hospital: Path, arguments: tuple[str, ...], code: int, message: str) -> None:
    done = run_cli(*arguments, "--workspace", "ws", cwd=hospital)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr

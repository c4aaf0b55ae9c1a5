"""Sizes and strata in the stage as a whole: what is written, what is counted, what the log keeps to itself."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from clinical_symile.cli import stages
from clinical_symile.cli.main import app
from clinical_symile.cohort import build_cohort
from clinical_symile.cohort.attrition import read_attrition
from clinical_symile.errors import InputError
from clinical_symile.stage import RunOptions, Workspace

QUIET = RunOptions(quiet=True, jobs=1)


@pytest.fixture
def filled(hospital):
    """60 patients, every fifth with two admissions, every third a man."""
    for number in range(60):
        subject = 10_000_000 + number
        hospital.complete(subject, 20_000_000 + number)
        if number % 5 == 0:
            hospital.complete(subject, 20_000_100 + number, hours=2000)
        hospital.patients[subject]["gender"] = "M" if number % 3 == 0 else "F"
    hospital.write()
    return hospital


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "ws")


def test_sizes_are_exact_and_what_is_left_over_is_a_step_of_the_attrition(filled, workspace):
    rules = {"val_size": 11, "test_size": 17, "train_size": 40, "candidates": 3}
    counts = build_cohort(filled.config(**rules), workspace, QUIET)["counts"]
    assert (counts["train"], counts["val"], counts["test"], counts["admissions"]) == (40, 11, 17, 68)
    admissions = pd.read_parquet(workspace.cohort / "admissions.parquet")
    assert (admissions.groupby("subject_id")["split"].nunique() == 1).all()
    step = read_attrition(workspace.cohort)["steps"][-1]
    assert (step["step"], step["included"], step["excluded"]) == ("in a split", 68, 4)
    assert step["patients"] == admissions["subject_id"].nunique()
    assert step["reason"] == "train holds its 40 admissions (cohort.train_size)"
    assert not (workspace.cohort / "strata.json").exists()


def test_without_a_size_of_train_nobody_leaves(filled, workspace):
    counts = build_cohort(filled.config(val_size=11, test_size=17, candidates=3), workspace, QUIET)["counts"]
    assert (counts["train"], counts["val"], counts["test"]) == (44, 11, 17)
    steps = read_attrition(workspace.cohort)["steps"]
    assert steps[-1]["step"] != "in a split"


def test_strata_are_written_and_the_log_does_not_count_them(filled, workspace, caplog):
    caplog.set_level(logging.INFO)
    rules = {"stratify_by": ["gender", "cxr_view"], "val_fraction": 0.2, "test_fraction": 0.3, "candidates": 3}
    build_cohort(filled.config(**rules), workspace, QUIET)
    strata = json.loads((workspace.cohort / "strata.json").read_text())
    assert [row["stratum"] for row in strata] == ["gender=F, cxr_view=AP", "gender=M, cxr_view=AP"]
    patients = [[row[f"{split}_patients"] for split in ("train", "val", "test")] for row in strata]
    assert patients == [[20, 8, 12], [10, 4, 6]]
    admissions = pd.read_parquet(workspace.cohort / "admissions.parquet")
    for split in ("train", "val", "test"):
        assert sum(row[f"{split}_admissions"] for row in strata) == (admissions["split"] == split).sum()
    assert "splits are alike in gender, cxr_view; 2 strata, see strata.json" in caplog.text
    assert "gender=" not in caplog.text


def test_a_patients_stratum_is_that_of_the_first_admission(filled, workspace):
    """Two admissions of one patient may have different views."""
    for row in filled.images:
        if row["dicom_id"].removeprefix("image-")[:6] == "200001":
            row["ViewPosition"] = "PA"
    filled.write()
    build_cohort(filled.config(stratify_by=["cxr_view"], candidates=3), workspace, QUIET)
    strata = {row["stratum"]: row for row in json.loads((workspace.cohort / "strata.json").read_text())}
    assert list(strata) == ["cxr_view=AP"]
    assert sum(strata["cxr_view=AP"][f"{split}_patients"] for split in ("train", "val", "test")) == 60


def test_the_order_of_the_tables_changes_nothing(filled, workspace, new_hospital, tmp_path):
    rules = {"stratify_by": ["gender"], "val_size": 11, "test_size": 17, "train_size": 40, "candidates": 3}
    build_cohort(filled.config(**rules), workspace, QUIET)
    turned = new_hospital(tmp_path / "turned")
    filled.root.rename(turned.root)
    turned.patients = dict(reversed(filled.patients.items()))
    turned.admissions, turned.images = filled.admissions[::-1], filled.images[::-1]
    turned.findings, turned.records, turned.labs = filled.findings, filled.records, filled.labs
    turned.write()
    other = Workspace(tmp_path / "other")
    build_cohort(turned.config(**rules), other, QUIET)
    for name in ("admissions.parquet", "candidates.parquet", "strata.json"):
        assert (other.cohort / name).read_bytes() == (workspace.cohort / name).read_bytes()


def test_sizes_beyond_the_cohort_say_how_many_there_are(filled, workspace):
    with pytest.raises(InputError, match=r"cohort\.test_size = 50 and cohort\.val_size = 50 ask for 100 admissions, but only 72"):
        build_cohort(filled.config(val_size=50, test_size=50), workspace, QUIET)


def test_the_command_line_names_split_files(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(stages, "cohort", lambda invocation: seen.append(invocation.config.cohort.splits_from))
    result = CliRunner().invoke(app, ["cohort", "--splits-from", str(tmp_path), "--workspace", str(tmp_path / "ws")])
    assert result.exit_code == 0, result.output
    assert seen == [tmp_path]

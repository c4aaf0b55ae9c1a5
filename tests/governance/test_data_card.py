"""The data card is filled from the workspace's files, and hides small groups."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clinical_symile.config import CohortConfig
from clinical_symile.errors import IncompleteStage
from clinical_symile.governance import render_data_card
from clinical_symile.stage import RunOptions, Stage, Workspace, write_json

OPTIONS = RunOptions(quiet=True)
LAW = {
    "synergy": 0.8,
    "signs": {"edema": {"ecg": "atrial fibrillation", "labs": "anaemia", "cxr": "haze"}},
    "accuracy_10way": {"oracle": 0.61, "uniform_pairwise": 0.32, "chance": 0.1},
}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path / "ws")
    with Stage("cohort", workspace.cohort, inputs={}, config=CohortConfig(), options=OPTIONS).writing() as writing:
        steps = [("admissions", 200, 0, ""), ("ECG", 150, 50, "no ECG")]
        keys = ("step", "included", "excluded", "reason")
        write_json(writing.output / "attrition.json", [dict(zip(keys, step, strict=True)) for step in steps])
    with Stage("prepare", workspace.dataset, inputs={}, config={}, options=OPTIONS).writing() as writing:
        people = [
            ("train", "F", "AP", 60),
            ("train", "M", "AP", 50),
            ("val", "F", "AP", 20),
            ("val", "M", "AP", 18),
            ("test", "M", "AP", 15),
            ("test", "F", "PA", 4),
        ]
        rows: dict[str, list[Any]] = {"split": [], "gender": [], "cxr_view": [], "subject_id": [], "n_labs_observed": []}
        for split, sex, view, count in people:
            for _ in range(count):
                rows["subject_id"].append(len(rows["split"]))
                rows["split"].append(split)
                rows["gender"].append(sex)
                rows["cxr_view"].append(view)
                rows["n_labs_observed"].append(35)
        pq.write_table(pa.table(rows), writing.output / "manifest.parquet")
        writing.counts["rejected"] = 3
        writing.facts.update(access="synthetic", hospital={"kind": "mimic", "simulated_truth": "hospital/truth.parquet"})
    return workspace


def test_the_card_of_a_simulated_hospital_tells_its_law(workspace: Workspace) -> None:
    write_json(workspace.hospital / "law.json", LAW)
    card = render_data_card(workspace)
    assert "Everything in it was drawn by a computer" in card
    assert "A share of 80% of the ties" in card
    assert "| edema | atrial fibrillation | anaemia | haze |" in card
    assert "| ECG | 150 | 50 | no ECG |" in card
    assert "| all | 110 | 38 | 19 |" in card
    assert "symile-mimic" in card
    assert "Admissions that could not be read: 3." in card


def test_small_groups_and_what_would_give_them_away_are_hidden(workspace: Workspace) -> None:
    card = render_data_card(workspace)
    assert "| sex F | 60 | hidden | hidden |" in card
    assert "| sex M | 50 | hidden | hidden |" in card
    assert "| view AP | 110 | hidden | hidden |" in card
    assert " 4 |" not in card


def test_without_the_hospital_the_law_is_left_out(workspace: Workspace) -> None:
    assert "The law behind" not in render_data_card(workspace)


def test_an_imported_release_says_what_it_lost(workspace: Workspace) -> None:
    file = workspace.dataset / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest |= {"hospital": {"kind": "symile-mimic-release"}, "lost": ["pictures are cut", "amplitudes are not known"]}
    write_json(file, manifest)
    card = render_data_card(workspace)
    assert "imported from Symile-MIMIC as its authors released it" in card
    assert "What it no longer has: pictures are cut. amplitudes are not known." in card


def test_it_needs_a_dataset(tmp_path: Path) -> None:
    with pytest.raises(IncompleteStage):
        render_data_card(Workspace(tmp_path))


def test_the_card_says_which_strict_rules_are_off_and_what_the_rules_let_in(workspace: Workspace) -> None:
    config = CohortConfig.model_validate({"rules": "strict", "strict": {"plausible_labs": False}})
    steps = [{"step": "admissions", "included": 200, "excluded": 0, "reason": ""}]
    notes = [
        {"rule": "plausible_labs", "count": 12, "what": "lab values beyond physiological limits"},
        {"rule": "no_flat_ecg_leads", "count": 0, "what": "ECGs with a flat lead"},
    ]
    stage = Stage("cohort", workspace.cohort, inputs={}, config={"cohort": config.model_dump()}, options=OPTIONS)
    with stage.writing() as writing:
        write_json(writing.output / "attrition.json", {"steps": steps, "splits": [], "notes": notes})
    card = render_data_card(workspace)
    assert "| cohort rules | strict, without plausible_labs |" in card
    assert "- lab values beyond physiological limits: 12 (`plausible_labs`)" in card
    assert "with a flat lead" not in card

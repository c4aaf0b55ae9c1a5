"""The stage as a whole: what it writes, when it does nothing, and that the same input gives the same bytes."""

from __future__ import annotations

import json
import logging
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from clinical_symile.cohort import build_cohort, format_attrition
from clinical_symile.cohort.schema import ADMISSIONS, CANDIDATES
from clinical_symile.config import ExperimentConfig
from clinical_symile.errors import ConfigError, IncompleteStage, InputError
from clinical_symile.stage import RunOptions, Workspace, digest_file, write_json
from clinical_symile.types import CHEXPERT_LABELS, LAB_ITEM_IDS

QUIET = RunOptions(quiet=True, jobs=1)
RULES = {"val_fraction": 0.3, "test_fraction": 0.4, "candidates": 3}
FILES = ("admissions.parquet", "candidates.parquet", "attrition.json", "attrition.svg", "rejects.parquet")


@pytest.fixture
def filled(hospital):
    """40 patients, every fourth with two admissions; some lack a modality."""
    for number in range(40):
        without = {7: "cxr", 11: "ecg", 13: "labs"}.get(number, "")
        hospital.complete(10_000_000 + number, 20_000_000 + number, without=without)
        if number % 4 == 0:
            hospital.complete(10_000_000 + number, 20_000_100 + number, hours=2000)
    hospital.cxr(10_000_003, 29, "gone", on_disk=False)
    hospital.write()
    return hospital


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "ws")


def test_what_it_writes(filled, workspace):
    manifest = build_cohort(filled.config(**RULES), workspace, QUIET, filled.check_ecg)
    folder = workspace.cohort
    assert sorted(path.name for path in folder.iterdir()) == sorted((*FILES, "manifest.json"))
    assert pq.read_schema(folder / "admissions.parquet").equals(ADMISSIONS)
    assert pq.read_schema(folder / "candidates.parquet").equals(CANDIDATES)
    admissions = pd.read_parquet(folder / "admissions.parquet")
    assert admissions["hadm_id"].is_monotonic_increasing
    assert len(admissions) == 47
    assert set(LAB_ITEM_IDS) | set(CHEXPERT_LABELS) <= set(admissions)
    assert manifest["counts"] == {
        "admissions": 47,
        "subjects": 37,
        "rejected": 1,
        **{split: int((admissions["split"] == split).sum()) for split in ("train", "val", "test")},
        "labs_per_admission": 1.0,
    }
    assert set(manifest["inputs"]) == {"admissions", "patients", "labevents", "metadata", "chexpert", "record_list", "ecg files"}
    assert manifest["inputs"]["labevents"] == digest_file(filled.mimic_iv / "hosp/labevents.csv.gz")


def test_no_patient_is_in_two_splits_and_candidates_stay_in_theirs(filled, workspace):
    build_cohort(filled.config(**RULES), workspace, QUIET)
    admissions = pd.read_parquet(workspace.cohort / "admissions.parquet").set_index("hadm_id")
    assert (admissions.groupby("subject_id")["split"].nunique() == 1).all()
    sets = pd.read_parquet(workspace.cohort / "candidates.parquet")
    assert set(sets["query_hadm_id"]) == set(admissions.index[admissions["split"] != "train"])
    assert (admissions["split"][sets["candidate_hadm_id"]].to_numpy() == sets["split"].to_numpy()).all()


def test_the_attrition_adds_up_and_can_be_shown(filled, workspace):
    build_cohort(filled.config(**RULES), workspace, QUIET)
    found = json.loads((workspace.cohort / "attrition.json").read_text())
    steps, splits = found["steps"], found["splits"]
    for before, after in pairwise(steps):
        assert after["included"] + after["excluded"] == before["included"], after["step"]
        assert after["patients"] <= before["patients"]
    assert [split["split"] for split in splits] == ["train", "val", "test"]
    for what, total in (("admissions", 47), ("patients", 37)):
        assert sum(split[what] for split in splits) == total
    assert (steps[-1]["included"], steps[-1]["patients"]) == (47, 37)
    table = format_attrition(workspace.cohort)
    assert table.splitlines()[0].split() == ["step", "included", "excluded", "patients", "reason"]
    assert "no ECG within 24 h of admission" in table


def test_the_same_input_gives_the_same_bytes_on_any_number_of_processes(filled, tmp_path):
    workspaces = [Workspace(tmp_path / name) for name in ("one", "two", "three")]
    options = [QUIET, QUIET, RunOptions(quiet=True, jobs=3)]
    digests = []
    for workspace, option in zip(workspaces, options, strict=True):
        digests.append(build_cohort(filled.config(**RULES), workspace, option, filled.check_ecg)["digest"])
        assert all((workspace.cohort / name).read_bytes() == (workspaces[0].cohort / name).read_bytes() for name in FILES)
    assert len(set(digests)) == 1


def test_a_finished_cohort_is_skipped_and_another_configuration_is_not(filled, workspace):
    first = build_cohort(filled.config(**RULES), workspace, QUIET, filled.check_ecg)
    again = build_cohort(filled.config(**RULES), workspace, QUIET, filled.check_ecg)
    assert again == first
    opened = len(filled.opened)
    other = build_cohort(filled.config(**RULES | {"seed": 5}), workspace, QUIET, filled.check_ecg)
    assert other["key"] != first["key"]
    assert other["outputs"]["candidates.parquet"] != first["outputs"]["candidates.parquet"]
    assert len(filled.opened) == opened  # what the records hold is known


def test_somebodys_own_folder_named_tables_stops_it_before_anything_is_lost(filled, workspace):
    build_cohort(filled.config(**RULES), workspace, QUIET)
    (workspace.tables / "hospital.txt").unlink()
    with pytest.raises(InputError, match="holds files that nothing here wrote"):
        build_cohort(filled.config(**RULES | {"seed": 5}), workspace, QUIET)
    assert (workspace.cohort / "manifest.json").exists()


def test_a_changed_table_is_noticed(filled, workspace):
    before = build_cohort(filled.config(**RULES), workspace, QUIET)
    filled.lab(10_000_001, -20, 99)
    filled.write()
    after = build_cohort(filled.config(**RULES), workspace, QUIET)
    assert before["digest"] != after["digest"]


def test_without_an_ecg_check_no_ecg_is_opened(filled, workspace):
    filled.bad_ecgs = {row["path"] for row in filled.records}
    assert build_cohort(filled.config(**RULES), workspace, QUIET)["counts"]["admissions"] == 47


def test_a_dry_run_says_what_it_would_read_and_writes_nothing(filled, workspace, capsys):
    assert build_cohort(filled.config(**RULES), workspace, RunOptions(dry_run=True)) == {}
    assert not workspace.root.exists()
    said = capsys.readouterr().out
    assert "labevents" in said
    assert "MB to read" in said


def test_no_identifier_and_no_path_reaches_the_log(filled, workspace, caplog):
    caplog.set_level(logging.DEBUG)
    build_cohort(filled.config(**RULES), workspace, RunOptions(jobs=1), filled.check_ecg)
    assert caplog.text
    assert not any(number in caplog.text for number in ("100000", "200000", "files/p", "gone"))


def test_a_cohort_without_xrays_has_no_candidate_sets(filled, workspace):
    build_cohort(filled.config(**RULES, require=["ecg", "labs"]), workspace, QUIET)
    assert len(pd.read_parquet(workspace.cohort / "candidates.parquet")) == 0


def test_an_interrupted_cohort_is_not_taken_for_a_finished_one(filled, workspace):
    def breaks(path: Path, root: Path) -> str | None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_cohort(filled.config(**RULES), workspace, QUIET, breaks)
    assert not (workspace.cohort / "manifest.json").exists()
    manifest = build_cohort(filled.config(**RULES), workspace, QUIET, filled.check_ecg)
    assert manifest["counts"]["admissions"] == 47


def test_roots_are_absolute_outside_the_workspace(filled, workspace, monkeypatch):
    monkeypatch.chdir(filled.root)
    places = {"mimic_iv": "mimic-iv", "mimic_cxr": "mimic-cxr", "mimic_ecg": "mimic-ecg", "access": "open"}
    config = ExperimentConfig.model_validate({"hospital": places, "cohort": RULES})
    facts = build_cohort(config, workspace, QUIET)["hospital"]
    tables = facts.pop("tables")
    assert tables["record_list"] == digest_file(filled.mimic_ecg / "record_list.csv")
    assert set(tables) == {"admissions", "patients", "labevents", "metadata", "chexpert", "record_list"}
    assert facts == {
        "kind": "mimic",
        "cxr_root": str(filled.mimic_cxr),
        "ecg_root": str(filled.mimic_ecg),
        "access": "open",
        "simulated_truth": None,
    }


def test_the_simulated_hospital_is_the_default_and_is_synthetic(filled, workspace):
    config = ExperimentConfig.model_validate({"cohort": RULES})
    with pytest.raises(IncompleteStage, match="'simulate' has not been run"):
        build_cohort(config, workspace, QUIET)
    workspace.root.mkdir()
    filled.root.rename(workspace.hospital)
    write_json(workspace.hospital / "manifest.json", {"outputs": {}})
    facts = build_cohort(config, workspace, QUIET)["hospital"]
    assert {name: fact for name, fact in facts.items() if name != "tables"} == {
        "kind": "mimic",
        "cxr_root": "hospital/mimic-cxr",
        "ecg_root": "hospital/mimic-ecg",
        "access": "synthetic",
        "simulated_truth": "hospital/truth.parquet",
    }


def test_a_folder_that_is_missing_from_the_command_is_asked_for(filled, workspace):
    config = filled.config(**RULES)
    for missing, message in (
        ("mimic_iv", "--mimic-iv is missing"),
        ("mimic_cxr", "--mimic-cxr is missing"),
        ("mimic_ecg", "--mimic-ecg is missing"),
    ):
        hospital = config.hospital.model_copy(update={missing: None})
        with pytest.raises(ConfigError, match=message):
            build_cohort(config.model_copy(update={"hospital": hospital}), workspace, QUIET)


def test_too_small_a_split_says_so(filled, workspace):
    with pytest.raises(InputError, match=r"cohort\.candidates = 40 needs 39"):
        build_cohort(filled.config(**RULES | {"candidates": 40}), workspace, QUIET)


@pytest.mark.realdata
def test_the_real_mimic_iv_demo_gives_exactly_the_admissions_with_an_ecg_and_labs(real_data, workspace):
    """115 admissions of 55 subjects. Their X-rays are credentialed, and the signals of the ECGs are not there."""
    places = {
        "mimic_iv": real_data / "labs/mimic-iv-clinical-database-demo-2.2",
        "mimic_ecg": real_data / "ecg/mimic-iv-ecg-demo-0.1",
    }
    config = ExperimentConfig.model_validate({"hospital": places | {"access": "open"}, "cohort": {"require": ["ecg", "labs"]}})
    counts = build_cohort(config, workspace, QUIET)["counts"]
    assert (counts["admissions"], counts["subjects"]) == (115, 55)
    assert counts["labs_per_admission"] == 35.06
    admissions = pd.read_parquet(workspace.cohort / "admissions.parquet").set_index("hadm_id")
    labs, ecgs = _with_pandas(places["mimic_iv"] / "hosp", places["mimic_ecg"])
    assert set(admissions.index) == set(labs.index) & set(ecgs.index)
    assert admissions["ecg_path"].equals(ecgs.reindex(admissions.index).rename("ecg_path").astype(admissions["ecg_path"].dtype))
    pd.testing.assert_frame_equal(
        admissions[list(LAB_ITEM_IDS)], labs.reindex(index=admissions.index, columns=list(LAB_ITEM_IDS)), check_names=False
    )


def _with_pandas(hosp: Path, ecg: Path) -> tuple[pd.DataFrame, pd.Series]:
    """The same two rules once more, as the paper's own code does them: merge on the patient, filter, sort, take the first."""
    admissions = pd.read_csv(hosp / "admissions.csv.gz", parse_dates=["admittime"])[["subject_id", "hadm_id", "admittime"]]
    events = pd.read_csv(hosp / "labevents.csv.gz", parse_dates=["charttime"], low_memory=False)
    events = events[events["itemid"].isin(map(int, LAB_ITEM_IDS)) & events["valuenum"].notna()].drop(columns="hadm_id")
    near = admissions.merge(events, on="subject_id")
    near = near[(near["charttime"] - near["admittime"]).abs() <= pd.Timedelta(hours=24)]
    near = near.sort_values("charttime", kind="stable").drop_duplicates(["hadm_id", "itemid"])
    labs = near.pivot(index="hadm_id", columns="itemid", values="valuenum").rename(columns=str)
    records = admissions.merge(pd.read_csv(ecg / "record_list.csv", parse_dates=["ecg_time"]), on="subject_id")
    records = records[(records["ecg_time"] - records["admittime"]).abs() <= pd.Timedelta(hours=24)]
    return labs, records.sort_values("ecg_time", kind="stable").drop_duplicates("hadm_id").set_index("hadm_id")["path"]

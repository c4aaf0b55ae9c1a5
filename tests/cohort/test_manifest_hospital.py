"""A hospital of its own: two CSV files in a documented schema."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from clinical_symile.cohort import build_cohort
from clinical_symile.cohort.manifest import stable_id
from clinical_symile.config import ExperimentConfig
from clinical_symile.errors import ConfigError, InputError
from clinical_symile.stage import RunOptions, Workspace

QUIET = RunOptions(quiet=True, jobs=1)
SODIUM, CREATININE = "50983", "50912"


class OwnHospital:
    """``admissions.csv`` and ``labs.csv``; ``n`` admissions of as many patients, all complete."""

    def __init__(self, root: Path, n: int = 12, prefix: str = "") -> None:
        self.root, self.workspace = root, Workspace(root / "ws")
        self.admissions: list[dict[str, Any]] = []
        self.labs: list[dict[str, Any]] = []
        for number in range(1, n + 1):
            self.add(f"{prefix}{number}", f"{prefix}{900 + number}")

    def add(self, subject: str, hadm: str) -> None:
        (self.root / "cxr").mkdir(parents=True, exist_ok=True)
        (self.root / f"cxr/{hadm}.png").touch()
        row = {"subject_id": subject, "hadm_id": hadm, "admittime": "2024-05-31 13:45", "ecg_path": f"ecg/{hadm}"}
        self.admissions.append(row | {"cxr_path": f"cxr/{hadm}.png"})
        self.lab(subject, 140)

    def lab(self, subject: str, value: Any, itemid: str = SODIUM, unit: str = "mEq/L", time: str = "2024-05-31 14:00:00") -> None:
        row = {"subject_id": subject, "charttime": time, "itemid": itemid, "valuenum": value, "valueuom": unit}
        self.labs.append(row)

    def config(self, **cohort: Any) -> ExperimentConfig:
        places = {"kind": "manifest", "manifest": self.root / "admissions.csv", "labs": self.root / "labs.csv"}
        rules = {"val_fraction": 0.3, "test_fraction": 0.3, "candidates": 2, "seed": 1} | cohort
        return ExperimentConfig.model_validate({"hospital": places, "cohort": rules})

    def build(self, **cohort: Any) -> pd.DataFrame:
        for name, rows in (("admissions", self.admissions), ("labs", self.labs)):
            columns = list(dict.fromkeys(column for row in rows for column in row))
            with (self.root / f"{name}.csv").open("w", encoding="utf-8") as handle:
                writer = csv.DictWriter(handle, columns, restval="", lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)
        self.manifest = build_cohort(self.config(**cohort), self.workspace, QUIET)
        self.rejects = pd.read_parquet(self.workspace.cohort / "rejects.parquet")
        return pd.read_parquet(self.workspace.cohort / "admissions.parquet")


@pytest.fixture
def own(tmp_path: Path) -> OwnHospital:
    return OwnHospital(tmp_path / "own")


def test_the_documented_columns_are_enough(own):
    admissions = own.build()
    assert admissions["hadm_id"].tolist() == list(range(901, 913))
    first = admissions.iloc[0]
    assert (first.subject_id, first.cxr_path, first.ecg_path, first[SODIUM]) == (1, "cxr/901.png", "ecg/901", 140)
    assert admissions[["subject_key", "hadm_key", "gender", "age", "cxr_time", "Edema"]].isna().all(axis=None)
    assert own.manifest["hospital"]["kind"] == "manifest"
    assert own.manifest["hospital"]["access"] == "credentialed", "unless the configuration says otherwise"
    assert own.manifest["hospital"]["cxr_root"] == str(own.root)


def test_textual_ids_become_stable_numbers_and_are_kept(tmp_path):
    admissions = OwnHospital(tmp_path / "own", prefix="Zürich-").build()
    assert (admissions["hadm_id"] > 0).all()
    assert admissions["hadm_id"].is_monotonic_increasing
    row = admissions.set_index("hadm_key").loc["Zürich-905"]
    assert (row.subject_key, row.subject_id) == ("Zürich-5", stable_id("Zürich-5"))


def test_a_stable_id_is_frozen():
    """Golden: python -c "import hashlib; print(int(hashlib.sha256(b'A').hexdigest()[:16], 16) >> 1)"."""
    assert stable_id("A") == 3084250410449529532


def test_a_patient_s_split_does_not_move_when_others_are_added(own):
    before = own.build().set_index("hadm_id")["split"]
    for number in range(20, 32):
        own.add(str(number), str(900 + number))
    assert own.build().set_index("hadm_id")["split"][before.index].equals(before)
    own.add("a patient with another kind of id", "932")
    again = own.build().set_index("hadm_id")["split"]
    assert again[before.index].equals(before), "even when all ids have to be replaced"


def test_times_are_optional_and_windows_apply_where_they_are_given(own):
    own.admissions[0] |= {"ecg_time": "2024-06-02 00:00", "cxr_time": "2024-06-02 00:00"}  # ECG too late
    own.admissions[1] |= {"ecg_time": "2024-05-31 00:00", "cxr_time": "2024-06-01 13:45"}  # X-ray exactly at 24 h
    own.admissions[2] |= {"ecg_time": "2024-05-31 00:00", "cxr_time": "2024-06-03T13:45:00"}  # both at their limits
    admissions = own.build()
    assert {901, 902} & set(admissions["hadm_id"]) == set()
    assert str(admissions.set_index("hadm_id").loc[903].cxr_time) == "2024-06-03 13:45:00"


def test_a_stated_view_must_be_frontal(own):
    for row, view in zip(own.admissions, ("AP", "pa", "LATERAL", ""), strict=False):
        row["cxr_view"] = view
    admissions = own.build().set_index("hadm_id")
    assert admissions["cxr_view"].dropna().to_dict() == {901: "AP", 902: "PA"}
    assert 903 not in admissions.index


def test_an_admission_without_a_path_is_left_out_like_any_other_without_the_modality(own):
    own.admissions[0]["cxr_path"] = ""
    own.admissions[1]["ecg_path"] = ""
    assert {901, 902} & set(own.build()["hadm_id"]) == set()


def test_a_path_column_is_needed_only_where_its_modality_is(own):
    for row in own.admissions:
        del row["cxr_path"]
    with pytest.raises(InputError, match=r"admissions\.csv: lacks the column\(s\) cxr_path"):
        own.build()
    assert len(own.build(require=["ecg", "labs"])) == 12


def test_wrong_units_items_and_numbers_are_rejected_each_with_its_reason_and_number(own):
    own.lab("1", 88, CREATININE, "umol/L")
    own.lab("2", 90, CREATININE, "umol/L")
    own.lab("2", 1.1, CREATININE, "mg/dL")
    own.lab("3", ">200", SODIUM)
    own.lab("4", 3, "NA", "mmol/L")
    own.lab("5", 139, SODIUM, time="31.05.2024")
    own.lab("6", "", CREATININE, "umol/L")  # without a value there is nothing to reject
    admissions = own.build().set_index("subject_id")
    assert admissions[CREATININE].dropna().to_dict() == {2: 1.1}
    assert own.rejects["reason"].tolist() == [
        "2 rows, the first is data row 13: Creatinine (50912) in 'umol/L', expected 'mg/dL'; convert it first",
        "1 rows, the first is data row 18: charttime is empty or not a time such as 2180-05-31 13:45:00, without an offset",
        "1 rows, the first is data row 17: itemid NA is not one of the 50 items",
        "1 rows, the first is data row 16: valuenum of item 50983 is not a number",
    ]


def test_when_no_result_can_be_used_the_reason_is_said_at_once(own):
    for row in own.labs:
        row["valueuom"] = "g/L"
    with pytest.raises(
        InputError, match=r"labs\.csv: no row can be used; 12 rows, .*Sodium \(50983\) in 'g/L', expected 'mEq/L'"
    ):
        own.build()


def test_results_of_other_patients_do_no_harm(own):
    own.lab("somebody else", 120)
    assert own.build()["subject_key"].notna().all(), "a textual id anywhere replaces all of the column"


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("admittime", "2024-05-31", "column admittime: data row 3 is not a time such as"),
        ("admittime", "2024-05-31 13:45+02:00", "without an offset"),
        ("admittime", "", "column admittime: data row 3 is empty"),
        ("subject_id", "", "column subject_id: data row 3 is empty"),
        ("hadm_id", "901", "column hadm_id: data rows 1 and 3 have the same value"),
        ("hadm_id", "0901", "two ids differ only in how they are written"),
        ("cxr_path", "cxr/901.png", "column cxr_path: data rows 1 and 3 name the same file for two patients"),
    ],
)
def test_a_cell_that_cannot_be_right_is_named(own, column, cell, message):
    own.admissions[2][column] = cell
    with pytest.raises(InputError) as caught:
        own.build()
    assert message in str(caught.value)


def test_a_path_may_not_leave_the_folder(own):
    own.admissions[0]["cxr_path"] = "../secret.png"
    (own.root.parent / "secret.png").touch()
    assert 901 not in set(own.build()["hadm_id"])
    assert own.rejects["reason"].tolist() == ["the path must be relative to its source folder, without '..'"]


def test_both_files_are_needed_and_mimic_s_folders_are_not(own, tmp_path):
    own.build()
    alone = ExperimentConfig.model_validate({"hospital": {"kind": "manifest", "manifest": own.root / "admissions.csv"}})
    with pytest.raises(ConfigError, match="needs both files"):
        build_cohort(alone, own.workspace, QUIET)
    both = own.config().model_copy(update={"hospital": own.config().hospital.model_copy(update={"mimic_ecg": tmp_path})})
    with pytest.raises(ConfigError, match=r"hospital\.kind is 'manifest', so hospital\.mimic_ecg has no meaning"):
        build_cohort(both, own.workspace, QUIET)
    (own.root / "labs.csv").unlink()
    with pytest.raises(InputError, match=r"labs\.csv: there is no such file"):
        build_cohort(own.config(), own.workspace, QUIET)

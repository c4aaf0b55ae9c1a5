"""Splits from files: the release's layout, a user's own files, and every way in which they can be wrong."""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinical_symile.cohort import build_cohort
from clinical_symile.cohort.attrition import read_attrition
from clinical_symile.cohort.split_files import canonical_id, find_split_files, read_split_files
from clinical_symile.config import ExperimentConfig, load_config
from clinical_symile.errors import ConfigError, InputError
from clinical_symile.stage import RunOptions, Workspace

QUIET = RunOptions(quiet=True, jobs=1)
SIZE = 4
PATIENT, ADMISSION = 10_000_000, 20_000_000


def parts() -> dict[str, list[int]]:
    """40 patients with one admission each; every tenth stands in no file."""
    numbers = [number for number in range(40) if number % 10 != 9]
    return {"train": numbers[:18], "val": numbers[18:26], "test": numbers[26:]}


def rows(numbers: list[int]) -> pd.DataFrame:
    frame = pd.DataFrame({"subject_id": [PATIENT + n for n in numbers], "hadm_id": [ADMISSION + n for n in numbers]})
    return frame.assign(cxr_path="never read")


def retrieval(numbers: list[int]) -> pd.DataFrame:
    """Sets as the release writes them: all positives first, then the negatives query by query."""
    positives = rows(numbers).assign(label_hadm_id=lambda frame: frame["hadm_id"], label=1)
    negatives = []
    for place, query in enumerate(numbers):
        others = (numbers[place:] + numbers[:place])[1:SIZE]
        negatives.append(rows(others).assign(label_hadm_id=ADMISSION + query, label=0))
    return pd.concat([positives, *negatives], ignore_index=True)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """The four files, in the release's layout."""
    folder = tmp_path / "release"
    folder.mkdir()
    found = parts()
    rows(found["train"]).to_csv(folder / "train.csv", index=False)
    val = rows(found["val"])
    val.assign(label_hadm_id=val["hadm_id"], label=1).to_csv(folder / "val.csv", index=False)
    retrieval(found["val"]).to_csv(folder / "val_retrieval.csv", index=False)
    retrieval(found["test"]).to_csv(folder / "test.csv", index=False)
    (folder / "symile_mimic_data.csv").write_text("anything\n1\n")
    return folder


@pytest.fixture
def filled(hospital):
    """The 40 patients' hospital."""
    for number in range(40):
        hospital.complete(PATIENT + number, ADMISSION + number)
    hospital.write()
    return hospital


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "ws")


def read(folder: Path):
    return read_split_files(find_split_files(folder))


def change(folder: Path, name: str, edit) -> None:
    edit(pd.read_csv(folder / name)).to_csv(folder / name, index=False)


def test_splits_and_sets_are_the_releases(filled, workspace, release, caplog):
    caplog.set_level(logging.INFO)
    manifest = build_cohort(filled.config(splits_from=release, candidates=SIZE), workspace, QUIET)
    admissions = pd.read_parquet(workspace.cohort / "admissions.parquet").set_index("hadm_id")
    assert {split: (part.index - ADMISSION).tolist() for split, part in admissions.groupby("split")} == parts()
    steps = read_attrition(workspace.cohort)["steps"]
    assert (steps[-1]["step"], steps[-1]["included"], steps[-1]["excluded"]) == ("in a split", 36, 4)
    assert steps[-1]["reason"] == "in none of the files train.csv, val.csv, test.csv (cohort.splits_from)"
    sets = pd.read_parquet(workspace.cohort / "candidates.parquet")
    given = pd.concat([retrieval(parts()[split]) for split in ("val", "test")])
    for query, part in given.groupby("label_hadm_id"):
        ours = sets[sets["query_hadm_id"] == query]
        assert ours.loc[~ours["is_positive"], "candidate_hadm_id"].tolist() == part.loc[part["label"] == 0, "hadm_id"].tolist()
        assert ours.loc[ours["is_positive"], "candidate_hadm_id"].tolist() == [query]
    assert len(sets) == len(given)
    assert sets.loc[sets["is_positive"], "position"].nunique() > 1
    assert manifest["splits"]["admissions_in_no_split_file"] == 4
    assert manifest["splits"]["candidate_sets"]["test"]["as_released"] == 10
    assert manifest["counts"]["absent"] == 0
    assert {name for name in manifest["inputs"] if name.startswith("splits")} == {
        "splits train",
        "splits val",
        "splits test",
        "splits val_retrieval",
    }
    assert "10 as released, 0 with negatives replaced" in caplog.text
    assert not any(number in caplog.text for number in ("100000", "200000"))


def test_what_the_cohort_lacks_is_listed_and_its_sets_are_mended(filled, workspace, release, caplog):
    gone = parts()["test"][0]
    filled.admissions = [row for row in filled.admissions if row["hadm_id"] != ADMISSION + gone]
    filled.write()
    manifest = build_cohort(filled.config(splits_from=release, candidates=SIZE), workspace, QUIET)
    absent = pd.read_parquet(workspace.cohort / "absent.parquet")
    assert absent.to_dict("records") == [{"file": "test.csv", "row": 1, "split": "test", "hadm_id": str(ADMISSION + gone)}]
    assert manifest["splits"]["admissions_of_the_split_files_not_in_the_cohort"] == {"train": 0, "val": 0, "test": 1}
    assert manifest["counts"]["absent"] == 1
    test = manifest["splits"]["candidate_sets"]["test"]
    assert test["as_released"] == 6
    assert test["refilled"] == 3
    assert (test["drawn"], test["of_admissions_not_in_the_cohort"]) == (0, 1)
    sets = pd.read_parquet(workspace.cohort / "candidates.parquet")
    assert (sets.groupby("query_hadm_id").size() == SIZE).all()
    assert "1 of the 36 admissions of the split files are not in the cohort (train 0, val 0, test 1)" in caplog.text
    assert str(ADMISSION + gone) not in caplog.text


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet"])
def test_three_files_with_hadm_id_alone_are_enough(filled, workspace, tmp_path, suffix):
    folder = tmp_path / "own"
    folder.mkdir()
    for split, numbers in parts().items():
        frame = rows(numbers)[["hadm_id"]]
        if suffix == ".parquet":
            frame.to_parquet(folder / f"{split}.parquet")
        else:
            frame.to_csv(folder / f"{split}{suffix}", index=False)
    build_cohort(filled.config(splits_from=folder, candidates=SIZE), workspace, QUIET)
    admissions = pd.read_parquet(workspace.cohort / "admissions.parquet")
    assert {split: (part["hadm_id"] - ADMISSION).tolist() for split, part in admissions.groupby("split")} == parts()
    assert len(pd.read_parquet(workspace.cohort / "candidates.parquet")) == 18 * SIZE


def test_the_order_of_the_rows_changes_no_split_and_the_folder_no_key(filled, workspace, release, tmp_path):
    config = filled.config(splits_from=release, candidates=SIZE)
    first = build_cohort(config, workspace, QUIET)
    moved = release.rename(tmp_path / "elsewhere")
    assert build_cohort(filled.config(splits_from=moved, candidates=SIZE), workspace, QUIET)["key"] == first["key"]
    change(moved, "train.csv", lambda frame: frame.iloc[::-1])
    again = build_cohort(filled.config(splits_from=moved, candidates=SIZE), workspace, QUIET)
    assert again["key"] != first["key"], "the digest of the files is part of the key"
    assert again["digest"] == first["digest"]


def test_ids_that_are_no_numbers_are_matched_as_the_hospital_writes_them(tmp_path, workspace):
    lines = ["subject_id,hadm_id,admittime,cxr_path,ecg_path"]
    lines += [f"P-{n},A-{n},2150-01-01 10:00,{n}.jpg,{n}" for n in range(12)]
    (tmp_path / "admissions.csv").write_text("\n".join(lines) + "\n")
    for n in range(12):
        (tmp_path / f"{n}.jpg").touch()
    folder = tmp_path / "own"
    folder.mkdir()
    for split, numbers in {"train": range(4), "val": range(4, 8), "test": range(8, 12)}.items():
        pd.DataFrame({"subject_id": [f"P-{n}" for n in numbers], "hadm_id": [f"A-{n}" for n in numbers]}).to_csv(
            folder / f"{split}.csv", index=False
        )
    cohort = {"require": ["cxr", "ecg"], "candidates": 2, "splits_from": folder}
    hospital = {"kind": "manifest", "manifest": tmp_path / "admissions.csv"}
    build_cohort(ExperimentConfig.model_validate({"hospital": hospital, "cohort": cohort}), workspace, QUIET)
    admissions = pd.read_parquet(workspace.cohort / "admissions.parquet").set_index("hadm_key")["split"]
    assert admissions.to_dict() == {f"A-{n}": ("train", "val", "test")[n // 4] for n in range(12)}


def test_a_negative_of_the_querys_patient_is_kept_and_counted(hospital, workspace, release, caplog):
    """As in the release."""
    caplog.set_level(logging.INFO)
    first, second = parts()["test"][:2]
    for number in range(40):
        owner = first if number == second else number
        hospital.complete(PATIENT + owner, ADMISSION + number, hours=2000 * (number == second))
    hospital.write()
    one_patient = {PATIENT + second: PATIENT + first}
    change(release, "test.csv", lambda frame: frame.assign(subject_id=frame["subject_id"].replace(one_patient)))
    manifest = build_cohort(hospital.config(splits_from=release, candidates=SIZE), workspace, QUIET)
    assert manifest["counts"]["subjects"] == 35
    assert manifest["splits"]["candidate_sets"]["test"]["with_another_xray_of_the_same_patient"] == 1
    assert manifest["splits"]["candidate_sets"]["test"]["as_released"] == 10
    assert "kept as they are in test: 1 sets with another X-ray of the query's patient" in caplog.text


def test_a_patient_in_two_splits_is_refused_with_and_without_subject_id(filled, workspace, release):
    moved = parts()["train"][0]
    filled.complete(PATIENT + moved, ADMISSION + 500, hours=2000)
    filled.write()
    extra = pd.DataFrame({"subject_id": [PATIENT + moved], "hadm_id": [ADMISSION + 500]})
    val = pd.read_csv(release / "val.csv").drop(columns=["label", "label_hadm_id"])
    pd.concat([val, extra]).to_csv(release / "val.csv", index=False)
    message = (
        r"1 patients are in more than one of train.csv, val.csv, test.csv, the first in data row 1 of train.csv and data row 9 of"
    )
    with pytest.raises(InputError, match=message):
        read(release)
    for name in ("train.csv", "val.csv", "test.csv", "val_retrieval.csv"):
        change(release, name, lambda frame: frame.drop(columns="subject_id"))
    assert len(read(release).members) == 37
    with pytest.raises(InputError, match=message) as caught:
        build_cohort(filled.config(splits_from=release, candidates=SIZE), workspace, QUIET)
    assert "1000000" not in str(caught.value)


def test_files_of_another_hospital_are_noticed(filled, workspace, release):
    change(release, "train.csv", lambda frame: frame.assign(subject_id=frame["subject_id"] + 5_000_000))
    with pytest.raises(
        InputError, match=r"train.csv: column subject_id: data row 1 gives the admission to another patient .*18 such"
    ):
        build_cohort(filled.config(splits_from=release, candidates=SIZE), workspace, QUIET)


def test_files_without_any_admission_of_the_cohort_leave_it_empty(filled, workspace, release):
    for name in ("train.csv", "val.csv", "test.csv", "val_retrieval.csv"):
        change(release, name, lambda frame: frame.assign(hadm_id=frame["hadm_id"] + 900).drop(columns=["subject_id"]))
    for name in ("test.csv", "val_retrieval.csv"):
        change(release, name, lambda frame: frame.assign(label_hadm_id=frame["label_hadm_id"] + 900))
    with pytest.raises(InputError, match=r"after the step 'in a split' \(in none of the files train.csv"):
        build_cohort(filled.config(splits_from=release, candidates=SIZE), workspace, QUIET)


def test_another_size_of_sets_asks_for_the_size_of_the_files(filled, workspace, release):
    with pytest.raises(InputError, match=r"have 4 candidates, but cohort.candidates = 10; set cohort.candidates = 4"):
        build_cohort(filled.config(splits_from=release), workspace, QUIET)


def test_a_missing_file_is_named_with_what_is_there(release):
    (release / "val.csv").unlink()
    with pytest.raises(InputError, match=r"has no val.csv, val.csv.gz or val.parquet.*It has: symile_mimic_data.csv, test.csv"):
        find_split_files(release)
    with pytest.raises(InputError, match=r"there is no such folder; cohort.splits_from"):
        find_split_files(release / "absent")


def test_two_formats_of_one_file_are_refused(release):
    rows(parts()["train"]).to_parquet(release / "train.parquet")
    with pytest.raises(InputError, match=r"holds both train.csv and train.parquet"):
        find_split_files(release)


def drop(column: str):
    return lambda frame: frame.drop(columns=column)


def put(row: int, column: str, value: object):
    def edit(frame: pd.DataFrame) -> pd.DataFrame:
        frame = frame.astype({column: object})
        frame.loc[row, column] = value
        return frame

    return edit


def again(row: int):
    return lambda frame: pd.concat([frame, frame.iloc[[row]]])


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        ("train.csv", drop("hadm_id"), "train.csv: lacks the column(s) hadm_id"),
        ("train.csv", put(3, "hadm_id", None), "train.csv: column hadm_id: data row 4 is empty"),
        ("train.csv", put(2, "subject_id", None), "train.csv: column subject_id: data row 3 is empty"),
        ("train.csv", again(1), "train.csv: column hadm_id: data rows 2 and 19 hold the same admission"),
        ("train.csv", lambda frame: frame.iloc[:0], "train.csv: has no row"),
        ("train.csv", put(0, "hadm_id", ADMISSION + 20), "1 admissions are in more than one of train.csv, val.csv, test.csv"),
        ("test.csv", drop("label"), "test.csv: lacks the column(s) label: candidate sets need both"),
        ("val_retrieval.csv", drop("label_hadm_id"), "val_retrieval.csv: lacks the column(s) label_hadm_id"),
        ("test.csv", put(0, "label", 2), "test.csv: column label: data row 1 is neither 0 nor 1"),
        ("test.csv", put(12, "label", 1), "test.csv: column label: data row 13 is 1 beside a negative"),
        ("test.csv", again(15), "test.csv: column hadm_id: data rows 16 and 41 hold the same admission of the same set"),
        ("test.csv", lambda frame: frame.iloc[1:], "test.csv: column label_hadm_id: data row 10 is of a set without its query"),
        ("test.csv", lambda frame: frame.iloc[:-1], "have 3 to 4 candidates, but each needs as many as the others"),
        ("val_retrieval.csv", put(9, "hadm_id", ADMISSION), "data row 10 is of an admission that is not in val.csv"),
    ],
)
def test_a_mistake_in_a_file_names_the_file_the_column_and_the_row(release, name, edit, message):
    change(release, name, edit)
    with pytest.raises(InputError) as caught:
        read(release)
    assert message in str(caught.value)
    assert "2000000" not in str(caught.value), "no id"


def test_a_damaged_file_is_named(release):
    (release / "train.csv").write_text('hadm_id\n"1\n')
    with pytest.raises(InputError, match=r"train.csv: cannot be read as CSV"):
        read(release)
    (release / "train.csv").unlink()
    (release / "train.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"train.parquet: cannot be read as Parquet"):
        read(release)


def test_parquet_ids_may_be_numbers_text_or_whole_floats_and_nothing_else(release):
    (release / "train.csv").unlink()
    file = release / "train.parquet"
    for kind in ("int64", "float64", "str"):
        rows(parts()["train"]).astype({"hadm_id": kind}).to_parquet(file)
        assert read(release).members["hadm"].tolist()[:2] == [str(ADMISSION), str(ADMISSION + 1)]
    rows(parts()["train"]).assign(hadm_id=0.5).to_parquet(file)
    with pytest.raises(InputError, match=r"train.parquet: column hadm_id: holds numbers that are not whole"):
        read(release)
    rows(parts()["train"]).assign(hadm_id=pd.Timestamp("2150-01-01")).to_parquet(file)
    with pytest.raises(InputError, match=r"train.parquet: column hadm_id: holds timestamp"):
        read(release)


@given(st.integers(0, 10**18), st.sampled_from(["{}", "0{}", "{}.0", " {} "]))
def test_whole_numbers_are_alike_however_they_are_written(number, form):
    assert canonical_id(form.format(number)) == str(number)


@pytest.mark.parametrize("text", ["A-7", "7a", "1.5", "-3", "1e3"])
def test_other_ids_stay_as_they_are(text):
    assert canonical_id(text) == text


def test_the_configuration_knows_where_the_files_are_and_what_else_can_decide(tmp_path):
    file = tmp_path / "experiment.yaml"
    file.write_text("cohort:\n  splits_from: release\n")
    assert load_config(file).cohort.splits_from == tmp_path / "release"
    with pytest.raises(ConfigError, match="splits_from decides all splits, so val_size and stratify_by can decide nothing"):
        load_config(file, ["cohort.val_size=3", "cohort.stratify_by=[gender]"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("cohort.stratify_by=[gender,gender]", "names an attribute twice"),
        ("cohort.stratify_by=[insurance]", "cohort.stratify_by.0 = 'insurance'"),
        ("cohort.val_size=0", "cohort.val_size = 0"),
    ],
)
def test_a_wrong_option_of_the_splits_is_named(override, message):
    with pytest.raises(ConfigError) as caught:
        load_config(None, [override])
    assert message in str(caught.value)


def test_an_attribute_needs_its_modality():
    with pytest.raises(ConfigError, match=r"stratify_by = n_labs needs labs in cohort\.require"):
        load_config(None, ["cohort.require=[cxr,ecg]", "cohort.stratify_by=[n_labs]"])


def test_a_size_replaces_the_fraction_it_stands_for():
    assert load_config(None, ["cohort.val_fraction=0.9", "cohort.test_size=5"]).cohort.test_size == 5
    with pytest.raises(ConfigError, match="nothing is left to train on"):
        load_config(None, ["cohort.val_fraction=0.9", "cohort.train_size=5"])

"""A damaged, changed or contradictory release is refused; the message names the file and the remedy, and nothing is imported."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from clinical_symile.config import ExperimentConfig
from clinical_symile.dataset import import_released_dataset
from clinical_symile.errors import InputError
from clinical_symile.stage import RunOptions, Workspace
from clinical_symile.types import LAB_ITEM_IDS

QUIET = RunOptions(quiet=True, jobs=1)
Released = Any
"""``Released`` of conftest.py."""
Damage = Callable[[Path], None]


@pytest.fixture(autouse=True)
def nothing_large_is_left(tmp_path: Path) -> Iterator[None]:
    """Pytest would keep the copies of three runs."""
    yield
    shutil.rmtree(tmp_path)


def npy(folder: Path, what: str, part: str) -> Path:
    return folder / "data_npy" / part / f"{what}_{part}.npy"


def replace(file: Path, content: bytes | np.ndarray | pd.DataFrame) -> None:
    """Puts another file in the place of a link."""
    file.unlink()
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif isinstance(content, pd.DataFrame):
        content.to_csv(file, index=False)
    else:
        np.save(file, content)


def array(what: str, part: str, change: Callable[[np.ndarray], np.ndarray]) -> Damage:
    """Changes a tensor."""
    return lambda folder: replace(npy(folder, what, part), change(np.load(npy(folder, what, part))))


def table(name: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Damage:
    """Changes a CSV file."""
    return lambda folder: replace(folder / name, change(pd.read_csv(folder / name)))


def content(name: str, change: Callable[[bytes], bytes]) -> Damage:
    """Changes the bytes of a file."""
    return lambda folder: replace(folder / name, change((folder / name).read_bytes()))


def without(name: str) -> Damage:
    """Removes a file."""
    return lambda folder: (folder / name).unlink()


def both(*damages: Damage) -> Damage:
    """One after the other."""
    return lambda folder: [damage(folder) for damage in damages] and None


def with_cell(column: str, row: int, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Sets one cell."""

    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame = frame.astype({column: object})
        frame.loc[row, column] = value
        return frame

    return change


def repeated_row(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([frame, frame.iloc[[2]]])


def flip_one(observed: np.ndarray) -> np.ndarray:
    observed[3, 7] = 1 - observed[3, 7]
    return observed


def in_place(change: Callable[[np.ndarray], None]) -> Callable[[np.ndarray], np.ndarray]:
    """For changes that return nothing."""

    def changed(values: np.ndarray) -> np.ndarray:
        change(values)
        return values

    return changed


def nudge(values: np.ndarray) -> None:
    values[1, 1] += 1e-3


def tear_a_patient(folder: Path) -> None:
    """Gives a test admission the patient of a train admission, in every table."""
    subject = int(pd.read_csv(folder / "train.csv")["subject_id"][0])
    hadm_id = int(pd.read_csv(folder / "test.csv")["hadm_id"][0])
    for name in ("symile_mimic_data.csv", "test.csv"):
        frame = pd.read_csv(folder / name)
        frame.loc[frame["hadm_id"] == hadm_id, "subject_id"] = subject
        replace(folder / name, frame)


def turn_raw_values_around(folder: Path) -> None:
    """Negates one item's raw values in every table, so that its percentiles no longer follow from them."""
    for name in ("symile_mimic_data.csv", "train.csv", "val.csv", "val_retrieval.csv", "test.csv"):
        frame = pd.read_csv(folder / name)
        replace(folder / name, frame.assign(**{"51221": -frame["51221"]}))


def cut_train(folder: Path) -> None:
    """A third of the training split, tables and tensors alike, as a researcher may do it."""
    frame = pd.read_csv(folder / "train.csv")[:12]
    replace(folder / "train.csv", frame)
    for what in ("cxr", "ecg", "labs_percentiles", "labs_missingness", "hadm_id"):
        replace(npy(folder, what, "train"), np.load(npy(folder, what, "train"))[:12])


DATA, MEANS = "symile_mimic_data.csv", "labs_means.json"
CUT_CXR = "data_npy/test/cxr_test.npy"
CUT_LABS = "data_npy/val/labs_missingness_val.npy"

DAMAGES: dict[str, tuple[Damage, str]] = {
    # files
    "no data csv": (without(DATA), r"symile_mimic_data\.csv: there is no such file; give the folder"),
    "no test csv": (without("test.csv"), r"test\.csv: there is no such file; download it from physionet\.org"),
    "no pictures": (without("data_npy/train/cxr_train.npy"), r"cxr_train\.npy: there is no such file; download it"),
    "no means": (without(MEANS), r"labs_means\.json: there is no such file"),
    "no keys": (
        both(without("data_npy/val_retrieval/label_val_retrieval.npy"), without("data_npy/val/hadm_id_val.npy")),
        r"hadm_id_val\.npy: there is no such file \(and 1 others: .*label_val_retrieval\.npy\)",
    ),
    "torch files": (
        lambda folder: npy(folder, "ecg", "val").rename(npy(folder, "ecg", "val").with_suffix(".pt")) and None,
        r"ecg_val\.npy: there is no such file; only the \.npy files of PhysioNet's release are read, not \.pt",
    ),
    # arrays
    "pictures cut short": (
        content(CUT_CXR, lambda content: content[:-1000]),
        r"cxr_test\.npy: has \d+ bytes, but its header asks for \d+: it is cut short or damaged; download it again",
    ),
    "labs cut short": (
        content(CUT_LABS, lambda content: content[:-8]),
        r"labs_missingness_val\.npy: is no \.npy file, or is cut",
    ),
    "empty file": (
        content("data_npy/val/ecg_val.npy", lambda _: b""),
        r"ecg_val\.npy: is no \.npy file, or its start is damaged",
    ),
    "html": (content("data_npy/val/hadm_id_val.npy", lambda _: b"<html>"), r"hadm_id_val\.npy: is no \.npy file"),
    "pickle": (
        lambda folder: replace(npy(folder, "label", "test"), np.array([object()] * 3)),
        r"label_test\.npy: is no \.npy file, or is cut short or damaged",
    ),
    "double precision": (
        array("ecg", "val", lambda ecg: ecg.astype(np.float64)),
        r"ecg_val\.npy: holds \(\d+, 1, 5000, 12\) float64, but \(n, 1, 5000, 12\) float32 is expected",
    ),
    "channels last": (
        array("cxr", "val", lambda cxr: np.ascontiguousarray(np.moveaxis(cxr, 1, -1))),
        r"cxr_val\.npy: holds \(\d+, 320, 320, 3\) float32, but \(n, 3, 320, 320\) float32",
    ),
    "column-major": (array("cxr", "val", np.asfortranarray), r"cxr_val\.npy: holds .*float32, column-major, but"),
    "leads first": (array("ecg", "test", lambda ecg: ecg.swapaxes(2, 3).copy()), r"ecg_test\.npy: holds \(\d+, 1, 12, 5000\)"),
    "too few pictures": (
        array("cxr", "val", lambda cxr: cxr[:-1]),
        r"cxr_val\.npy: has \d+ rows, but .*hadm_id_val\.npy has \d+",
    ),
    "too few labs": (array("labs_percentiles", "val", lambda labs: labs[:-1]), r"labs_percentiles_val\.npy: has \d+ rows, but"),
    "49 labs": (array("labs_percentiles", "val", lambda labs: labs[:, :-1]), r"labs_percentiles_val\.npy: holds \(\d+, 49\)"),
    "labs flag as float": (
        array("labs_missingness", "val", lambda labs: labs / 2),
        r"labs_missingness_val\.npy: holds .*float64",
    ),
    "scalar": (lambda folder: replace(npy(folder, "hadm_id", "val"), np.array(5)), r"hadm_id_val\.npy: holds \(\) int64"),
    "archive": (
        lambda folder: (
            np.savez(npy(folder, "label", "test").with_suffix(""))
            or npy(folder, "label", "test").unlink()
            or (npy(folder, "label", "test").with_suffix(".npz").rename(npy(folder, "label", "test")) and None)
        ),
        r"label_test\.npy: is an archive, not a \.npy file",
    ),
    # tables
    "a column of the data csv": (
        table(DATA, lambda frame: frame.drop(columns=["ecg_path", "51221"])),
        r"symile_mimic_data\.csv: lacks 2 of the \d+ columns that are used \(ecg_path, 51221\)",
    ),
    "a column of train": (table("train.csv", lambda frame: frame.drop(columns="50802_percentile")), r"train\.csv: lacks 1 of"),
    "a column of test": (table("test.csv", lambda frame: frame.drop(columns="label")), r"test\.csv: lacks 1 of .*\(label\)"),
    "csv cut within a line": (content("val.csv", lambda content: content[:-300]), r"val\.csv: cannot be read as CSV"),
    "csv with a header only": (table("val.csv", lambda frame: frame[:0]), r"val\.csv: has no row below its header"),
    "empty csv": (content("val.csv", lambda _: b""), r"val\.csv: lacks"),
    "no utf-8": (content("val.csv", lambda _: b"\xff\xfe\x00"), r"val\.csv: cannot be read as CSV"),
    "text for an id": (
        table(DATA, with_cell("hadm_id", 4, "x")),
        r"data\.csv: column hadm_id: data row 5 is not a number \(1 such",
    ),
    "half an id": (table(DATA, with_cell("hadm_id", 4, 2.5)), r"column hadm_id: data row 5 is not a whole number"),
    "no id": (table(DATA, with_cell("subject_id", 0, None)), r"column subject_id: data row 1 is empty"),
    "no time": (table(DATA, with_cell("ecg_time", 1, "noon")), r"column ecg_time: data row 2 is not a time such as"),
    "infinite lab": (table(DATA, with_cell("51221", 1, "inf")), r"column 51221: data row 2 is not a number"),
    # keys
    "an admission twice": (table(DATA, repeated_row), r"data\.csv: column hadm_id: 2 rows share an admission .* data row 3"),
    "an admission twice in train": (table("train.csv", repeated_row), r"train\.csv: column hadm_id: 2 rows share"),
    "an unknown admission": (
        table("val.csv", with_cell("hadm_id", 2, 1)),
        r"val\.csv: 1 of \d+ rows are of admissions that symile",
    ),
    "another patient": (
        table("val.csv", with_cell("subject_id", 2, 1)),
        r"val\.csv: column subject_id: data row 3 contradicts symile",
    ),
    "another raw value": (
        table("test.csv", with_cell("51221", 2, 1e6)),
        r"test\.csv: column 51221: data row 3 contradicts symile",
    ),
    "a patient in two splits": (tear_a_patient, r"1 patients have admissions in more than one split"),
    "the same split twice": (
        lambda folder: replace(folder / "val.csv", (folder / "train.csv").read_bytes()),
        r"val\.csv: \d+ of its admissions are in another split's file, too",
    ),
    "val_retrieval of others": (
        lambda folder: replace(folder / "val_retrieval.csv", (folder / "test.csv").read_bytes()),
        r"val_retrieval\.csv: \d+ of its admissions are not in val\.csv",
    ),
    "keys of others": (
        array("hadm_id", "train", lambda ids: ids + 1),
        r"hadm_id_train\.npy: has .* disagree \(\d+ admissions are in",
    ),
    "a key twice": (
        array("hadm_id", "test", in_place(lambda ids: ids.__setitem__(0, ids[1]))),
        r"hadm_id_test\.npy: .*the same admissions, but for other queries or as often|hadm_id_test\.npy: .*admissions are in one",
    ),
    "labels of others": (array("label", "test", lambda label: 1 - label), r"hadm_id_test\.npy: .* they disagree \(the same adm"),
    "queries of others": (
        array("label_hadm_id", "val_retrieval", lambda ids: ids[::-1].copy()),
        r"hadm_id_val_retrieval\.npy: .*disagree",
    ),
    "too few labels": (
        array("label", "test", lambda label: label[1:]),
        r"label_test\.npy: has \d+ rows, but hadm_id_test\.npy has",
    ),
    "shifted pictures": (
        array("cxr", "test", lambda cxr: np.roll(cxr, 1, axis=0)),
        r"cxr_test\.npy: rows \d+ and \d+ are of one admission, says .*, but they differ",
    ),
    "shifted ecgs": (array("ecg", "test", lambda ecg: np.roll(ecg, 1, axis=0)), r"ecg_test\.npy: rows \d+ and \d+ are of one"),
    # candidate sets
    "label 2": (table("test.csv", with_cell("label", 0, 2)), r"test\.csv: column label: holds something else than 0 and 1"),
    "no positive": (table("test.csv", with_cell("label", 0, 0)), r"test\.csv: 1 queries do not have themselves as their one"),
    "a set too small": (table("test.csv", lambda frame: frame[:-1]), r"test\.csv: its queries have 3 to 4 candidates"),
    # labs
    "inverted flags": (
        array("labs_missingness", "val", lambda observed: 1 - observed),
        r"labs_missingness_val\.npy: is inverted: .* 1 means measured, whatever the file's name says",
    ),
    "one flag": (
        array("labs_missingness", "train", flip_one),
        r"labs_missingness_train\.npy: row 3, column 7 \(item 50862\) says (measured|missing), but train\.csv has ",
    ),
    "flag 2": (array("labs_missingness", "val", lambda observed: 2 * observed), r"holds something else than 0 and 1"),
    "rows of labs shuffled": (
        both(
            array("labs_missingness", "train", lambda labs: labs[::-1].copy()),
            array("labs_percentiles", "train", lambda labs: labs[::-1].copy()),
        ),
        r"labs_missingness_train\.npy: row \d+, column \d+ .* the rows those of hadm_id",
    ),
    "columns of percentiles reversed": (
        array("labs_percentiles", "train", lambda labs: labs[:, ::-1].copy()),
        r"labs_percentiles_train\.npy: row 0, column \d+ is .* such values in 50 columns\); the columns must be the keys",
    ),
    "a percentile": (
        array("labs_percentiles", "val", in_place(nudge)),
        r"labs_percentiles_val\.npy: row 1, column 1 is .*\(1 such",
    ),
    "a NaN percentile": (
        array("labs_percentiles", "val", in_place(lambda labs: labs.__setitem__((0, 0), np.nan))),
        r"labs_percentiles_val\.npy: row 0, column 0 is nan",
    ),
    "raw values turned around": (
        turn_raw_values_around,
        r"item 51221: the percentiles are up to .* Either columns are in a wrong",
    ),
    "a part of train": (cut_train, r"or train\.csv is only a part of the training split: take all of it"),
    "means that are no JSON": (content(MEANS, lambda _: b"{"), r"labs_means\.json: cannot be read as JSON"),
    "means of others": (
        content(MEANS, lambda text: text.replace(b"51221", b"51222x")),
        r"labs_means\.json: must have the 50 keys",
    ),
    "a mean that is NaN": (
        content(MEANS, lambda text: json.dumps({**json.loads(text), "51221_percentile": float("nan")}).encode()),
        r"labs_means\.json: holds a value that is no percentile",
    ),
    "another mean": (
        content(MEANS, lambda text: json.dumps({**json.loads(text), "51221_percentile": 0.1}).encode()),
        rf"(column {LAB_ITEM_IDS.index('51221')} is .* _percentile of labs_means\.json says 0\.1|item 51221: the perc)",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_named_with_a_remedy(released: Released, tmp_path: Path, name: str) -> None:
    damage, message = DAMAGES[name]
    folder = released.copy(tmp_path / "release")
    damage(folder)
    with pytest.raises(InputError, match=message):
        import_released_dataset(ExperimentConfig(), Workspace(tmp_path / "ws"), QUIET, folder)
    assert not (tmp_path / "ws" / "dataset" / "manifest.json").exists()


def test_a_negative_that_is_called_positive(released: Released, tmp_path: Path) -> None:
    folder = released.copy(tmp_path / "release")
    frame = pd.read_csv(folder / "test.csv")
    replace(folder / "test.csv", frame.assign(label=np.where(frame.index == len(frame) - 1, 1, frame["label"])))
    with pytest.raises(InputError, match=r"test\.csv: \d+ queries do not have themselves as their one positive"):
        import_released_dataset(ExperimentConfig(), Workspace(tmp_path / "ws"), QUIET, folder)


@pytest.mark.parametrize("name", ["train.csv", "data_npy/val/labs_percentiles_val.npy", "data_npy/train/cxr_train.npy"])
def test_a_flipped_bit_is_found_by_its_checksum(released: Released, tmp_path: Path, name: str) -> None:
    folder = released.copy(tmp_path / "release", sums=True)
    data = bytearray((folder / name).read_bytes())
    data[-5] ^= 1
    replace(folder / name, bytes(data))
    with pytest.raises(InputError, match=rf"{Path(name).name}: its SHA-256 is .* SHA256SUMS\.txt says .* download it again"):
        import_released_dataset(ExperimentConfig(), Workspace(tmp_path / "ws"), QUIET, folder)
    assert not (tmp_path / "ws" / "dataset" / "manifest.json").exists()


def test_a_file_that_is_used_must_be_listed(released: Released, tmp_path: Path) -> None:
    folder = released.copy(tmp_path / "release", sums=True)
    lines = (folder / "SHA256SUMS.txt").read_text().splitlines(keepends=True)
    replace(folder / "SHA256SUMS.txt", "".join(line for line in lines if "ecg_test" not in line).encode())
    with pytest.raises(InputError, match=r"ecg_test\.npy: is used, but SHA256SUMS\.txt does not list it \(1 such files\)"):
        import_released_dataset(ExperimentConfig(), Workspace(tmp_path / "ws"), QUIET, folder)


def test_the_folder_above_is_a_near_miss(released: Released, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"did you mean {released.folder}\?"):
        import_released_dataset(ExperimentConfig(), Workspace(tmp_path), QUIET, released.folder.parent)
    with pytest.raises(InputError, match="there is no such folder"):
        import_released_dataset(ExperimentConfig(), Workspace(tmp_path), QUIET, tmp_path / "nowhere")


def test_whole_numbers_with_a_decimal_point_are_read(released: Released, tmp_path: Path, imported: Workspace) -> None:
    """Pandas writes a column of whole numbers so once it had an empty cell."""
    folder = released.copy(tmp_path / "release")
    frame = pd.read_csv(folder / DATA)
    replace(folder / DATA, frame.astype({"age": float, "ecg_study_id": float, "hadm_id": float, "cxr_study_id": float}))
    import_released_dataset(ExperimentConfig(), Workspace(tmp_path / "ws"), QUIET, folder)
    read = [pd.read_parquet(workspace.cohort / "admissions.parquet") for workspace in (Workspace(tmp_path / "ws"), imported)]
    pd.testing.assert_frame_equal(*read)

"""The release of Symile-MIMIC, imported: the same cohort and store as from the raw files, and resumable like any stage."""

from __future__ import annotations

import importlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from clinical_symile.cli import pipeline
from clinical_symile.cli.common import Invocation
from clinical_symile.cohort import build_cohort, schema
from clinical_symile.cohort.attrition import read_attrition
from clinical_symile.config import ExperimentConfig, HospitalConfig, PrepareConfig
from clinical_symile.dataset import ArrayStore, import_released_dataset, make_batch, prepare
from clinical_symile.errors import IncompleteStage, InputError, TooManyRejects
from clinical_symile.modalities.cxr import crop
from clinical_symile.modalities.labs import LabStatistics
from clinical_symile.stage import RunOptions, Workspace, require_complete
from clinical_symile.types import LAB_ITEM_IDS

QUIET = RunOptions(quiet=True, jobs=1)
CONFIG = ExperimentConfig()
TOLERANT = ExperimentConfig(prepare=PrepareConfig(max_reject_share=0.5))
Released = Any
"""``Released`` of conftest.py."""


@pytest.fixture(autouse=True)
def nothing_large_is_left(tmp_path: Path) -> Iterator[None]:
    """Pytest would keep the copies of three runs."""
    yield
    shutil.rmtree(tmp_path)


@pytest.fixture(scope="module")
def store(imported: Workspace) -> ArrayStore:
    return ArrayStore.open(imported.dataset)


@pytest.fixture(scope="module")
def ordinary(released: Released) -> ArrayStore:
    """The store that ``prepare`` made of the same admissions' raw files."""
    return ArrayStore.open(released.ordinary.dataset)


def tensors(folder: Path, what: str, part: str) -> np.ndarray:
    return np.load(folder / "data_npy" / part / f"{what}_{part}.npy")


def replace(file: Path, array: np.ndarray) -> None:
    """Writes another file in the place of a link."""
    file.unlink()
    np.save(file, array)


# --- the same as from the raw files --------------------------------------------------------------------------------------------


def test_the_table_is_that_of_prepare(store: ArrayStore, ordinary: ArrayStore) -> None:
    own = ["cxr_offset", "cxr_height", "cxr_width", "cxr_sha256", "ecg_sha256"]
    pd.testing.assert_frame_equal(store.table.drop(columns=own), ordinary.table.drop(columns=own))
    assert store.table.columns.tolist() == ordinary.table.columns.tolist()
    assert (store.table[["cxr_height", "cxr_width"]] == 320).all(axis=None)


def test_pictures_are_the_raw_files_crops(released: Released, store: ArrayStore, ordinary: ArrayStore) -> None:
    for row in range(len(store)):
        corner = released.corners.get(int(store.table["hadm_id"][row]))
        np.testing.assert_array_equal(store.cxr(row), crop(ordinary.cxr(row), corner=corner))
    assert set(released.corners) == set(store.table.loc[store.rows("train"), "hadm_id"])


def test_batches_give_back_the_released_tensors(released: Released, store: ArrayStore) -> None:
    """Pictures bit for bit, ECGs within one rounding of float32, labs bit for bit; for every row of every part."""
    row_of = pd.Series(np.arange(len(store)), index=store.table["hadm_id"])
    for part in ("train", "val", "test"):
        rows = row_of[tensors(released.folder, "hadm_id", part)].to_numpy()
        batch = make_batch(store, rows)
        np.testing.assert_array_equal(batch["cxr"].numpy(), tensors(released.folder, "cxr", part))
        np.testing.assert_allclose(batch["ecg"].numpy(), tensors(released.folder, "ecg", part), rtol=0, atol=6e-8)
        names = ("labs_percentiles", "labs_missingness")
        labs = np.concatenate([tensors(released.folder, name, part) for name in names], axis=1)
        np.testing.assert_array_equal(batch["labs"].numpy(), labs.astype(np.float32))


def test_ecgs_are_the_raw_files_up_to_an_offset(store: ArrayStore, ordinary: ArrayStore) -> None:
    difference = store.ecg_adc.astype(np.int64) - ordinary.ecg_adc
    assert (np.ptp(difference, axis=(1, 2)) == 0).all(), "the ADC values of every record are known again"
    for row in (0, 5):
        seen = [make_batch(each, [row])["ecg"].numpy() for each in (store, ordinary)]
        np.testing.assert_allclose(*seen, rtol=0, atol=6e-8)


def test_what_is_called_mv_is_the_releases_own_scale(released: Released, store: ArrayStore) -> None:
    assert not store.ecg_is_calibrated
    hadm_id = tensors(released.folder, "hadm_id", "train")[0]
    row = int(np.flatnonzero(store.table["hadm_id"] == hadm_id)[0])
    np.testing.assert_allclose(store.ecg_mv(row), tensors(released.folder, "ecg", "train")[0, 0], rtol=0, atol=1e-7)


def test_labs_are_those_of_prepare(imported: Workspace, released: Released, store: ArrayStore, ordinary: ArrayStore) -> None:
    for name in ("labs", "labs_observed", "labs_values"):
        np.testing.assert_array_equal(getattr(store, name), getattr(ordinary, name))
    ours, theirs = (
        LabStatistics.from_json((workspace.dataset / "labs_statistics.json").read_text())
        for workspace in (imported, released.ordinary)
    )
    assert ours.to_json() == theirs.to_json()


def test_missingness_means_measured(released: Released, store: ArrayStore) -> None:
    """The array's name says the opposite of what is in it."""
    csv = pd.read_csv(released.folder / "symile_mimic_data.csv").set_index("hadm_id")
    measured = csv.loc[store.table["hadm_id"], list(LAB_ITEM_IDS)].notna()
    np.testing.assert_array_equal(store.labs_observed, measured)
    assert 0 < measured.to_numpy().mean() < 1


def test_candidate_sets_are_exactly_the_released_ones(released: Released, store: ArrayStore) -> None:
    for split, file in (("val", "val_retrieval"), ("test", "test")):
        csv = pd.read_csv(released.folder / f"{file}.csv")
        queries, candidates, positive = store.candidates(split)
        hadm_ids = store.table["hadm_id"].to_numpy()
        found = dict(zip(hadm_ids[queries], hadm_ids[candidates].tolist(), strict=True))
        assert found == csv.groupby("label_hadm_id")["hadm_id"].apply(list).to_dict()
        np.testing.assert_array_equal(np.take_along_axis(candidates, positive[:, None], axis=1)[:, 0], queries)


# --- the cohort ----------------------------------------------------------------------------------------------------------------


def test_the_cohort_is_that_of_the_raw_tables(imported: Workspace, released: Released) -> None:
    ours, theirs = (pq.read_table(each.cohort / "admissions.parquet") for each in (imported, released.ordinary))
    assert ours.schema.equals(schema.ADMISSIONS)
    assert ours.equals(theirs)
    assert pq.read_table(imported.cohort / "candidates.parquet").schema.equals(schema.CANDIDATES)
    assert len(pd.read_parquet(imported.cohort / "rejects.parquet")) == 0


def test_a_bit_in_the_last_place_is_no_contradiction(released: Released, tmp_path: Path) -> None:
    """The authors read one CSV to write the other, with a parser that is not exact to the last bit."""
    folder = released.copy(tmp_path / "release")
    frame = pd.read_csv(folder / "train.csv", float_precision="round_trip")
    (folder / "train.csv").unlink()
    frame.assign(**{"51221": np.nextafter(frame["51221"], np.inf)}).to_csv(folder / "train.csv", index=False)
    workspace = Workspace(tmp_path / "ws")
    import_released_dataset(CONFIG, workspace, QUIET, folder)
    ours, theirs = (pq.read_table(each.cohort / "admissions.parquet") for each in (workspace, released.ordinary))
    assert ours.equals(theirs)


def test_attrition_adds_up(imported: Workspace, released: Released) -> None:
    first, second = read_attrition(imported.cohort)["steps"]
    assert first["included"] == second["included"] + second["excluded"]
    assert second["excluded"] == released.left_out
    counts = require_complete(imported.cohort, "cohort")["counts"]
    assert counts["admissions"] == second["included"] == counts["train"] + counts["val"] + counts["test"]


def test_the_manifest_says_what_was_kept_and_lost(imported: Workspace) -> None:
    manifest = require_complete(imported.dataset, "prepare")
    n = manifest["counts"]["admissions"]
    assert manifest["access"] == "credentialed"
    assert manifest["hospital"]["kind"] == "symile-mimic-release"
    assert manifest["ecg_units"] == "arbitrary"
    fidelity = manifest["fidelity"]
    assert (fidelity["cxr_bit_for_bit"], fidelity["cxr_largest_error"], fidelity["cxr_in_colours"]) == (n, 0, 0)
    assert fidelity["ecg_adc_recovered"] == n
    assert fidelity["ecg_largest_error"] <= 6e-8
    assert fidelity["labs_largest_difference_when_refitted"] < 1e-6
    assert len(manifest["lost"]) == 2
    assert "320 x 320" in manifest["lost"][0]
    assert manifest["candidates"]["val"]["sets"] == manifest["counts"]["val"]
    assert manifest["source"]["checksums"] == "SHA256SUMS.txt"
    assert manifest["source"]["repeated_rows_compared"] > 0


def test_the_access_class_may_be_given(released: Released, tmp_path: Path) -> None:
    config = ExperimentConfig(hospital=HospitalConfig(access="synthetic"))
    import_released_dataset(config, Workspace(tmp_path), QUIET, released.folder)
    assert ArrayStore.open(Workspace(tmp_path).dataset).access == "synthetic"


# --- rows that cannot be used, or not exactly ----------------------------------------------------------------------------------


def test_rows_that_cannot_be_used_are_rejected_with_reasons(released: Released, tmp_path: Path) -> None:
    folder = released.copy(tmp_path / "release")
    ecg, cxr = tensors(folder, "ecg", "train"), tensors(folder, "cxr", "test")
    ecg[4] = np.nan
    ecg[5, 0, 17, 3] = np.nan
    test_ids = tensors(folder, "hadm_id", "test")
    cxr[test_ids == test_ids[0], 1, 2, 3] = np.inf
    replace(folder / "data_npy" / "train" / "ecg_train.npy", ecg)
    replace(folder / "data_npy" / "test" / "cxr_test.npy", cxr)
    strict = ExperimentConfig(prepare=PrepareConfig(max_reject_share=0.04))
    with pytest.raises(TooManyRejects, match="3 of 60 admissions"):
        import_released_dataset(strict, Workspace(tmp_path / "a"), QUIET, folder)
    workspace = Workspace(tmp_path / "b")
    manifest = import_released_dataset(TOLERANT, workspace, QUIET, folder)
    rejects = pd.read_parquet(workspace.dataset / "rejects.parquet").set_index("item")
    train_ids = tensors(folder, "hadm_id", "train")
    assert rejects.loc[str(train_ids[4]), "reason"].startswith("the ECG is NaN throughout: the record was constant")
    assert rejects.loc[str(train_ids[4]), "path"] == "ecg_train.npy, row 4"
    assert rejects.loc[str(train_ids[5]), "reason"] == "the ECG holds NaN or infinity"
    assert rejects.loc[str(test_ids[0]), "reason"] == "the X-ray holds NaN or infinity"
    assert manifest["counts"]["rejected"] == 3
    # The statistics remain those of the whole training split, whose percentiles the tensors hold.
    everyone = Workspace(tmp_path / "c")
    import_released_dataset(CONFIG, everyone, QUIET, released.folder)
    assert (workspace.dataset / "labs_statistics.json").read_text() == (everyone.dataset / "labs_statistics.json").read_text()
    changed = manifest["candidates"]["test"]["sets_changed_because_of_rejects"]
    csv = pd.read_csv(folder / "test.csv")
    assert changed == csv.loc[csv["hadm_id"] == test_ids[0], "label_hadm_id"].nunique()


def test_pictures_and_ecgs_of_another_kind_are_taken_and_told(released: Released, tmp_path: Path) -> None:
    folder = released.copy(tmp_path / "release")
    cxr, ecg = tensors(folder, "cxr", "train"), tensors(folder, "ecg", "train")
    cxr[0, 2] = cxr[1, 2]  # another picture's blue
    noise = np.random.default_rng(0).uniform(-1, 1, ecg[3].shape).astype(np.float32)
    noise.flat[:2] = -1, 1
    ecg[3] = noise
    replace(folder / "data_npy" / "train" / "cxr_train.npy", cxr)
    replace(folder / "data_npy" / "train" / "ecg_train.npy", ecg)
    workspace = Workspace(tmp_path / "ws")
    manifest = import_released_dataset(CONFIG, workspace, QUIET, folder)
    fidelity = manifest["fidelity"]
    assert (fidelity["cxr_inexact"], fidelity["cxr_in_colours"], fidelity["ecg_requantised"]) == (1, 1, 1)
    assert fidelity["cxr_largest_error"] > 0.1
    assert 0 < fidelity["ecg_largest_error"] <= 2**-15
    assert len(manifest["lost"]) == 4
    store = ArrayStore.open(workspace.dataset)
    row = int(np.flatnonzero(store.table["hadm_id"] == tensors(folder, "hadm_id", "train")[3])[0])
    np.testing.assert_allclose(make_batch(store, [row])["ecg"][0].numpy(), noise, rtol=0, atol=2**-15)


# --- a stage like the others ---------------------------------------------------------------------------------------------------


def test_done_is_skipped_and_overwrite_does_it_again(
    released: Released, imported: Workspace, monkeypatch: Any, tmp_path: Path
) -> None:
    workspace = Workspace(tmp_path / "ws")
    shutil.copytree(imported.root, workspace.root)
    module = importlib.import_module("clinical_symile.dataset.released.importing")
    with monkeypatch.context() as patch:
        patch.setattr(module, "read_tables", lambda release: pytest.fail("it was done"))
        again = import_released_dataset(CONFIG, workspace, QUIET, released.folder)
    redone = import_released_dataset(CONFIG, workspace, RunOptions(quiet=True, jobs=2, overwrite=True), released.folder)
    assert redone["digest"] == again["digest"], "the same bytes whatever the number of processes"


def test_an_interrupted_import_reuses_its_chunks_and_checksums(
    released: Released, imported: Workspace, tmp_path: Path, monkeypatch: Any
) -> None:
    importing = importlib.import_module("clinical_symile.dataset.released.importing")
    chunks = importlib.import_module("clinical_symile.dataset.released.chunks")
    digests = importlib.import_module("clinical_symile.dataset.released.digests")
    recover, hash_files = chunks.recover_picture, digests.hash_files
    seen: list[str] = []
    hashed: list[str] = []

    def recover_and_stop(tensor: np.ndarray, path: str) -> Any:
        if len(seen) == 40:
            raise RuntimeError("stopped")
        seen.append(path)
        return recover(tensor, path)

    def note(files: dict[str, Path], options: RunOptions) -> Any:
        hashed.extend(name for name in files if "cxr" in name or "ecg" in name)
        return hash_files(files, options)

    workspace = Workspace(tmp_path / "ws")
    monkeypatch.setattr(importing, "CHUNK", 16)
    monkeypatch.setattr(chunks, "recover_picture", recover_and_stop)
    monkeypatch.setattr(digests, "hash_files", note)
    with pytest.raises(RuntimeError, match="stopped"):
        import_released_dataset(CONFIG, workspace, QUIET, released.folder)
    assert len(hashed) == 6
    with pytest.raises(IncompleteStage, match="import dataset DIR"):
        prepare(CONFIG, workspace, QUIET)
    monkeypatch.setattr(chunks, "recover_picture", lambda tensor, path: seen.append(path) or recover(tensor, path))
    seen.clear()
    manifest = import_released_dataset(CONFIG, workspace, QUIET, released.folder)
    assert len(seen) == 60 - 32, "two chunks were finished"
    assert len(hashed) == 6, "gigabytes are not hashed again"
    assert manifest["digest"] == require_complete(imported.dataset, "prepare")["digest"], "not a matter of the chunks' size"


def test_a_file_that_changed_during_the_interruption_is_hashed_again(
    released: Released, tmp_path: Path, monkeypatch: Any
) -> None:
    folder = released.copy(tmp_path / "release", sums=True)
    importing = importlib.import_module("clinical_symile.dataset.released.importing")
    workspace = Workspace(tmp_path / "ws")
    with monkeypatch.context() as patch:
        patch.setattr(importing, "require_equal_repeats", lambda tensors, keys: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            import_released_dataset(CONFIG, workspace, QUIET, folder)
    ecg = tensors(folder, "ecg", "val")
    ecg[0] = -ecg[0]
    replace(folder / "data_npy" / "val" / "ecg_val.npy", ecg)
    with pytest.raises(InputError, match=r"ecg_val\.npy: its SHA-256 is"):
        import_released_dataset(CONFIG, workspace, QUIET, folder)


def test_dry_run_says_what_it_would_do_and_writes_nothing(released: Released, tmp_path: Path, capsys: Any) -> None:
    workspace = Workspace(tmp_path / "ws")
    assert import_released_dataset(CONFIG, workspace, RunOptions(dry_run=True), released.folder) == {}
    printed = capsys.readouterr().out
    counts = require_complete(released.ordinary.cohort, "cohort")["counts"]
    assert f"admissions: 60 (train {counts['train']}, val {counts['val']}, test {counts['test']})" in printed
    for line in ("cohort: would run", "prepare: would run", "MB to read: ", "MB to write", "minutes, roughly: "):
        assert line in printed
    assert not workspace.root.exists()


def test_without_checksums_there_is_a_warning(released: Released, tmp_path: Path, caplog: Any) -> None:
    folder = released.copy(tmp_path / "release")
    manifest = import_released_dataset(CONFIG, Workspace(tmp_path / "ws"), QUIET, folder)
    assert "there is no SHA256SUMS.txt" in caplog.text
    assert manifest["source"]["checksums"] == "none came with the release"
    assert len(manifest["inputs"]["data_npy/train/cxr_train.npy"]) == 64


def test_the_pictures_of_val_retrieval_are_not_needed(released: Released) -> None:
    """They are those of val, ten times: 11 GB that need not be downloaded."""
    assert not (released.folder / "data_npy" / "val_retrieval" / "cxr_val_retrieval.npy").exists()


# --- nothing is clobbered ------------------------------------------------------------------------------------------------------


def test_cohort_and_prepare_leave_the_import_alone(imported: Workspace, caplog: Any) -> None:
    before = {path: path.stat().st_mtime_ns for path in imported.root.rglob("*")}
    for stage in (build_cohort, prepare):
        assert stage(CONFIG, imported, QUIET)["digest"]
    for asked, key in (
        ({"hospital": {"mimic_iv": "x", "mimic_cxr": "x", "mimic_ecg": "x"}}, "hospital.mimic_iv"),
        ({"cohort": {"rules": "strict"}}, "cohort.rules"),
        ({"cohort": {"splits_from": "x"}}, "cohort.splits_from"),
    ):
        for stage in (build_cohort, prepare):
            with pytest.raises(InputError, match=rf"{re.escape(key)} asks for something else"):
                stage(ExperimentConfig.model_validate(asked), imported, QUIET)
    for stage in (build_cohort, prepare):
        with pytest.raises(InputError, match=r"'clinical-symile import dataset DIR --overwrite'"):
            stage(CONFIG, imported, RunOptions(quiet=True, overwrite=True))
    assert {path: path.stat().st_mtime_ns for path in imported.root.rglob("*")} == before


def test_run_does_not_simulate_a_hospital_beside_it(imported: Workspace, tmp_path: Path) -> None:
    def names(workspace: Workspace) -> list[str]:
        return [name for name, _ in pipeline._steps(Invocation(CONFIG, workspace, QUIET))]

    assert names(imported)[:3] == ["cohort", "prepare", "train symile"]
    assert names(Workspace(tmp_path))[0] == "simulate"


def test_another_hospitals_data_are_replaced_only_when_asked(released: Released, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "ws")
    for place in ("cohort", "dataset"):
        shutil.copytree(getattr(released.ordinary, place), getattr(workspace, place))
    with pytest.raises(InputError, match="holds the data of another hospital"):
        import_released_dataset(CONFIG, workspace, QUIET, released.folder)
    assert require_complete(workspace.dataset, "prepare")["hospital"]["kind"] == "mimic"
    import_released_dataset(CONFIG, workspace, RunOptions(quiet=True, jobs=1, overwrite=True), released.folder)
    assert require_complete(workspace.dataset, "prepare")["hospital"]["kind"] == "symile-mimic-release"


def test_the_parts_may_have_any_size(released: Released, tmp_path: Path) -> None:
    """A researcher's own subset: fewer queries in test, fewer admissions in val, and not all of val as queries."""
    folder = released.copy(tmp_path / "release")
    kept_queries = pd.read_csv(folder / "val_retrieval.csv")["label_hadm_id"].unique()[:2]
    for part in ("val_retrieval",):
        csv = pd.read_csv(folder / f"{part}.csv")
        chosen = csv["label_hadm_id"].isin(kept_queries).to_numpy()
        (folder / f"{part}.csv").unlink()
        csv[chosen].to_csv(folder / f"{part}.csv", index=False)
        for what in ("hadm_id", "label_hadm_id", "label"):
            replace(folder / "data_npy" / part / f"{what}_{part}.npy", tensors(folder, what, part)[chosen])
    manifest = import_released_dataset(CONFIG, Workspace(tmp_path / "ws"), QUIET, folder)
    assert manifest["candidates"]["val"]["sets"] == 2
    assert manifest["candidates"]["val"]["admissions_without_a_set"] == manifest["counts"]["val"] - 2

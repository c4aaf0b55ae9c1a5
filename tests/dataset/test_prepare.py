"""The stage ``prepare``: exact arrays, quarantine with reasons, the same bytes however it was run."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import wfdb
from PIL import Image

from clinical_symile.config import ExperimentConfig, PrepareConfig
from clinical_symile.dataset import ArrayStore, make_batch, prepare
from clinical_symile.errors import InputError, TooManyRejects
from clinical_symile.modalities.cxr import read_cxr
from clinical_symile.modalities.labs import LabStatistics
from clinical_symile.stage import RunOptions, Workspace
from clinical_symile.types import ECG_LEADS, LAB_ITEM_IDS

QUIET = RunOptions(quiet=True, jobs=1)
TOLERANT = ExperimentConfig(prepare=PrepareConfig(max_reject_share=0.5))
MakeCohort = Callable[..., Workspace]


@pytest.fixture(scope="module")
def workspace(make_cohort: MakeCohort, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A prepared workspace."""
    made = make_cohort(tmp_path_factory.mktemp("prepared"))
    prepare(ExperimentConfig(), made, QUIET)
    return made


@pytest.fixture(scope="module")
def store(workspace: Workspace) -> ArrayStore:
    """Its store."""
    return ArrayStore.open(workspace.dataset)


def test_images_become_the_papers_tensors_bit_for_bit(workspace: Workspace, store: ArrayStore) -> None:
    """The recipe of the paper, from the raw file: RGB, Resize(320), CenterCrop(320), ToTensor, Normalize."""
    for row in (0, 1, 5):
        picture = Image.open(workspace.root.parent / "files" / f"{row}.jpg").convert("RGB")
        width, height = picture.size
        size = (320, int(320 * height / width)) if width <= height else (int(320 * width / height), 320)
        picture = picture.resize(size, Image.Resampling.BILINEAR)
        left, top = round((picture.width - 320) / 2), round((picture.height - 320) / 2)
        pixels = np.asarray(picture.crop((left, top, left + 320, top + 320)), dtype=np.float32) / np.float32(255)
        mean, std = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
        expected = ((pixels - mean) / std).transpose(2, 0, 1)
        np.testing.assert_array_equal(make_batch(store, [row])["cxr"][0].numpy(), expected)


def test_ecgs_become_the_papers_tensors(workspace: Workspace, store: ArrayStore) -> None:
    """Min-max over the whole record, from wfdb's own physical signal."""
    for row in (0, 7):
        signal = wfdb.rdrecord(str(workspace.root.parent / "files" / f"e{row}"), channel_names=list(ECG_LEADS)).p_signal
        expected = 2 * (signal - signal.min()) / (signal.max() - signal.min()) - 1
        np.testing.assert_allclose(make_batch(store, [row])["ecg"][0, 0].numpy(), expected, atol=6e-8)
        np.testing.assert_allclose(store.ecg_mv(row), signal, atol=1e-6)


def test_laboratory_statistics_are_fitted_on_train_only(workspace: Workspace, store: ArrayStore) -> None:
    admissions = pd.read_parquet(workspace.cohort / "admissions.parquet")
    values = admissions[list(LAB_ITEM_IDS)].to_numpy(np.float32)
    train = (admissions["split"] == "train").to_numpy()
    percentiles, observed = LabStatistics.fit(values[train]).transform(values)
    np.testing.assert_array_equal(store.labs, percentiles)
    np.testing.assert_array_equal(store.labs_observed, observed)
    np.testing.assert_array_equal(store.labs_values, values)
    everyone, _ = LabStatistics.fit(values).transform(values)
    assert not np.array_equal(everyone, percentiles), "otherwise this test could not tell train from all"
    np.testing.assert_array_equal(make_batch(store, [3])["labs"][0].numpy(), np.concatenate([percentiles[3], observed[3]]))


def test_the_same_bytes_with_one_process_or_two_and_after_an_interruption(workspace: Workspace) -> None:
    digest = ArrayStore.open(workspace.dataset).digest
    copy = Workspace(workspace.root.parent / "copy")
    shutil.copytree(workspace.cohort, copy.cohort)
    assert prepare(ExperimentConfig(), copy, RunOptions(quiet=True, jobs=2))["digest"] == digest
    # Interrupted after the first of two chunks.
    resumed = Workspace(workspace.root.parent / "resumed")
    shutil.copytree(workspace.cohort, resumed.cohort)
    chunks = importlib.import_module("clinical_symile.dataset.chunks")
    opened: list[Path] = []

    def read_and_stop(path: Path, **options: bool) -> np.ndarray:
        if len(opened) == 16:
            raise RuntimeError("stopped")
        opened.append(path)
        return read_cxr(path, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "read_cxr", read_and_stop)
        with pytest.raises(RuntimeError, match="stopped"):
            prepare(ExperimentConfig(), resumed, QUIET)
        opened.clear()
        assert prepare(ExperimentConfig(), resumed, QUIET)["digest"] == digest
    assert len(opened) == 8, "the files of the finished chunk are not read again"


def test_bad_files_are_quarantined_with_reasons_and_the_rest_goes_on(make_cohort: MakeCohort, tmp_path: Path) -> None:
    workspace = make_cohort(tmp_path, broken=(2,), nan_ecg=(3,))
    manifest = prepare(TOLERANT, workspace, QUIET)
    assert manifest["counts"]["admissions"] == 22
    rejects = pd.read_parquet(workspace.dataset / "rejects.parquet").set_index("path")["reason"]
    assert "missing samples" in rejects["e3"]
    assert "2.jpg" in rejects.index
    store = ArrayStore.open(workspace.dataset)
    assert set(store.table["hadm_id"]) == set(range(20_000_000, 20_000_024)) - {20_000_002, 20_000_003}
    for row in range(len(store)):
        assert min(store.cxr(row).shape) == 320


def test_too_many_bad_files_stop_the_stage_and_leave_the_table_of_reasons(make_cohort: MakeCohort, tmp_path: Path) -> None:
    workspace = make_cohort(tmp_path, broken=(0, 1, 2, 3))
    with pytest.raises(TooManyRejects, match=r"4 of 24 admissions"):
        prepare(ExperimentConfig(), workspace, QUIET)
    assert (workspace.dataset / "rejects.parquet").exists()
    assert not (workspace.dataset / "manifest.json").exists()


def test_files_that_were_mended_after_too_many_rejects_are_read_again(make_cohort: MakeCohort, tmp_path: Path) -> None:
    workspace = make_cohort(tmp_path, broken=(0, 1, 2, 3))
    with pytest.raises(TooManyRejects):
        prepare(ExperimentConfig(), workspace, QUIET)
    for number in range(4):
        shutil.copy(tmp_path / "files" / "8.jpg", tmp_path / "files" / f"{number}.jpg")
    assert prepare(ExperimentConfig(), workspace, QUIET)["counts"]["rejected"] == 0


def test_a_cohort_without_xrays_is_refused(make_cohort: MakeCohort, tmp_path: Path) -> None:
    workspace = make_cohort(tmp_path)
    table = pd.read_parquet(workspace.cohort / "admissions.parquet").assign(cxr_path=None)
    table.to_parquet(workspace.cohort / "admissions.parquet")
    manifest = (workspace.cohort / "manifest.json").read_text()
    size = (workspace.cohort / "admissions.parquet").stat().st_size
    loaded = json.loads(manifest)
    loaded["outputs"]["admissions.parquet"]["bytes"] = size
    (workspace.cohort / "manifest.json").write_text(json.dumps(loaded))
    with pytest.raises(InputError, match="have no cxr_path"):
        prepare(ExperimentConfig(), workspace, QUIET)


def test_a_path_that_leads_out_of_its_folder_is_rejected(make_cohort: MakeCohort, tmp_path: Path) -> None:
    workspace = make_cohort(tmp_path, n=24)
    shutil.copy(tmp_path / "files" / "0.jpg", tmp_path / "secret.jpg")
    file = workspace.cohort / "admissions.parquet"
    table = pd.read_parquet(file)
    table.loc[0, "cxr_path"] = "../secret.jpg"
    table.to_parquet(file)
    loaded = json.loads((workspace.cohort / "manifest.json").read_text())
    loaded["outputs"]["admissions.parquet"]["bytes"] = file.stat().st_size
    (workspace.cohort / "manifest.json").write_text(json.dumps(loaded))
    prepare(TOLERANT, workspace, QUIET)
    rejects = pd.read_parquet(workspace.dataset / "rejects.parquet")
    assert rejects["path"].tolist() == ["../secret.jpg"]
    assert "without '..'" in rejects["reason"].iloc[0]


def test_dry_run_writes_nothing(make_cohort: MakeCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = make_cohort(tmp_path)
    assert prepare(ExperimentConfig(), workspace, RunOptions(dry_run=True)) == {}
    assert "admissions: 24" in capsys.readouterr().out
    assert not workspace.dataset.exists()


def test_a_store_whose_array_was_cut_is_refused(make_cohort: MakeCohort, tmp_path: Path) -> None:
    workspace = make_cohort(tmp_path)
    prepare(ExperimentConfig(), workspace, QUIET)
    labs = np.load(workspace.dataset / "labs.npy")
    np.save(workspace.dataset / "labs.npy", labs[:-1])
    with pytest.raises(InputError, match=r"labs\.npy: holds"):
        ArrayStore(workspace.dataset, {"digest": "", "access": "synthetic"})


def test_random_crops_follow_the_generator_and_stay_inside(store: ArrayStore) -> None:
    rows = store.rows("train")[:4]
    first, again, other = (make_batch(store, rows, torch.Generator().manual_seed(seed))["cxr"] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    image = store.cxr(int(rows[0])).astype(np.float32) / np.float32(255)
    crop = (first[0, 0].numpy() * np.float32(0.229)) + np.float32(0.485)
    windows = np.lib.stride_tricks.sliding_window_view(image, (320, 320))
    assert np.isclose(windows, crop, atol=1e-5).all(axis=(2, 3)).sum() == 1, "the crop is one window of the image"


def test_a_corrected_access_class_changes_everything_downstream(make_cohort: MakeCohort, tmp_path: Path) -> None:
    """Otherwise a gallery built while the class was wrong would still be served without an attestation."""
    workspace = make_cohort(tmp_path)
    open_digest = prepare(ExperimentConfig(), workspace, QUIET)["digest"]
    file = workspace.cohort / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["hospital"]["access"] = "credentialed"
    file.write_text(json.dumps(manifest))
    corrected = prepare(ExperimentConfig(), workspace, QUIET)
    assert corrected["access"] == ArrayStore.open(workspace.dataset).access == "credentialed"
    assert corrected["digest"] != open_digest, "runs, reports and galleries depend on the dataset's digest"

"""The stage ``prepare``: the cohort's raw files to the array store, laboratory statistics fitted on the training split."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clinical_symile.config import ExperimentConfig
from clinical_symile.dataset.candidates import repair_candidates
from clinical_symile.dataset.chunks import CHUNK, Chunk, ChunkTask, RawStudy, load_chunk, read_chunk
from clinical_symile.errors import InputError, TooManyRejects
from clinical_symile.execution import map_items
from clinical_symile.modalities.labs import LabStatistics
from clinical_symile.stage import (
    Rejects,
    RunOptions,
    Stage,
    Workspace,
    atomic_path,
    digest_json,
    require_complete,
    track,
    write_json,
)
from clinical_symile.types import CHEXPERT_LABELS, ECG_LEADS, ECG_SAMPLES, LAB_ITEM_IDS

logger = logging.getLogger(__name__)

_BYTES_PER_ADMISSION = 320 * 384 + ECG_SAMPLES * len(ECG_LEADS) * 2
_SECONDS_PER_ADMISSION = 0.1
_DESCRIPTION = ("cxr_dicom_id", "cxr_view", "ecg_study_id", "gender", "age", "race", "admittime", *CHEXPERT_LABELS)


def prepare(config: ExperimentConfig, workspace: Workspace, options: RunOptions) -> dict[str, Any]:
    """Writes ``workspace.dataset``.

    Args:
        config: sections ``prepare`` and, for the seed of replaced candidates, ``cohort``.
        workspace: holds the cohort.
        options: how to run.

    Returns:
        The manifest; empty for a dry run.

    Raises:
        IncompleteStage: there is no finished cohort.
        InputError: the cohort was built without X-rays or ECGs, or nothing is left to train on.
        TooManyRejects: a larger share of the admissions than ``prepare.max_reject_share`` cannot be read.
    """
    cohort = require_complete(workspace.cohort, "cohort")
    stage = Stage(
        "prepare",
        workspace.dataset,
        inputs={
            "cohort": cohort["digest"],
            "hospital": digest_json(cohort["hospital"]),
            "seed": str(config.cohort.seed),
        },
        config=config.prepare,
        options=options,
    )
    if options.dry_run:
        n = int(cohort["counts"]["admissions"])
        minutes = n * _SECONDS_PER_ADMISSION / options.jobs / 60
        stage.announce({"admissions": n, "MB, roughly": n * _BYTES_PER_ADMISSION // 10**6, "minutes, roughly": round(minutes, 1)})
        return {}
    if stage.should_skip():
        return stage.manifest()
    admissions = pd.read_parquet(workspace.cohort / "admissions.parquet").sort_values("hadm_id", ignore_index=True)
    _require_all_modalities(admissions, workspace.cohort)
    hospital = cohort["hospital"]
    with stage.writing() as writing:
        tasks = list(_tasks(admissions, workspace, hospital, writing.output / ".partial", config.prepare.allow_burned_in))
        files = list(track(_read(tasks, options), len(tasks), "prepare", options))
        rejects, rows = _take_stock(files, admissions)
        rejects.write(writing.output / "rejects.parquet")
        try:
            rejects.check(len(admissions), config.prepare.max_reject_share, "admissions", writing.output / "rejects.parquet")
        except TooManyRejects:
            _forget_rejecting(files)
            raise
        table = _write_signals(writing.output, files, admissions.iloc[rows].reset_index(drop=True))
        observed = _write_labs(writing.output, table, admissions.iloc[rows])
        sets = pd.read_parquet(workspace.cohort / "candidates.parquet")
        repaired, dropped = repair_candidates(sets, table, config.cohort.seed)
        _write_table(writing.output / "candidates.parquet", repaired)
        _write_table(writing.output / "manifest.parquet", table.assign(n_labs_observed=observed.sum(axis=1).astype(np.int64)))
        writing.counts.update(admissions=len(table), rejected=len(rejects.rows), candidate_sets_dropped=dropped)
        writing.counts.update({split: int(count) for split, count in table["split"].value_counts().sort_index().items()})
        # In a file, so that the dataset's digest, and with it whatever is derived, changes when the access class does.
        write_json(writing.output / "access.json", {"access": hospital["access"]})
        writing.facts.update(access=hospital["access"], hospital=hospital)
        if rejects.rows:
            logger.warning("prepare: %d admissions were rejected; the reasons are in rejects.parquet", len(rejects.rows))
    return stage.manifest()


def _require_all_modalities(admissions: pd.DataFrame, cohort: Path) -> None:
    for column in ("cxr_path", "ecg_path"):
        missing = int(admissions[column].isna().sum())
        if missing:
            raise InputError(
                f"{cohort / 'admissions.parquet'}: {missing} of {len(admissions)} admissions have no {column}; "
                "build the cohort with cohort.require = [cxr, ecg, labs]"
            )


def _tasks(
    admissions: pd.DataFrame, workspace: Workspace, hospital: dict[str, Any], partial: Path, allow_burned_in: bool
) -> Iterator[ChunkTask]:
    """Chunks of studies. The roots are absolute, or relative to the workspace."""
    cxr_root, ecg_root = workspace.root / hospital["cxr_root"], workspace.root / hospital["ecg_root"]
    paths = zip(admissions["cxr_path"], admissions["ecg_path"], strict=True)
    studies = [RawStudy(row, cxr_path, ecg_path) for row, (cxr_path, ecg_path) in enumerate(paths)]
    for start in range(0, len(studies), CHUNK):
        chunk = tuple(studies[start : start + CHUNK])
        yield ChunkTask(partial / f"{start:08d}.npz", chunk, cxr_root, ecg_root, allow_burned_in)


def _read(tasks: list[ChunkTask], options: RunOptions) -> Iterator[Path]:
    return map_items(read_chunk, tasks, jobs=options.jobs, preload=("clinical_symile.dataset.chunks",))


def _take_stock(files: list[Path], admissions: pd.DataFrame) -> tuple[Rejects, list[int]]:
    """What was rejected, and the rows of the cohort that are left, in order."""
    rejects, rows = Rejects(), []
    for chunk in map(load_chunk, files):
        rows.extend(chunk.rows.tolist())
        for row, path, reason in chunk.rejects:
            rejects.add(str(admissions["hadm_id"].iloc[row]), path, reason)
    return rejects, rows


def _forget_rejecting(files: list[Path]) -> None:
    """Removes the chunks with rejects, so that the same command reads their files again: they may have been mended by then."""
    for file in files:
        if load_chunk(file).rejects:
            file.unlink()


def _write_signals(folder: Path, files: list[Path], admissions: pd.DataFrame) -> pd.DataFrame:
    """Joins the chunks into ``cxr.npy``, ``ecg.npy`` and ``ecg_scale.npy``, one chunk in memory at a time.

    Returns:
        The store's table, without the laboratory counts.
    """
    n = len(admissions)
    shapes = np.concatenate([load_chunk(file).shapes for file in files])
    pixels = shapes.prod(axis=1)
    table = admissions[["hadm_id", "subject_id", "split"]].copy()
    table.insert(0, "row", np.arange(n, dtype=np.int64))
    table["cxr_offset"] = np.concatenate([[0], np.cumsum(pixels)[:-1]]).astype(np.int64) if n else pixels
    table["cxr_height"], table["cxr_width"] = shapes[:, 0], shapes[:, 1]
    digests: list[tuple[str, str]] = []
    with (
        atomic_path(folder / "cxr.npy") as cxr_file,
        atomic_path(folder / "ecg.npy") as ecg_file,
        atomic_path(folder / "ecg_scale.npy") as scale_file,
    ):
        cxr = np.lib.format.open_memmap(cxr_file, mode="w+", dtype=np.uint8, shape=(int(pixels.sum()),))
        ecg = np.lib.format.open_memmap(ecg_file, mode="w+", dtype=np.int16, shape=(n, ECG_SAMPLES, len(ECG_LEADS)))
        scale = np.lib.format.open_memmap(scale_file, mode="w+", dtype=np.float64, shape=(n, len(ECG_LEADS), 2))
        row = pixel = 0
        for chunk in map(load_chunk, files):
            count = len(chunk.rows)
            if not count:
                continue
            cxr[pixel : pixel + len(chunk.cxr)] = chunk.cxr
            ecg[row : row + count] = chunk.ecg
            scale[row : row + count] = chunk.scale
            digests += _digests(chunk)
            row, pixel = row + count, pixel + len(chunk.cxr)
        for array in (cxr, ecg, scale):
            array.flush()
    table["cxr_sha256"], table["ecg_sha256"] = [cxr for cxr, _ in digests], [ecg for _, ecg in digests]
    return table.join(admissions[[column for column in _DESCRIPTION if column in admissions]])


def _digests(chunk: Chunk) -> Iterator[tuple[str, str]]:
    """SHA-256 of each admission's image (with its shape) and ECG (with its scale): the same study has the same digest."""
    start = 0
    for shape, record, scale in zip(chunk.shapes, chunk.ecg, chunk.scale, strict=True):
        image = chunk.cxr[start : start + int(shape.prod())]
        start += len(image)
        yield (
            hashlib.sha256(shape.tobytes() + image.tobytes()).hexdigest(),
            hashlib.sha256(record.tobytes() + scale.tobytes()).hexdigest(),
        )


def _write_labs(folder: Path, table: pd.DataFrame, admissions: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Fits the statistics on the training split, writes them and the three laboratory arrays; returns what was measured."""
    values = admissions[list(LAB_ITEM_IDS)].to_numpy(dtype=np.float32)
    train = (table["split"] == "train").to_numpy()
    if not train.any():
        raise InputError("no admission of the training split is left; see rejects.parquet, or build a larger cohort")
    statistics = LabStatistics.fit(values[train])
    percentiles, observed = statistics.transform(values)
    write_json(folder / "labs_statistics.json", statistics.to_json())
    for name, array in (("labs.npy", percentiles), ("labs_observed.npy", observed), ("labs_values.npy", values)):
        with atomic_path(folder / name) as temporary, temporary.open("wb") as handle:
            np.save(handle, array, allow_pickle=False)
    return observed


def _write_table(file: Path, table: pd.DataFrame) -> None:
    with atomic_path(file) as temporary:
        table.to_parquet(temporary, index=False)

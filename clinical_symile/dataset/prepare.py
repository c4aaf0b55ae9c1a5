"""The stage ``prepare``: the cohort's raw files to the array store, laboratory statistics fitted on the training split."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clinical_symile.cohort.imported import is_imported, keep_imported
from clinical_symile.config import ExperimentConfig
from clinical_symile.dataset.assembly import LabArrays, assemble
from clinical_symile.dataset.chunks import CHUNK, ChunkTask, RawStudy, read_chunk
from clinical_symile.errors import InputError
from clinical_symile.execution import map_items
from clinical_symile.modalities.labs import LabStatistics
from clinical_symile.stage import RunOptions, Stage, Workspace, digest_json, require_complete, track
from clinical_symile.types import ECG_LEADS, ECG_SAMPLES, LAB_ITEM_IDS

_BYTES_PER_ADMISSION = 320 * 384 + ECG_SAMPLES * len(ECG_LEADS) * 2
_SECONDS_PER_ADMISSION = 0.1


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
    if is_imported(workspace):
        return keep_imported("prepare", workspace.dataset, options, config)
    cohort = require_complete(workspace.cohort, "cohort")
    released_sets = "candidate_sets" in cohort.get("splits", {})
    stage = Stage(
        "prepare",
        workspace.dataset,
        inputs={
            "cohort": cohort["digest"],
            "hospital": digest_json(cohort["hospital"]),
            "seed": str(config.cohort.seed),
        }
        | ({"candidate sets": "as released"} if released_sets else {}),
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
        sets = pd.read_parquet(workspace.cohort / "candidates.parquet")
        assemble(writing, files, admissions, sets, _fitted_labs, hospital, config, released_sets=released_sets)
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


def _fitted_labs(table: pd.DataFrame, admissions: pd.DataFrame) -> LabArrays:
    """Statistics of the training split, and all admissions' values as percentiles of it."""
    values = admissions[list(LAB_ITEM_IDS)].to_numpy(dtype=np.float32)
    train = (table["split"] == "train").to_numpy()
    if not train.any():
        raise InputError("no admission of the training split is left; see rejects.parquet, or build a larger cohort")
    statistics = LabStatistics.fit(values[train])
    return LabArrays(statistics, *statistics.transform(values), values)

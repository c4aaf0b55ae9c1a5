"""The last step of whoever fills the store: finished chunks become the arrays and tables that ``store.py`` describes."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import DTypeLike, NDArray

from clinical_symile.cohort.candidates import repair_candidates
from clinical_symile.config import ExperimentConfig
from clinical_symile.dataset.chunks import Chunk, load_chunk, load_outcome
from clinical_symile.errors import TooManyRejects
from clinical_symile.modalities.labs import LabStatistics
from clinical_symile.stage import Rejects, StageRun, atomic_path, write_json
from clinical_symile.types import CHEXPERT_LABELS, ECG_LEADS, ECG_SAMPLES

logger = logging.getLogger(__name__)

_DESCRIPTION = ("cxr_dicom_id", "cxr_view", "ecg_study_id", "gender", "age", "race", "admittime", *CHEXPERT_LABELS)


class LabArrays(NamedTuple):
    """The laboratory part of a store.

    Attributes:
        statistics: what the percentiles are percentiles of.
        percentiles: (n, 50) float32, the mean percentile where nothing was measured.
        observed: (n, 50) uint8, 1 = measured.
        values: (n, 50) float32, NaN where nothing was measured.
    """

    statistics: LabStatistics
    percentiles: NDArray[np.float32]
    observed: NDArray[np.uint8]
    values: NDArray[np.float32]


MakeLabs = Callable[[pd.DataFrame, pd.DataFrame], LabArrays]
"""From the store's table and the cohort's rows of the same admissions, in the same order."""


def assemble(
    writing: StageRun,
    files: Sequence[Path],
    admissions: pd.DataFrame,
    sets: pd.DataFrame,
    make_labs: MakeLabs,
    hospital: dict[str, Any],
    config: ExperimentConfig,
    *,
    released_sets: bool = False,
) -> None:
    """Writes the store into a stage's folder, one chunk in memory at a time.

    Args:
        writing: the stage ``prepare`` at work; receives counts and facts.
        files: every chunk, in order of the rows.
        admissions: the cohort, in the order of the chunks' rows.
        sets: the cohort's candidate sets.
        make_labs: makes the laboratory arrays of the admissions that are left.
        hospital: facts of the cohort's manifest.
        config: ``prepare.max_reject_share`` and ``cohort.seed`` are used.
        released_sets: the sets are a release's; negatives with equal pictures are counted but stay.

    Raises:
        TooManyRejects: a larger share of the admissions than ``prepare.max_reject_share`` cannot be used.
    """
    rejects, rows = _take_stock(files, admissions)
    rejects.write(writing.output / "rejects.parquet")
    try:
        rejects.check(len(admissions), config.prepare.max_reject_share, "admissions", writing.output / "rejects.parquet")
    except TooManyRejects:
        _forget_rejecting(files)
        raise
    left = admissions.iloc[rows]
    table = _write_signals(writing.output, files, left.reset_index(drop=True))
    labs = make_labs(table, left)
    _write_labs(writing.output, labs)
    # Only now is it known which pictures are equal, under whatever names they came.
    repaired = repair_candidates(sets, table, config.cohort.seed, picture="cxr_sha256", keep_equal_pictures=released_sets)
    _write_table(writing.output / "candidates.parquet", repaired.sets)
    _write_table(writing.output / "manifest.parquet", table.assign(n_labs_observed=labs.observed.sum(axis=1).astype(np.int64)))
    writing.counts.update(admissions=len(table), rejected=len(rejects.rows), candidate_sets_dropped=repaired.dropped)
    writing.counts.update(
        candidate_sets_refilled=repaired.refilled, candidate_sets_with_equal_pictures=repaired.with_equal_pictures
    )
    writing.counts.update({split: int(count) for split, count in table["split"].value_counts().sort_index().items()})
    # In a file, so that the dataset's digest, and with it whatever is derived, changes when the access class does.
    write_json(writing.output / "access.json", {"access": hospital["access"]})
    writing.facts.update(access=hospital["access"], hospital=hospital)
    if rejects.rows:
        logger.warning("prepare: %d admissions were rejected; the reasons are in rejects.parquet", len(rejects.rows))


def _take_stock(files: Sequence[Path], admissions: pd.DataFrame) -> tuple[Rejects, list[int]]:
    """What was rejected, and the rows of the cohort that are left, in order."""
    rejects, rows = Rejects(), []
    for outcome in map(load_outcome, files):
        rows.extend(outcome.rows.tolist())
        for row, path, reason in outcome.rejects:
            rejects.add(str(admissions["hadm_id"].iloc[row]), path, reason)
    return rejects, rows


def _forget_rejecting(files: Sequence[Path]) -> None:
    """Removes the chunks with rejects, so that the same command reads their files again: they may have been mended by then."""
    for file in files:
        if load_outcome(file).rejects:
            file.unlink()


def _write_signals(folder: Path, files: Sequence[Path], admissions: pd.DataFrame) -> pd.DataFrame:
    """Joins the chunks into ``cxr.npy``, ``ecg.npy`` and ``ecg_scale.npy``.

    Returns:
        The store's table, without the laboratory counts.
    """
    n = len(admissions)
    shapes = np.concatenate([load_outcome(file).shapes for file in files])
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
        cxr_file.open("wb") as cxr,
        ecg_file.open("wb") as ecg,
        scale_file.open("wb") as scale,
    ):
        # Plain writes, not a memory map: its pages would count as this process's memory until all of it is written.
        _write_header(cxr, np.uint8, (int(pixels.sum()),))
        _write_header(ecg, np.int16, (n, ECG_SAMPLES, len(ECG_LEADS)))
        _write_header(scale, np.float64, (n, len(ECG_LEADS), 2))
        for chunk in map(load_chunk, files):
            for handle, array in ((cxr, chunk.cxr), (ecg, chunk.ecg), (scale, chunk.scale)):
                handle.write(np.ascontiguousarray(array).data)
            digests += _digests(chunk)
    table["cxr_sha256"], table["ecg_sha256"] = [cxr for cxr, _ in digests], [ecg for _, ecg in digests]
    return table.join(admissions[[column for column in _DESCRIPTION if column in admissions]])


def _write_header(handle: BinaryIO, dtype: DTypeLike, shape: tuple[int, ...]) -> None:
    descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
    np.lib.format.write_array_header_1_0(handle, {"descr": descr, "fortran_order": False, "shape": shape})


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


def _write_labs(folder: Path, labs: LabArrays) -> None:
    write_json(folder / "labs_statistics.json", labs.statistics.to_json())
    arrays = (("labs.npy", labs.percentiles), ("labs_observed.npy", labs.observed), ("labs_values.npy", labs.values))
    for name, array in arrays:
        with atomic_path(folder / name) as temporary, temporary.open("wb") as handle:
            np.save(handle, array, allow_pickle=False)


def _write_table(file: Path, table: pd.DataFrame) -> None:
    with atomic_path(file) as temporary:
        table.to_parquet(temporary, index=False)

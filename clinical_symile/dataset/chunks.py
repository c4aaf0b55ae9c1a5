"""Reads raw files in chunks of admissions; each finished chunk is one file, so that an interrupted run goes on from there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clinical_symile.errors import UnusableFile
from clinical_symile.modalities.cxr import read_cxr, to_store
from clinical_symile.modalities.ecg import EcgRecord, read_ecg
from clinical_symile.modalities.intake import resolve_inside
from clinical_symile.stage import atomic_path

CHUNK = 16
"""Admissions per chunk: a few seconds of work, a few MB in memory."""


class RawStudy(NamedTuple):
    """The raw files of one admission, relative to their roots; ``row`` counts the cohort's admissions."""

    row: int
    cxr_path: str
    ecg_path: str


class ChunkTask(NamedTuple):
    """One chunk of work, as it travels to a worker process."""

    output: Path
    studies: tuple[RawStudy, ...]
    cxr_root: Path
    ecg_root: Path
    allow_burned_in: bool


class Chunk(NamedTuple):
    """What came of a chunk: the admissions that could be read, and why the others could not.

    Attributes:
        rows: (m,) rows of the cohort.
        shapes: (m, 2) height and width of each image.
        cxr: flat uint8, the images one after the other.
        ecg: (m, 5000, 12) int16.
        scale: (m, 12, 2) float64, gain and baseline.
        rejects: (row, path, reason) of the others.
    """

    rows: NDArray[np.int64]
    shapes: NDArray[np.int64]
    cxr: NDArray[np.uint8]
    ecg: NDArray[np.int16]
    scale: NDArray[np.float64]
    rejects: tuple[tuple[int, str, str], ...]


def read_chunk(task: ChunkTask) -> Path:
    """Reads the files of a chunk and stores what came of it, unless an interrupted run has done so already."""
    if not task.output.exists():
        images: list[NDArray[np.uint8]] = []
        records: list[EcgRecord] = []
        rows: list[int] = []
        rejects: list[tuple[int, str, str]] = []
        for study in task.studies:
            path = study.ecg_path
            try:
                record = read_ecg(resolve_inside(task.ecg_root, path), task.ecg_root)
                path = study.cxr_path
                photo = read_cxr(resolve_inside(task.cxr_root, path), allow_burned_in=task.allow_burned_in)
            except UnusableFile as error:
                rejects.append((study.row, path, error.reason))
                continue
            images.append(to_store(photo))
            records.append(record)
            rows.append(study.row)
        store_chunk(task.output, rows, images, records, rejects)
    return task.output


class Outcome(NamedTuple):
    """A chunk without its pixels and samples; the fields are those of ``Chunk``."""

    rows: NDArray[np.int64]
    shapes: NDArray[np.int64]
    rejects: tuple[tuple[int, str, str], ...]


def load_chunk(file: Path) -> Chunk:
    """What ``store_chunk`` stored."""
    rows, shapes, rejects = load_outcome(file)
    with np.load(file, allow_pickle=False) as arrays:
        return Chunk(rows, shapes, arrays["cxr"], arrays["ecg"], arrays["scale"], rejects)


def load_outcome(file: Path) -> Outcome:
    """What came of a chunk, without reading the signals."""
    with np.load(file, allow_pickle=False) as arrays:
        columns = (arrays[name].tolist() for name in ("reject_rows", "reject_paths", "reject_reasons"))
        return Outcome(arrays["rows"], arrays["shapes"], tuple(zip(*columns, strict=True)))


def store_chunk(
    output: Path,
    rows: Sequence[int],
    images: Sequence[NDArray[np.uint8]],
    records: Sequence[EcgRecord],
    rejects: Sequence[tuple[int, str, str]],
    **more: Any,
) -> None:
    """Stores a finished chunk in one file, atomically.

    Args:
        output: the file.
        rows: (m,) rows of the cohort that could be read.
        images: their pictures.
        records: their ECGs.
        rejects: (row, path, reason) of the others.
        more: further arrays, for whoever reads them by their names.
    """
    empty = np.empty(0, np.uint8)
    scales = [np.stack([record.gain, record.baseline], axis=-1) for record in records]
    arrays: dict[str, Any] = {
        "rows": np.array(rows, dtype=np.int64),
        "shapes": np.array([image.shape for image in images], dtype=np.int64).reshape(-1, 2),
        "cxr": np.concatenate([image.ravel() for image in images]) if images else empty,
        "ecg": np.array([record.adc for record in records], dtype=np.int16),
        "scale": np.array(scales, dtype=np.float64),
        "reject_rows": np.array([row for row, _, _ in rejects], dtype=np.int64),
        "reject_paths": np.array([path for _, path, _ in rejects], dtype=np.str_),
        "reject_reasons": np.array([reason for _, _, reason in rejects], dtype=np.str_),
    }
    with atomic_path(output) as temporary, temporary.open("wb") as handle:
        np.savez(handle, **arrays, **more)

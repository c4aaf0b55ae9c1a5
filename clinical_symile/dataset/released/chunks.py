"""Converts tensor rows in chunks of admissions; each finished chunk is one file, so an interrupted import goes on from there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from clinical_symile.dataset.batch import scale_records
from clinical_symile.dataset.chunks import store_chunk
from clinical_symile.dataset.released.lattice import recover_ecg
from clinical_symile.dataset.released.layout import Part
from clinical_symile.dataset.released.pictures import recover_picture
from clinical_symile.dataset.released.rows import Place, TensorPair
from clinical_symile.errors import UnusableFile
from clinical_symile.modalities.ecg import EcgRecord


class ImportTask(NamedTuple):
    """One chunk of work, as it travels to a worker process.

    Attributes:
        output: the chunk's file.
        first: row of the cohort of the first admission.
        places: where each admission's signals are.
        tensors: the tensors of each part.
    """

    output: Path
    first: int
    places: tuple[Place, ...]
    tensors: dict[Part, TensorPair]


class Fidelity(NamedTuple):
    """How well the store's own batches give back the released tensors.

    Attributes:
        cxr_error: (n,) largest absolute difference of each picture.
        cxr_is_grey: (n,) whether its three channels agreed.
        ecg_error: (n,) largest absolute difference of each ECG.
        ecg_on_lattice: (n,) whether its ADC values were recovered.
    """

    cxr_error: NDArray[np.float64]
    cxr_is_grey: NDArray[np.bool_]
    ecg_error: NDArray[np.float64]
    ecg_on_lattice: NDArray[np.bool_]


def import_chunk(task: ImportTask) -> Path:
    """Converts the rows of a chunk and stores what came of it, unless an interrupted run has done so already."""
    if not task.output.exists():
        rows: list[int] = []
        images: list[NDArray[np.uint8]] = []
        records: list[EcgRecord] = []
        rejects: list[tuple[int, str, str]] = []
        quality: list[tuple[float, bool, float, bool]] = []
        for row, place in enumerate(task.places, task.first):
            cxr, ecg = task.tensors[place.part]
            try:
                picture = recover_picture(cxr.row(place.row), f"{cxr.file.name}, row {place.row}")
                signal = ecg.row(place.row)[0]
                record, on_lattice = recover_ecg(signal, f"{ecg.file.name}, row {place.row}")
            except UnusableFile as error:
                rejects.append((row, error.path, error.reason))
                continue
            rows.append(row)
            images.append(picture.grey)
            records.append(record)
            quality.append((picture.error, picture.is_grey, _ecg_error(record, signal), on_lattice))
        cxr_error, is_grey, ecg_error, lattice = zip(*quality, strict=True) if quality else ((), (), (), ())
        store_chunk(
            task.output,
            rows,
            images,
            records,
            rejects,
            cxr_error=np.array(cxr_error, dtype=np.float64),
            cxr_is_grey=np.array(is_grey, dtype=np.bool_),
            ecg_error=np.array(ecg_error, dtype=np.float64),
            ecg_on_lattice=np.array(lattice, dtype=np.bool_),
        )
    return task.output


def load_fidelity(files: Sequence[Path]) -> Fidelity:
    """How well all chunks together give back the tensors."""
    parts = []
    for file in files:
        with np.load(file, allow_pickle=False) as arrays:
            parts.append([arrays[name] for name in Fidelity._fields])
    return Fidelity(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _ecg_error(record: EcgRecord, signal: NDArray[np.float32]) -> float:
    """Largest difference between the released tensor and what the store's batches will hold."""
    scale = np.stack([record.gain, record.baseline], axis=-1)
    again = scale_records(torch.from_numpy(record.adc[None]), torch.from_numpy(scale[None]))[0, 0]
    return float(np.abs(again.numpy() - signal).max())

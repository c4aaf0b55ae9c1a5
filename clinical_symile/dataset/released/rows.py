"""Which tensor row belongs to which admission: ``hadm_id_<part>.npy`` says so, and the CSV files must say the same."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clinical_symile.dataset.released.layout import (
    BIG,
    FULL,
    PARTS,
    QUERY,
    RETRIEVAL,
    Part,
    Release,
    csv_name,
    tensor_name,
)
from clinical_symile.dataset.released.tables import ReleasedTables
from clinical_symile.dataset.released.tensors import Tensor, open_tensor, read_keys
from clinical_symile.errors import InputError
from clinical_symile.types import CXR_SIZE, ECG_LEADS, ECG_SAMPLES

ROW_SHAPES: Final = {"cxr": (3, CXR_SIZE, CXR_SIZE), "ecg": (1, ECG_SAMPLES, len(ECG_LEADS))}
_COMPARED: Final = 8
"""Admissions per part whose repeated rows are compared: a shifted array would show in the first."""

TensorPair = tuple[Tensor, Tensor]
"""The CXR and the ECG tensor of a part."""


class Place(NamedTuple):
    """Where the signals of an admission are."""

    part: Part
    row: int


def read_row_keys(release: Release, tables: ReleasedTables) -> dict[Part, NDArray[np.int64]]:
    """The hadm_id of each tensor row.

    The order of the CSV file is not relied on, but both must hold the same admissions, as often, for the same queries.

    Raises:
        InputError: an array is damaged or disagrees with the CSV file.
    """
    found: dict[Part, NDArray[np.int64]] = {}
    for part in PARTS:
        file = release.path(tensor_name("hadm_id", part))
        hadm_ids = read_keys(file)
        keys = pd.DataFrame({"hadm_id": hadm_ids, "query": 0, "label": 0})
        if part in RETRIEVAL:
            for column, what in zip(("query", "label"), QUERY, strict=True):
                array = read_keys(release.path(tensor_name(what, part)))
                if len(array) != len(keys):
                    raise InputError(
                        f"{release.path(tensor_name(what, part))}: has {len(array)} rows, but {file.name} has {len(keys)}; "
                        "download both again"
                    )
                keys[column] = array
        columns = ["hadm_id", "query", "label"]
        here, there = (frame.sort_values(columns, ignore_index=True)[columns] for frame in (keys, tables.keys[part]))
        if not here.astype(np.int64).equals(there.astype(np.int64)):
            only = len(set(here["hadm_id"]) ^ set(there["hadm_id"]))
            what = (
                f"{only} admissions are in one of them only" if only else "the same admissions, but for other queries or as often"
            )
            raise InputError(
                f"{file}: has {len(here)} rows and {csv_name(part)} has {len(there)}, and they disagree ({what}); both must be "
                "of the same release: download them again"
            )
        found[part] = hadm_ids
    return found


def open_tensors(release: Release, keys: dict[Part, NDArray[np.int64]]) -> dict[Part, TensorPair]:
    """The pictures and ECGs of each part that is read.

    Raises:
        InputError: a tensor is damaged, or does not have a row for each key.
    """
    pairs: dict[Part, TensorPair] = {}
    for part in FULL:
        pair = []
        for what in BIG:
            tensor = open_tensor(release.path(tensor_name(what, part)), ROW_SHAPES[what])
            if tensor.shape[0] != len(keys[part]):
                raise InputError(
                    f"{tensor.file}: has {tensor.shape[0]} rows, but {tensor_name('hadm_id', part)} has {len(keys[part])}; "
                    "download both again"
                )
            pair.append(tensor)
        pairs[part] = (pair[0], pair[1])
    return pairs


def find_places(tables: ReleasedTables, keys: dict[Part, NDArray[np.int64]]) -> list[Place]:
    """Where the signals of each admission of the cohort are, in the cohort's order.

    An admission that has several rows (as a candidate of several queries) is taken from its first.
    """
    first: dict[int, Place] = {}
    for part in FULL:
        for row, hadm_id in enumerate(keys[part].tolist()):
            first.setdefault(hadm_id, Place(part, row))
    return [first[hadm_id] for hadm_id in tables.admissions["hadm_id"].tolist()]


def require_equal_repeats(tensors: dict[Part, TensorPair], keys: dict[Part, NDArray[np.int64]]) -> int:
    """Compares some rows of the same admission bit by bit: they differ when keys and tensors do not belong together.

    Returns:
        How many rows were compared with another.

    Raises:
        InputError: two rows of one admission differ.
    """
    compared = 0
    for part, pair in tensors.items():
        hadm_ids = pd.Series(keys[part])
        for hadm_id in hadm_ids[hadm_ids.duplicated()].unique()[:_COMPARED]:
            first, *others = np.flatnonzero(hadm_ids == hadm_id)[[0, -1]].tolist()
            for tensor in pair:
                for other in others:
                    if not np.array_equal(tensor.row(first), tensor.row(other), equal_nan=True):
                        raise InputError(
                            f"{tensor.file}: rows {first} and {other} are of one admission, says {tensor_name('hadm_id', part)}, "
                            "but they differ, so the two files do not belong together: download both again"
                        )
                    compared += 1
    return compared

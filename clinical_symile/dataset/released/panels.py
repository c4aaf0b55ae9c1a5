"""The laboratory tensors, compared with the CSV files in every cell: here a wrong order or an inverted flag would hide best."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clinical_symile.dataset.assembly import LabArrays
from clinical_symile.dataset.released.layout import FULL, LABS, LABS_MEANS, Part, Release, tensor_name
from clinical_symile.dataset.released.tables import PERCENTILES, ReleasedTables
from clinical_symile.dataset.released.tensors import read_small
from clinical_symile.errors import InputError
from clinical_symile.modalities.labs import LabStatistics
from clinical_symile.types import LAB_ITEM_IDS

ROUNDING: Final = 1e-6
"""How far a percentile's float32 may be from the CSV's text."""

REFIT: Final = 1e-3
"""How far it may be from the percentile that the raw values of train give."""

_ORDER: Final = (
    "the columns must be the keys of labs_means.json, sorted, and the rows those of hadm_id: download these files again"
)


class Panels(NamedTuple):
    """The laboratory arrays of the cohort's admissions, and how well they fit the rest of the release.

    Attributes:
        arrays: in the order of the cohort's admissions.
        percentile_error: largest difference between the tensors and percentiles computed anew from the raw values.
        mean_error: largest difference between ``labs_means.json`` and the means computed anew.
    """

    arrays: LabArrays
    percentile_error: float
    mean_error: float


def read_panels(release: Release, tables: ReleasedTables, keys: dict[Part, NDArray[np.int64]]) -> Panels:
    """Reads and checks the laboratory tensors.

    Args:
        release: where they lie.
        tables: what the CSV files say.
        keys: part -> hadm_id of each tensor row.

    Raises:
        InputError: a tensor is damaged or disagrees with the CSV files; the message says how.
    """
    means = _read_means(release)
    raw = tables.admissions.set_index("hadm_id")[list(LAB_ITEM_IDS)]
    found = [_read_part(release, part, keys[part], raw, tables.percentiles[part], means) for part in FULL]
    ordered = pd.concat(found).loc[tables.admissions["hadm_id"]].to_numpy(dtype=np.float32)
    values = raw.to_numpy(dtype=np.float32)
    train = (tables.admissions["split"] == "train").to_numpy()
    statistics = LabStatistics.fit(values[train])
    percentiles, observed = statistics.transform(values)
    error = np.abs(percentiles - ordered)
    mean_error = np.abs(statistics.mean_percentiles - means)
    if error.max() > REFIT or mean_error.max() > REFIT:
        column = int(np.maximum(error.max(axis=0), mean_error).argmax())
        raise InputError(
            f"{release.path(tensor_name('labs_percentiles', 'train'))}: item {LAB_ITEM_IDS[column]}: the percentiles are up to "
            f"{error[:, column].max():.3g}, their mean in {LABS_MEANS} is {mean_error[column]:.3g} off what train.csv's values "
            f"give. Either columns are in a wrong order (download the files again), or train.csv is only a part of the training "
            f"split: take all of it; only val and test may be cut down"
        )
    arrays = LabArrays(statistics, ordered, observed, values)
    return Panels(arrays, float(error.max()), float(mean_error.max()))


def _read_means(release: Release) -> NDArray[np.float64]:
    """(50,) mean percentile of each item in train."""
    file = release.path(LABS_MEANS)
    try:
        means: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError):
        raise InputError(f"{file}: cannot be read as JSON; download it again") from None
    # The tensors' columns are these keys, sorted as strings: ascending item ids.
    if not isinstance(means, dict) or sorted(means) != list(PERCENTILES):
        raise InputError(f"{file}: must have the 50 keys '<itemid>_percentile' of Symile-MIMIC's items; download it again")
    values = [means[key] for key in PERCENTILES]
    if not all(isinstance(value, int | float) and 0 <= value <= 1 for value in values):
        raise InputError(f"{file}: holds a value that is no percentile in 0…1; download it again")
    return np.array(values, dtype=np.float64)


def _read_part(
    release: Release,
    part: Part,
    hadm_ids: NDArray[np.int64],
    raw: pd.DataFrame,
    csv_percentiles: pd.DataFrame,
    means: NDArray[np.float64],
) -> pd.DataFrame:
    """The percentiles of a part's admissions, indexed by hadm_id, each once."""
    percentiles_file, observed_file = (release.path(tensor_name(what, part)) for what in LABS)
    items = len(LAB_ITEM_IDS)
    percentiles = read_small(percentiles_file, items, "f")
    observed = read_small(observed_file, items, "iub")
    for file, array in ((percentiles_file, percentiles), (observed_file, observed)):
        if len(array) != len(hadm_ids):
            raise InputError(
                f"{file}: has {len(array)} rows, but {tensor_name('hadm_id', part)} has {len(hadm_ids)}; download both again"
            )
    measured = raw.loc[hadm_ids].notna().to_numpy()
    _require_measured(observed, measured, observed_file, part)
    expected = np.where(measured, csv_percentiles.loc[hadm_ids].to_numpy(), means)
    off = ~(np.abs(percentiles.astype(np.float64) - expected) <= ROUNDING)  # NaN is off, too
    if off.any():
        row, column = np.argwhere(off)[0]
        name = PERCENTILES[column]
        source = f"column {name} of {part}.csv" if measured[row, column] else f"{name} of {LABS_MEANS}"
        raise InputError(
            f"{percentiles_file}: row {row}, column {column} is {percentiles[row, column]:.6g}, but {source} says "
            f"{expected[row, column]:.6g} ({int(off.sum())} such values in {int(off.any(axis=0).sum())} columns); {_ORDER}"
        )
    frame = pd.DataFrame(percentiles, index=hadm_ids)
    return frame[~frame.index.duplicated()]


def _require_measured(observed: NDArray[Any], measured: NDArray[np.bool_], file: Path, part: Part) -> None:
    """The release calls the array "missingness", but 1 means measured: it must agree with the raw columns of the CSV."""
    if not np.isin(observed, (0, 1)).all():
        raise InputError(f"{file}: holds something else than 0 and 1; download it again")
    differs = observed.astype(bool) != measured
    if not differs.any():
        return
    if differs.all():
        raise InputError(
            f"{file}: is inverted: it has 1 exactly where {part}.csv has no value. In Symile-MIMIC 1.0.0, 1 means measured, "
            "whatever the file's name says; download it again, or write 1 - array if you made it yourself"
        )
    row, column = np.argwhere(differs)[0]
    says, but = ("measured", "has none") if observed[row, column] else ("missing", "has a value")
    raise InputError(
        f"{file}: row {row}, column {column} (item {LAB_ITEM_IDS[column]}) says {says}, but {part}.csv {but} there "
        f"({int(differs.sum())} such cells); {_ORDER}"
    )

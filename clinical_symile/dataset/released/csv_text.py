"""The release's CSV files as tables of text, and text as numbers and times: nothing is guessed, errors name the data row.

The authors wrote these files with pandas, which may write a whole number as ``65.0``.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

from clinical_symile.errors import InputError

_LARGEST_WHOLE = 2**53
"""Above it, float64 has no longer every whole number."""


@dataclass(frozen=True, eq=False)
class CsvText:
    """Columns of one CSV file as text; an empty cell is missing."""

    file: Path
    frame: pd.DataFrame

    def __len__(self) -> int:
        return len(self.frame)

    def text(self, column: str) -> pd.Series:
        """A column as it stands in the file."""
        return self.frame[column]

    def number(self, column: str) -> NDArray[np.float64]:
        """A column of numbers, NaN where the cell is empty.

        Raises:
            InputError: a cell is no finite number.
        """
        try:
            # To the nearest float64, which pandas' own parsers do not promise.
            values = pa.array(self.frame[column], pa.string(), from_pandas=True).cast(pa.float64()).to_numpy(zero_copy_only=False)
        except pa.ArrowInvalid:
            values = pd.to_numeric(self.frame[column], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        self._require(column, np.isfinite(values) | self.frame[column].isna().to_numpy(), "is not a number")
        return values

    def whole(self, column: str) -> pd.Series:
        """A column of whole numbers, missing where the cell is empty (``Int64``).

        Raises:
            InputError: a cell is no whole number.
        """
        values = self.number(column)
        filled = np.nan_to_num(values)
        self._require(column, (filled == np.rint(filled)) & (np.abs(filled) < _LARGEST_WHOLE), "is not a whole number")
        return pd.Series(pd.array(filled.astype(np.int64), dtype="Int64")).mask(np.isnan(values))

    def ids(self, column: str) -> NDArray[np.int64]:
        """A column of ids: whole numbers without an empty cell.

        Raises:
            InputError: a cell is empty or no whole number.
        """
        self._require(column, self.frame[column].notna().to_numpy(), "is empty")
        return self.whole(column).to_numpy(dtype=np.int64)

    def time(self, column: str) -> pd.Series:
        """A column of times, missing where the cell is empty.

        Raises:
            InputError: a cell is no time such as ``2180-05-31 13:45:00``.
        """
        values = pd.to_datetime(self.frame[column], format="ISO8601", errors="coerce")
        known = (values.notna() | self.frame[column].isna()).to_numpy()
        self._require(column, known, "is not a time such as 2180-05-31 13:45:00")
        return values.astype("datetime64[us]")

    def _require(self, column: str, holds: NDArray[np.bool_], complaint: str) -> None:
        rows = np.flatnonzero(~holds)
        if len(rows):
            raise InputError(f"{self.file}: column {column}: data row {rows[0] + 1} {complaint} ({len(rows)} such rows)")


def read_csv(file: Path, columns: Sequence[str]) -> CsvText:
    """Reads columns of a CSV file; it may have more, in any order.

    Raises:
        InputError: a column is missing, or the file is damaged, cut short or empty.
    """
    again = "it may be damaged or cut short: download it again"
    try:
        with file.open(encoding="utf-8-sig", newline="") as handle:
            header = next(csv.reader(handle), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        raise InputError(f"{file}: cannot be read as CSV; {again}") from None
    missing = [column for column in columns if column not in header]
    if missing:
        raise InputError(
            f"{file}: lacks {len(missing)} of the {len(columns)} columns that are used ({', '.join(missing[:5])}"
            f"{', …' if len(missing) > 5 else ''}); is it the file of PhysioNet's release?"
        )
    try:
        table = pa_csv.read_csv(
            file,
            parse_options=pa_csv.ParseOptions(newlines_in_values=True),
            convert_options=pa_csv.ConvertOptions(
                include_columns=list(columns),
                column_types=dict.fromkeys(columns, pa.string()),
                strings_can_be_null=True,
                null_values=[""],
            ),
        )
    except (pa.ArrowInvalid, OSError):  # Arrow's own message quotes the line, hence a patient
        raise InputError(f"{file}: cannot be read as CSV; {again}") from None
    if not len(table):
        raise InputError(f"{file}: has no row below its header; {again}")
    return CsvText(file, table.to_pandas())

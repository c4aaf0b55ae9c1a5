"""A hospital as the rules see it: five tables with one meaning each, however the hospital's own files are laid out.

=================  ============================================================================================
``admissions``     subject_id, hadm_id, admittime, gender, age, race, file_order
``images``         subject_id, hadm_id (null: matched by time), dicom_id, study_id, path, view, time, file_order
``findings``       study_id and the 14 CheXpert labels; ``None`` in ``Source`` when the hospital has none
``records``        subject_id, hadm_id (null: matched by time), study_id, path, time, file_order
``lab_results``    subject_id, itemid, time, value, file_order; only the 50 items, only rows with a number
=================  ============================================================================================
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from clinical_symile.errors import InputError


@dataclass(frozen=True)
class Source:
    """Where the tables of a connection came from.

    Attributes:
        kind: ``mimic`` or ``manifest``.
        cxr_root: folder that image paths are relative to.
        ecg_root: folder that record paths are relative to.
        has_findings: whether the table ``findings`` exists, in which case an image without a row in it does not count.
        rejects: (item, path, reason) of rows that could not be used.
        keys: whether the tables ``subject_keys`` and ``hadm_keys`` hold the hospital's own, textual ids.
    """

    kind: str
    cxr_root: Path | None
    ecg_root: Path | None
    has_findings: bool
    rejects: list[tuple[str, str, str]] = field(default_factory=list)
    keys: bool = False


def connect(memory_limit: str = "3GB") -> duckdb.DuckDBPyConnection:
    """An in-memory database that keeps the order of files and answers the same on any number of cores."""
    connection = duckdb.connect(":memory:", config={"memory_limit": memory_limit, "preserve_insertion_order": True})
    connection.execute("SET enable_progress_bar = false")
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def find_table(folder: Path, name: str) -> Path:
    """``name.csv.gz`` or ``name.csv`` in a folder.

    Raises:
        InputError: neither is there.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder")
    for suffix in (".csv.gz", ".csv"):
        if (folder / f"{name}{suffix}").is_file():
            return folder / f"{name}{suffix}"
    raise InputError(f"{folder}: {name}.csv.gz is missing (nor is there a {name}.csv)")


def require_columns(file: Path, needed: Sequence[str]) -> list[str]:
    """The columns of a CSV file.

    Raises:
        InputError: the file cannot be read, or lacks columns; the message names them.
    """
    try:
        with gzip.open(file, "rt", encoding="utf-8-sig") if file.suffix == ".gz" else file.open(encoding="utf-8-sig") as handle:
            columns = next(csv.reader(handle), [])
    except FileNotFoundError:
        raise InputError(f"{file}: there is no such file") from None
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file}: cannot be read as CSV ({error}); it may be cut short: fetch it again") from None
    missing = [name for name in needed if name not in columns]
    if missing:
        hint = ""
        if "row_id" in (name.lower() for name in columns):
            hint = "; this looks like MIMIC-III, but MIMIC-IV (2.2) is needed"
        raise InputError(f"{file}: lacks the column(s) {', '.join(missing)}{hint}. It has: {', '.join(columns) or 'nothing'}")
    return columns


def load_csv(connection: duckdb.DuckDBPyConnection, file: Path, name: str, columns: Sequence[str], where: str = "true") -> None:
    """Reads columns of a CSV file as text into the table ``name``, with ``file_order`` (1 is the first data row).

    Raises:
        InputError: the file lacks columns or is damaged.
    """
    require_columns(file, columns)
    chosen = ", ".join(f'"{column}"' for column in columns)
    # Empty cells are NULL, quoted or not. The file name is a parameter, never part of the SQL text.
    try:
        connection.execute(
            f"CREATE TABLE {name} AS SELECT * FROM (SELECT {chosen}, row_number() OVER () AS file_order "  # noqa: S608 - constants
            f"FROM read_csv($file, header = true, all_varchar = true, delim = ',', quote = '\"', nullstr = '')) WHERE {where}",
            {"file": str(file)},
        )
    except duckdb.Error as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{file}: cannot be read as CSV; it may be damaged or cut short ({reason})") from None


def require_parsed(
    connection: duckdb.DuckDBPyConnection, table: str, file: Path, column: str, expression: str, kind: str
) -> None:
    """Checks that every filled cell of a column can be read as what it should be.

    Raises:
        InputError: names the first row that cannot, and how many there are.
    """
    found = connection.execute(
        f'SELECT count(*), min(file_order) FROM {table} WHERE "{column}" IS NOT NULL AND ({expression}) IS NULL'  # noqa: S608
    ).fetchone()
    if found and found[0]:
        raise InputError(f"{file}: column {column}: data row {found[1]} is not {kind} ({found[0]} such rows)")


def require_filled(connection: duckdb.DuckDBPyConnection, table: str, file: Path, column: str) -> None:
    """Checks that a column has no empty cell.

    Raises:
        InputError: names the first row that has one.
    """
    found = connection.execute(
        f'SELECT count(*), min(file_order) FROM {table} WHERE "{column}" IS NULL'  # noqa: S608 - constants
    ).fetchone()
    if found and found[0]:
        raise InputError(f"{file}: column {column}: data row {found[1]} is empty ({found[0]} such rows)")


def require_unique(connection: duckdb.DuckDBPyConnection, table: str, file: Path, column: str) -> None:
    """Checks that a column has no value twice.

    Raises:
        InputError: names two rows that share a value.
    """
    found = connection.execute(
        f'SELECT min(file_order), max(file_order) FROM {table} GROUP BY "{column}" HAVING count(*) > 1 '  # noqa: S608 - constants
        "ORDER BY 1 LIMIT 1"
    ).fetchone()
    if found:
        raise InputError(
            f"{file}: column {column}: data rows {found[0]} and {found[1]} have the same value, which must be unique"
        )

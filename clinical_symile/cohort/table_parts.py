"""A table that lies in one file or in many, as CSV or Parquet, read with types and in the order of its rows."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import duckdb

from clinical_symile.cohort.csv_table import damage_reported, one_file
from clinical_symile.errors import InputError

_SUFFIXES: Final = (".parquet", ".csv.gz", ".csv")
_WHOLE: Final = frozenset({"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "HUGEINT"})
_PART_ROWS: Final = 2**40
"""More rows than any one file has: part number times this, plus the row, orders the rows of all parts."""


@dataclass(frozen=True)
class TablePart:
    """One file of a table.

    Attributes:
        file: CSV (comma- or, without quotes, tab-separated; plain or gzip) or Parquet.
        number: its place among the parts, from 0.
        columns: names in lower case -> the SQL that names the column in ``rows``.
        types: names in lower case -> DuckDB's type; VARCHAR in a CSV file.
        rows: SQL that may stand after FROM; has the column ``part_row`` beside those of the file.
    """

    file: Path
    number: int
    columns: dict[str, str]
    types: dict[str, str]
    rows: str

    def require(self, *names: str) -> None:
        """Checks that the file has columns.

        Raises:
            InputError: names those that it lacks.
        """
        missing = [name for name in names if name not in self.columns]
        if missing:
            raise InputError(
                f"{self.file}: lacks the column(s) {', '.join(missing)}. It has: {', '.join(self.columns) or 'nothing'}"
            )

    @property
    def file_order(self) -> str:
        """SQL that counts the rows through all parts."""
        return f"(part_row + {self.number * _PART_ROWS})"

    def text(self, name: str) -> str:
        """SQL of a column as text; NULL where it is empty, or where the file lacks the column."""
        if name not in self.columns:
            return "NULL::VARCHAR"
        return f"nullif(trim({self.columns[name]}::VARCHAR), '')"

    def key(self, name: str) -> str:
        """SQL of an identifier as text.

        Raises:
            InputError: the column holds fractions.
        """
        self.require(name)
        if self.types[name] != "VARCHAR" and self.types[name] not in _WHOLE:
            raise self._wrong_type(name, "whole numbers or text")
        return self.text(name)

    def whole(self, name: str) -> str:
        """SQL of a column as a whole number; NULL for what is none, or where the file lacks the column."""
        return f"try_cast({self.columns[name]} AS BIGINT)" if name in self.columns else "NULL::BIGINT"

    def number_of(self, name: str) -> str:
        """SQL of a column as a finite number; NULL for what is none.

        A 32-bit number is read as the shortest decimal that it stands for: 7.35, not 7.349999904632568.

        Raises:
            InputError: the column holds no numbers.
        """
        self.require(name)
        kind = self.types[name]
        if kind in ("VARCHAR", "FLOAT"):
            return f"as_number({self.columns[name]}::VARCHAR)"
        if kind == "DOUBLE" or kind in _WHOLE or kind.startswith("DECIMAL"):
            value = f"{self.columns[name]}::DOUBLE"
            return f"CASE WHEN isfinite({value}) THEN {value} END"
        raise self._wrong_type(name, "numbers")

    def time(self, name: str) -> str:
        """SQL of a column as a time on the hospital's own clock; NULL for a date without a time of day.

        Raises:
            InputError: the column holds times of a time zone, or no times.
        """
        self.require(name)
        kind, column = self.types[name], self.columns[name]
        if kind == "VARCHAR":
            return f"as_time({column})"
        if kind == "DATE":
            return "NULL::TIMESTAMP"
        if kind in ("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"):
            return f"{column}::TIMESTAMP"
        if "TIME ZONE" in kind:
            raise InputError(f"{self.file}: column {name} has a time zone; write local times without one, on one clock")
        raise self._wrong_type(name, "times (timestamps)")

    def _wrong_type(self, name: str, expected: str) -> InputError:
        return InputError(f"{self.file}: column {name} is of type {self.types[name]}; it must hold {expected}")


def find_parts(folder: Path, table: str) -> list[Path]:
    """The files of a table in a folder: ``table.parquet``, ``table.csv.gz`` or ``table.csv``, or all of the folder ``table``.

    Upper and lower case of the names are alike. Files come in the order of their names.

    Returns:
        Nothing when the folder has no such table.

    Raises:
        InputError: the table is there in two forms.
    """
    names = {table + suffix for suffix in _SUFFIXES}
    found = [entry for entry in sorted(folder.iterdir()) if entry.is_file() and entry.name.lower() in names]
    found += [entry for entry in sorted(folder.iterdir()) if entry.is_dir() and entry.name.lower() == table]
    if len(found) > 1:
        raise InputError(f"{folder}: has {found[0].name} and {found[1].name}; leave one of them")
    if not found or found[0].is_file():
        return found
    return table_files(found[0])


def table_files(folder: Path) -> list[Path]:
    """All CSV and Parquet files below a folder, in the order of their paths; hidden ones are left out."""
    return sorted(
        (
            file
            for file in folder.rglob("*")
            if file.is_file()
            and file.name.lower().endswith(_SUFFIXES)
            and not any(part.startswith(".") for part in file.relative_to(folder).parts)
        ),
        key=lambda file: file.relative_to(folder).as_posix(),
    )


def open_parts(connection: duckdb.DuckDBPyConnection, files: Sequence[Path]) -> Iterator[TablePart]:
    """Reads what columns each file has; nothing else yet.

    Raises:
        InputError: a file is damaged.
    """
    for number, file in enumerate(files):
        yield _open_parquet(connection, file, number) if file.name.lower().endswith(".parquet") else _open_csv(file, number)


@contextmanager
def part_damage_reported(file: Path) -> Iterator[None]:
    """Turns DuckDB's complaints about a damaged file into one that quotes none of its cells.

    Raises:
        InputError: the block met one.
    """
    if file.name.lower().endswith(".parquet"):
        try:
            yield
        except duckdb.OutOfMemoryException:
            raise
        except duckdb.Error as error:
            raise InputError(
                f"{file}: cannot be read as Parquet; it may be damaged or cut short ({type(error).__name__}): fetch it again"
            ) from None
    else:
        with damage_reported(file):
            yield


def _open_parquet(connection: duckdb.DuckDBPyConnection, file: Path, number: int) -> TablePart:
    source = f"read_parquet({one_file(file)}, file_row_number = true, hive_partitioning = false)"
    with part_damage_reported(file):
        described = connection.execute(f"DESCRIBE SELECT * EXCLUDE (file_row_number) FROM {source}").fetchall()  # noqa: S608
    columns, types = {}, {}
    for name, kind, *_ in described:
        columns[name.lower()] = '"' + name.replace('"', '""') + '"'
        types[name.lower()] = kind
    return TablePart(file, number, columns, types, f"(SELECT *, file_row_number + 1 AS part_row FROM {source})")  # noqa: S608


def _open_csv(file: Path, number: int) -> TablePart:
    names, tabs = _csv_header(file)
    layout = ", ".join(f"'c{position}': 'VARCHAR'" for position in range(len(names)))
    # The vocabulary files of OHDSI Athena are named .csv, are separated by tabs, and have quotes within names.
    quoting = "delim = '\t', quote = '', escape = ''" if tabs else "delim = ',', quote = '\"', escape = '\"'"
    rows = (
        f"(SELECT *, row_number() OVER () AS part_row FROM read_csv({one_file(file)}, auto_detect = false, "  # noqa: S608
        f"hive_partitioning = false, header = true, columns = {{{layout}}}, {quoting}, nullstr = '', comment = ''))"
    )
    columns = {name.lower(): f"c{position}" for position, name in enumerate(names)}
    return TablePart(file, number, columns, dict.fromkeys(columns, "VARCHAR"), rows)


def _csv_header(file: Path) -> tuple[list[str], bool]:
    """The names of the columns, and whether tabs separate them."""
    try:
        with gzip.open(file, "rt", encoding="utf-8-sig") if file.suffix == ".gz" else file.open(encoding="utf-8-sig") as handle:
            line = handle.readline().rstrip("\r\n")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise InputError(f"{file}: cannot be read as CSV ({error}); it may be damaged or cut short: fetch it again") from None
    tabs = "\t" in line
    return line.split("\t") if tabs else next(csv.reader([line]), []), tabs

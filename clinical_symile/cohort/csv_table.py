"""CSV files as tables of text whose every column is checked before it is used."""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import duckdb

from clinical_symile.errors import InputError

Reader = Literal["as_id", "as_time", "as_number"]
"""A macro of ``sql/macros.sql``."""

READS: Final[dict[Reader, str]] = {
    "as_id": "a whole number",
    "as_time": "a time such as 2180-05-31 13:45:00 (with time of day, without an offset)",
    "as_number": "a number",
}

_FAULTS: Final = re.compile(
    r"CSV Error on Line: \d+|Expected Number of Columns: \d+ Found: \d+|unterminated quote|not utf-8 encoded"
    r"|not RFC 4180 compliant|Unexpected end of GZIP stream|not a GZIP stream|Maximum line size"
)
"""What may be repeated of DuckDB's message, which otherwise quotes the line, hence a patient."""


@dataclass(frozen=True)
class CsvTable:
    """Columns of one CSV file, as text, in the database table ``name``; ``file_order`` is 1 in the first data row."""

    connection: duckdb.DuckDBPyConnection
    file: Path
    name: str

    def require(self, conditions: Mapping[str, str], complaint: str) -> None:
        """Checks that every row fulfils conditions.

        Args:
            conditions: column -> SQL condition.
            complaint: what to say of a row that does not.

        Raises:
            InputError: names the column and the first row that does not, with the complaint, and how many there are.
        """
        broken = [f"WHERE NOT ({condition})" for condition in conditions.values()]
        counts = ", ".join(f"min(file_order) FILTER ({where}), count(*) FILTER ({where})" for where in broken)
        found = self.connection.execute(f"SELECT {counts} FROM {self.name}").fetchall()[0]  # noqa: S608 - constants
        for column, row, count in zip(conditions, found[::2], found[1::2], strict=True):
            if count:
                raise InputError(f"{self.file}: column {column}: data row {row} {complaint} ({count} such rows)")

    def require_filled(self, *columns: str) -> None:
        """Checks that the columns have no empty cell.

        Raises:
            InputError: names the first row that has one, and how many there are.
        """
        self.require({column: f'"{column}" IS NOT NULL' for column in columns}, "is empty")

    def require_readable(self, reader: Reader, *columns: str) -> None:
        """Checks that a macro can read every filled cell of the columns.

        Raises:
            InputError: names the first row that it cannot, and how many there are.
        """
        readable = {column: f'"{column}" IS NULL OR {reader}("{column}") IS NOT NULL' for column in columns}
        self.require(readable, f"is not {READS[reader]}")

    def require_unique(self, column: str) -> None:
        """Checks that a column has no value twice.

        Raises:
            InputError: names two rows that share a value.
        """
        twice = self.connection.execute(
            f'SELECT min(file_order), max(file_order) FROM {self.name} GROUP BY "{column}" '  # noqa: S608 - constants
            "HAVING count(*) > 1 ORDER BY 1 LIMIT 1"
        ).fetchone()
        if twice:
            raise InputError(
                f"{self.file}: column {column}: data rows {twice[0]} and {twice[1]} have the same value; it must be unique"
            )


def find_table(folder: Path, name: str) -> Path:
    """``name.csv.gz`` or ``name.csv`` in a folder.

    Raises:
        InputError: neither is there.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder")
    files = {file.name: file for file in folder.iterdir() if file.is_file()}
    for suffix in (".csv.gz", ".csv"):
        if name + suffix in files:
            return files[name + suffix]
        # MIMIC-III has the same tables with names in capitals.
        if name.upper() + suffix in files:
            raise InputError(f"{files[name.upper() + suffix]}: this looks like MIMIC-III; MIMIC-IV (2.2) is needed")
    raise InputError(f"{folder}: {name}.csv.gz is missing, and so is {name}.csv; is it the right folder?")


def read_header(file: Path) -> list[str]:
    """The names of a CSV file's columns.

    Raises:
        InputError: the file is missing or cannot be read.
    """
    try:
        with gzip.open(file, "rt", encoding="utf-8-sig") if file.suffix == ".gz" else file.open(encoding="utf-8-sig") as handle:
            return next(csv.reader(handle), [])
    except FileNotFoundError:
        raise InputError(f"{file}: there is no such file") from None
    except (OSError, EOFError, UnicodeDecodeError, zlib.error, csv.Error) as error:
        raise InputError(f"{file}: cannot be read as CSV ({error}); it may be damaged or cut short: fetch it again") from None


def load_csv(
    connection: duckdb.DuckDBPyConnection, file: Path, name: str, columns: Sequence[str], where: str = "true"
) -> CsvTable:
    """Reads columns of a CSV file. Empty cells are NULL, quoted or not.

    Args:
        connection: receives the table.
        file: comma-separated, UTF-8, plain or gzip.
        name: of the table in the database.
        columns: to read; the file may have more, in any order.
        where: SQL condition on the text; other rows are left out.

    Raises:
        InputError: the file lacks columns or is damaged; the message names them.
    """
    header = read_header(file)
    missing = [column for column in columns if column not in header]
    if missing:
        hint = "; this looks like MIMIC-III, but MIMIC-IV (2.2) is needed" if "row_id" in map(str.lower, header) else ""
        raise InputError(f"{file}: lacks the column(s) {', '.join(missing)}{hint}. It has: {', '.join(header) or 'nothing'}")
    # Columns go by position, and nothing is detected: DuckDB's sniffer takes a line that starts with # for a comment. The
    # file's own names never become part of the SQL text.
    layout = ", ".join(f"'c{position}': 'VARCHAR'" for position in range(len(header)))
    chosen = ", ".join(f'c{header.index(column)} AS "{column}"' for column in columns)
    try:
        connection.execute(
            f"""
            CREATE TABLE {name} AS SELECT * FROM (
                SELECT {chosen}, row_number() OVER () AS file_order
                FROM read_csv($file, auto_detect = false, header = true, columns = {{{layout}}}, delim = ',', quote = '"',
                              escape = '"', nullstr = '', comment = '')
            ) WHERE {where}
            """,  # noqa: S608 - constants
            {"file": str(file)},
        )
    except (duckdb.IOException, duckdb.InvalidInputException) as error:
        faults = ", ".join(dict.fromkeys(_FAULTS.findall(str(error)))) or type(error).__name__
        raise InputError(f"{file}: cannot be read as CSV; it may be damaged or cut short ({faults})") from None
    return CsvTable(connection, file, name)

"""CSV files as tables of text whose every column is checked before it is used."""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import duckdb

from clinical_symile.errors import ClinicalSymileError, InputError

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
class Requirement:
    """What every row of a table must fulfil.

    Attributes:
        column: the column to blame.
        condition: SQL on the row's text; unknown (NULL) counts as fulfilled.
        complaint: what to say of a row that does not fulfil it.
    """

    column: str
    condition: str
    complaint: str


def filled(*columns: str) -> tuple[Requirement, ...]:
    """No empty cell."""
    return tuple(Requirement(column, f'"{column}" IS NOT NULL', "is empty") for column in columns)


def readable(reader: Reader, *columns: str) -> tuple[Requirement, ...]:
    """A macro can read every filled cell."""
    return tuple(
        Requirement(column, f'"{column}" IS NULL OR {reader}("{column}") IS NOT NULL', f"is not {READS[reader]}")
        for column in columns
    )


@dataclass(frozen=True)
class CsvTable:
    """Columns of one CSV file, as text, under ``name`` in the database; ``file_order`` is 1 in the first data row."""

    connection: duckdb.DuckDBPyConnection
    file: Path
    name: str

    def require(self, *requirements: Requirement) -> None:
        """Checks every row.

        Raises:
            InputError: names the column and the first row that does not fulfil a requirement, and how many there are.
        """
        broken = [f"WHERE NOT ({requirement.condition})" for requirement in requirements]
        counts = ", ".join(f"min(file_order) FILTER ({where}), count(*) FILTER ({where})" for where in broken)
        found = self.connection.execute(f"SELECT {counts} FROM {self.name}").fetchall()[0]  # noqa: S608 - constants
        for requirement, row, count in zip(requirements, found[::2], found[1::2], strict=True):
            if count:
                raise InputError(
                    f"{self.file}: column {requirement.column}: data row {row} {requirement.complaint} ({count} such rows)"
                )

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
    if {f"{name}.csv.gz", f"{name}.csv"} <= set(files):
        raise InputError(f"{folder}: holds both {name}.csv.gz and {name}.csv; keep the one that counts")
    for suffix in (".csv.gz", ".csv"):
        if name + suffix in files:
            return files[name + suffix]
        # MIMIC-III has the same tables with names in capitals.
        if name.upper() + suffix in files:
            raise InputError(f"{files[name.upper() + suffix]}: this looks like MIMIC-III; MIMIC-IV (2.2 or later) is needed")
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
    """Reads columns of a CSV file into a table of the database. Empty cells are NULL, quoted or not.

    Args:
        connection: receives the table.
        file: comma-separated, UTF-8, plain or gzip.
        name: of the table in the database.
        columns: to read; the file may have more, in any order.
        where: SQL condition on the text; other rows are left out.

    Raises:
        InputError: the file lacks columns or is damaged; the message names them.
    """
    text = scan_csv(file, columns)
    with damage_reported(file):
        connection.execute(f"CREATE TABLE {name} AS SELECT * FROM (SELECT *, {FILE_ORDER} FROM {text}) WHERE {where}")  # noqa: S608
    return CsvTable(connection, file, name)


def scan_csv(file: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> str:
    """SQL that reads columns of a CSV file as text, in the order of its rows: what may stand after ``FROM``.

    Args:
        file: comma-separated, UTF-8, plain or gzip.
        columns: the file must have them; it may have more, in any order.
        optional: NULL where the file lacks them.

    Raises:
        InputError: the file lacks columns, or its first line cannot be read.
    """
    header = read_header(file)
    missing = [column for column in columns if column not in header]
    if missing:
        raise InputError(
            f"{file}: lacks the column(s) {', '.join(missing)}{_other_version(header)}. It has: {', '.join(header) or 'nothing'}"
        )
    twice = [column for column in (*columns, *optional) if header.count(column) > 1]
    if twice:
        raise InputError(f"{file}: has the column {twice[0]} more than once; keep one of them")
    # Columns go by position, and nothing is detected: DuckDB's sniffer takes a line that starts with # for a comment. The
    # file's own names never become part of the SQL text.
    layout = ", ".join(f"'c{position}': 'VARCHAR'" for position in range(len(header)))
    cells = [
        f'c{header.index(column)} AS "{column}"' if column in header else f'NULL::VARCHAR AS "{column}"'
        for column in (*columns, *optional)
    ]
    return (
        f"(SELECT {', '.join(cells)} FROM read_csv({one_file(file)}, auto_detect = false, header = true, "  # noqa: S608 - see above
        f"hive_partitioning = false, columns = {{{layout}}}, delim = ',', quote = '\"', escape = '\"', nullstr = '', "
        "comment = ''))"
    )


FILE_ORDER: Final = "row_number() OVER () AS file_order"
"""Counts a scan's rows as they stand in the file. It keeps DuckDB from reading with more than one thread."""


def one_file(file: Path) -> str:
    """A path as DuckDB's readers take it: quoted, and naming this one file even where it holds ``*``, ``?`` or ``[``.

    Readers must also be given ``hive_partitioning = false``, or a folder named ``unit=mg`` becomes the column ``unit``.
    """
    literal = "".join(f"[{letter}]" if letter in "*?[" else letter for letter in str(file))
    return "'" + literal.replace("'", "''") + "'"


@contextmanager
def damage_reported(file: Path) -> Iterator[None]:
    """Turns DuckDB's complaint about a file that cannot be read as CSV into one that quotes none of its cells.

    Raises:
        InputError: the block met such a complaint.
        ClinicalSymileError: the disk is full, which is not the file's fault.
    """
    try:
        yield
    except (duckdb.IOException, duckdb.InvalidInputException) as error:
        _require_space(error)
        faults = ", ".join(dict.fromkeys(_FAULTS.findall(str(error)))) or type(error).__name__
        raise InputError(f"{file}: cannot be read as CSV; it may be damaged or cut short ({faults}): fetch it again") from None


def _require_space(error: Exception) -> None:
    """Tells a full disk from a damaged file."""
    if any(sign in str(error) for sign in ("No space left", "Could not write", "write to file", "max_temp_directory_size")):
        raise ClinicalSymileError(
            "the disk of the workspace is full; free some space and run the same command again (it continues), or choose another "
            "--workspace"
        ) from None


def _other_version(header: Sequence[str]) -> str:
    if "row_id" in map(str.lower, header):
        return "; this looks like MIMIC-III, but MIMIC-IV (2.2 or later) is needed"
    if "ethnicity" in header:
        return "; this looks like MIMIC-IV 1.0 or earlier, but 2.2 or later is needed"
    return ""

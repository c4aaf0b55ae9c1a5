"""Turns a hospital's CSV tables into typed Parquet once: checked row by row on the way, kept beside the workspace's cohort.

Reading all of MIMIC's ``labevents.csv.gz`` takes a minute, reading what is left of it as Parquet a second. A Parquet file names
in its own metadata what it was made of (``source``: SHA-256 of the CSV; ``layout``: digest of the columns, the checks and the
SQL); a file that was made of anything else is made again. It appears under its name only when it is whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from clinical_symile import __version__
from clinical_symile.cohort.csv_table import FILE_ORDER, CsvTable, Requirement, damage_reported, one_file, scan_csv
from clinical_symile.cohort.source import sql
from clinical_symile.errors import ClinicalSymileError, InputError
from clinical_symile.stage import (
    RunOptions,
    atomic_path,
    clear_leftovers,
    digest_json,
    file_lock,
    private_folder,
    track,
    write_text,
)

_MARK: Final = b"clinical_symile"
_BROKEN: Final = "this row does not fulfil the requirements"
_LOCK: Final = ".lock"
_NOTE: Final = "hospital.txt"
"""Says whose tables these are, and that the folder is a cache's."""
_POLL_SECONDS: Final = 0.2
_SHOWN_FROM_BYTES: Final = 20_000_000
"""A smaller file is read before anybody could read that it is being read."""


@dataclass(frozen=True)
class Layout:
    """What is kept of one table.

    Attributes:
        columns: those that the CSV must have.
        select: SQL that makes the Parquet file's columns of ``csv``, the CSV's columns as text.
        requirements: what each row must fulfil.
        optional: columns that are NULL where the CSV lacks them.
        where: SQL condition on the text; other rows are left out, unchecked.
        unique: a column of the CSV that may hold no value twice.
    """

    columns: tuple[str, ...]
    select: str
    requirements: tuple[Requirement, ...]
    optional: tuple[str, ...] = ()
    where: str = "true"
    unique: str | None = None

    @property
    def digest(self) -> str:
        """Of everything that decides what a CSV becomes."""
        checks = [[check.column, check.condition] for check in self.requirements]
        text = [__version__, self.columns, self.select, checks, self.optional, self.where, self.unique, sql("macros")]
        return digest_json(text)


class ParquetCache:
    """The folder of Parquet files.

    Args:
        folder: made if need be, readable for this user alone: what it holds is patient data.
        digests: table -> SHA-256 of its CSV.
        options: how to run; ``overwrite`` makes every file again.
    """

    def __init__(self, folder: Path, digests: Mapping[str, str], options: RunOptions) -> None:
        self.folder = folder
        self.digests = digests
        self._options = options

    def table(self, connection: duckdb.DuckDBPyConnection, name: str, file: Path, layout: Layout) -> str:
        """A table's Parquet file, made of its CSV unless it is there already.

        Args:
            connection: a database with the macros.
            name: of the table, one of the digests'.
            file: the CSV.
            layout: what is kept of it.

        Returns:
            SQL that reads it, what may stand after ``FROM``; its column ``file_order`` grows in the order of the CSV's rows.

        Raises:
            InputError: the CSV is damaged, lacks a column, or has a row that does not fulfil a requirement; it names them.
        """
        target = self.folder / f"{name}.parquet"
        mark = {"source": self.digests[name], "layout": layout.digest}
        private_folder(self.folder)
        with file_lock(self.folder / _LOCK):
            clear_leftovers(self.folder)
            if self._options.overwrite or not _was_made_of(target, mark):
                with atomic_path(target) as temporary:
                    self._convert(connection, name, file, layout, temporary, mark)
        return (
            "(SELECT * EXCLUDE (file_row_number), file_row_number + 1 AS file_order "  # noqa: S608 - a quoted path
            f"FROM read_parquet({one_file(target)}, file_row_number = true, hive_partitioning = false))"
        )

    def belong_to(self, hospital: str) -> None:
        """Removes everything that is kept of another hospital: it may be of another access class.

        Args:
            hospital: digest of the table that makes a hospital what it is.

        Raises:
            InputError: the folder holds somebody's own files.
        """
        private_folder(self.folder)
        with file_lock(self.folder / _LOCK):
            note = self.folder / _NOTE
            if note.exists() and note.read_text(encoding="utf-8").strip() == hospital:
                return
            forget_tables(self.folder)
            clear_leftovers(self.folder)
            foreign = [file.name for file in self.folder.iterdir() if file.name != _LOCK]
            if foreign:
                raise InputError(
                    f"{self.folder}: holds files that nothing here wrote ({min(foreign)}); use another --workspace or move them"
                )
            write_text(note, f"{hospital}\n")

    def _convert(
        self,
        connection: duckdb.DuckDBPyConnection,
        name: str,
        file: Path,
        layout: Layout,
        target: Path,
        mark: Mapping[str, str],
    ) -> None:
        text = scan_csv(file, layout.columns, layout.optional)
        fine = " AND ".join(f"(({check.condition}) IS NOT FALSE)" for check in layout.requirements)
        path, note = (str(value).replace("'", "''") for value in (target, json.dumps(mark)))
        rows = f"""
            WITH csv AS NOT MATERIALIZED (
                SELECT * FROM {text} WHERE ({layout.where}) AND CASE WHEN {fine} THEN true ELSE error('{_BROKEN}') END
            )
            {layout.select}
        """  # noqa: S608 - constants
        statement = f"""
            COPY ({rows}) TO '{path}' (FORMAT parquet, USE_TMP_FILE false, KV_METADATA {{{_MARK.decode()}: '{note}'}})
        """
        numbered = f"(SELECT * FROM (SELECT *, {FILE_ORDER} FROM {text}) WHERE {layout.where})"  # noqa: S608
        source = CsvTable(connection, file, numbered)
        with damage_reported(file), _rows_in_order(connection, file, rows):
            try:
                quiet = self._options.quiet or file.stat().st_size < _SHOWN_FROM_BYTES
                _execute(connection, statement, f"cohort: read {file.name}, percent", replace(self._options, quiet=quiet))
            except duckdb.InvalidInputException as error:
                if _BROKEN not in str(error):
                    raise
                source.require(*layout.requirements)  # a second, slower pass that says which row it was
                raise
            if layout.unique:
                source.require_unique(layout.unique)


def forget_tables(folder: Path) -> None:
    """Removes what a cache keeps; a folder that no cache has taken is left alone."""
    if (folder / _NOTE).exists():
        # The note goes last: a kill on the way leaves a folder that is known to be a cache's.
        for file in sorted(folder.iterdir(), key=lambda file: file.name == _NOTE):
            if file.name != _LOCK:
                file.unlink()


@contextmanager
def _rows_in_order(connection: duckdb.DuckDBPyConnection, file: Path, rows: str) -> Iterator[None]:
    """Makes sure that DuckDB writes rows in the order in which it reads them: ties between results go by that order.

    It keeps the order of a scan through filters and projections, but not through joins, and it turns a long ``IN (…)`` into one:
    on all of MIMIC that put thousands of stretches of rows in another place, and elsewhere in each run.
    """
    connection.execute("SET disabled_optimizers = 'in_clause'")
    try:
        plan = json.loads(connection.execute(f"EXPLAIN (FORMAT json) {rows}").fetchall()[0][1])
        if any("JOIN" in operator for operator in _operators(plan)):
            raise ClinicalSymileError(
                f"{file}: DuckDB would read it with a join and lose the order of its rows; please report it"
            )
        yield
    finally:
        connection.execute("RESET disabled_optimizers")


def _operators(plan: list[dict[str, Any]]) -> Iterator[str]:
    """The names of a plan's operators, in capitals."""
    for node in plan:
        yield str(node["name"]).upper()
        yield from _operators(node["children"])


def _was_made_of(file: Path, mark: Mapping[str, str]) -> bool:
    try:
        metadata = pq.read_schema(file).metadata or {}
        return bool(json.loads(metadata.get(_MARK, b"null")) == mark)
    except (OSError, ValueError, pa.ArrowInvalid):
        return False


def _execute(connection: duckdb.DuckDBPyConnection, statement: str, description: str, options: RunOptions) -> None:
    """Runs a statement in a thread of its own and shows how far it is."""
    cursor = connection.cursor()
    # DuckDB counts only where it believes that it will show a bar.
    for setting in ("enable_progress_bar = true", "enable_progress_bar_print = false", "progress_bar_time = 0"):
        cursor.execute(f"SET {setting}")
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(cursor.execute, statement)

        def percents() -> Iterator[int]:
            shown = 0
            while not running.done():
                wait([running], _POLL_SECONDS)
                done = 100 if running.done() else min(int(cursor.query_progress()), 99)
                yield from range(shown, done)
                shown = max(shown, done)
            running.result()

        try:
            for _ in track(percents(), 100, description, options):
                pass
        except BaseException:
            cursor.interrupt()
            raise

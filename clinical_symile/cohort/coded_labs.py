"""Results whose tests and units are codes of a vocabulary: what OMOP and MEDS have in common.

A reader makes the view ``part_rows`` of each file in turn: person, code, unit ('' for none), bound (not null: the number is only
a bound), time, value (null: no number), filled (whether there is any value), file_order. The files are read twice: once to count
codes, units and faults, once to insert what can be used. Nothing else of the rows is ever held: memory does not grow with the
files, and what can be used is spilled to disk where it does not fit.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import duckdb
import pandas as pd

from clinical_symile.cohort.lab_codes import SELF
from clinical_symile.cohort.source import Reject, sql
from clinical_symile.cohort.table_parts import TablePart, part_damage_reported
from clinical_symile.cohort.unit_conversions import read_unit
from clinical_symile.errors import InputError
from clinical_symile.types import LAB_ITEMS

logger = logging.getLogger(__name__)

_MIDNIGHT_SHARE: Final = 0.05
_UNIT: Final = {item.itemid: item.unit or None for item in LAB_ITEMS}


class Meaning(NamedTuple):
    """What a code means.

    Attributes:
        itemid: MIMIC's item; None where the code stands for none of the 50.
        unit: of the code's results; None where there is none.
        analyte: what is measured, where it is not what the item reports (``LabCode.analyte``).
        fault: why the code stands for no item, where it does not.
    """

    itemid: str | None
    unit: str | None = None
    analyte: str = SELF
    fault: str | None = None


class CodedLabs(Protocol):
    """Where a hospital's results are, found before anything is read."""

    @property
    def tables(self) -> dict[str, Path]:
        """Name -> file of all that will be read."""

    def load(self, connection: duckdb.DuckDBPyConnection) -> tuple[Reject, ...]:
        """Fills ``lab_results`` for the patients in ``subject_keys``; gives what could not be used."""


def load_coded(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    views: Callable[[], Iterator[TablePart]],
    read_code: Callable[[str, str], Meaning],
    faults: Mapping[str, str],
) -> tuple[Reject, ...]:
    """Fills ``lab_results`` from coded rows.

    Args:
        connection: has the tables of ``tables.sql``; ``subject_keys`` is filled.
        name: of the source, for rejects and messages.
        views: makes the view ``part_rows`` of one file after the other, and yields the file each time.
        read_code: takes a code and a unit ('' for none) and says what they mean.
        faults: what to say of rows with the fault ``time``, ``number`` and ``bound`` (to which the operator is added).

    Returns:
        The reasons for which rows were not used, each with the number of rows; the commonest first.

    Raises:
        InputError: a file is damaged; no row belongs to a patient of the manifest; no row can be used.
    """
    counts: Counter[tuple[str, str, str | None]] = Counter()
    for rows in _execute_on_each(connection, "coded/count", views):
        for code, unit, fault, number in rows:
            counts[code or "", unit, fault] += number
    if not counts:
        raise InputError(
            f"{name}: has no result with a number of any patient of the manifest; the ids are compared as text: "
            "the manifest's subject_id must be written like the ids there"
        )
    reasons = _judge(connection, counts, read_code, faults)
    for _ in _execute_on_each(connection, "coded/insert", views):
        pass
    listed = [f"{number} rows: {reason}" for reason, number in sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))]
    _report(connection, name, counts, reasons, listed)
    return tuple((f"labs {position:04}", name, reason) for position, reason in enumerate(listed, 1))


def _execute_on_each(
    connection: duckdb.DuckDBPyConnection, statement: str, views: Callable[[], Iterator[TablePart]]
) -> Iterator[list[tuple[Any, ...]]]:
    """Executes a statement on the view of each file, with joins as they are written.

    DuckDB takes a CSV file for a handful of rows, and would build the hash table of a join from its millions.
    """
    connection.execute("SET disabled_optimizers = 'join_order,build_side_probe_side'")
    try:
        for part in views():
            with part_damage_reported(part.file):
                rows = connection.execute(sql(statement)).fetchall()
            yield rows
    finally:
        connection.execute("RESET disabled_optimizers")


def _judge(
    connection: duckdb.DuckDBPyConnection,
    counts: Counter[tuple[str, str, str | None]],
    read_code: Callable[[str, str], Meaning],
    faults: Mapping[str, str],
) -> Counter[str]:
    """Fills ``code_units`` with the codes and units that can be used; counts the rows of the others by reason."""
    reasons: Counter[str] = Counter()
    usable: dict[tuple[str, str], tuple[str, float]] = {}
    for (code, unit, row_fault), number in counts.items():
        meaning = read_code(code, unit)
        if meaning.itemid is None:
            reasons[meaning.fault or f"code {code} stands for none of the 50 items"] += number
            continue
        reading = read_unit(meaning.itemid, meaning.unit, meaning.analyte)
        if reading.factor is None:
            reasons[f"{code}: {reading.fault}"] += number
            continue
        usable[code, unit] = (meaning.itemid, reading.factor)
        if row_fault is not None:
            kind, _, detail = row_fault.partition(" ")
            reasons[faults[kind] + (f" {detail}" if detail else "")] += number
    table = [(code, unit, itemid, factor, _UNIT[itemid]) for (code, unit), (itemid, factor) in usable.items()]
    frame = pd.DataFrame(table, columns=["code", "code_unit", "itemid", "factor", "unit"]).astype(
        {"code": object, "code_unit": object, "itemid": object, "factor": float, "unit": object}
    )
    connection.register("incoming", frame)
    connection.execute(
        "CREATE OR REPLACE TABLE code_units AS SELECT code::VARCHAR AS code, code_unit::VARCHAR AS code_unit, "
        "itemid::VARCHAR AS itemid, factor::DOUBLE AS factor, unit::VARCHAR AS unit FROM incoming"
    )
    connection.unregister("incoming")
    return reasons


def _report(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    counts: Counter[tuple[str, str, str | None]],
    reasons: Counter[str],
    listed: list[str],
) -> None:
    used, midnight = connection.execute(
        "SELECT count(*), count(*) FILTER (time = date_trunc('day', time)) FROM lab_results"
    ).fetchall()[0]
    if not used:
        raise InputError(f"{name}: no row can be used; {'; '.join(listed[:3])}")
    if reasons:
        logger.warning(
            "labs: %d of %d results were not used, for %d reasons (tests that are none of the 50 among them); the commonest: %s",
            reasons.total(),
            counts.total(),
            len(reasons),
            "; ".join(listed[:3]),
        )
    if midnight > used * _MIDNIGHT_SHARE:
        logger.warning(
            "labs: %d of %d results are from exactly midnight: where the time of day was not known, their window is wrong",
            midnight,
            used,
        )

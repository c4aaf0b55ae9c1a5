"""What the strict rules need to know: the items' limits and units, when stays end, and what the cohort holds without them."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any, Final

import duckdb
import pandas as pd

from clinical_symile.cohort.attrition import Note
from clinical_symile.cohort.lab_codes import read_package_table
from clinical_symile.cohort.source import sql
from clinical_symile.cohort.units import unit_fault
from clinical_symile.config import StrictRules
from clinical_symile.errors import InputError

_MODALITY: Final = {
    "cxr_during_stay": "cxr",
    "X-ray studies": "cxr",
    "plausible_labs": "labs",
    "expected_lab_units": "labs",
}


def lab_limits() -> dict[str, tuple[float, float]]:
    """Item id -> the lowest and the highest value that a living patient's blood can show (``lab_limits.csv`` says why)."""
    rows = read_package_table("lab_limits.csv")
    return {row["itemid"]: (float(row["low"] or -math.inf), float(row["high"] or math.inf)) for row in rows}


def fill_lab_tables(connection: duckdb.DuckDBPyConnection) -> None:
    """Fills ``lab_limits``, and ``other_units`` with the units in ``lab_results`` that are not their item's."""
    limits = [(itemid, low, high) for itemid, (low, high) in lab_limits().items()]
    _fill(connection, "lab_limits", ["itemid", "low", "high"], limits)
    pairs = connection.execute("SELECT DISTINCT itemid, unit FROM lab_results WHERE unit IS NOT NULL").fetchall()
    # An empty unit is one that is not given.
    others = [(itemid, unit) for itemid, unit in pairs if unit.strip() and unit_fault(itemid, unit) is not None]
    _fill(connection, "other_units", ["itemid", "unit"], others)


def knows_stay_ends(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether the end of any admission is known."""
    return bool(connection.execute("SELECT count(coalesce(dischtime, deathtime)) > 0 FROM admissions").fetchall()[0][0])


def require_stay_ends(connection: duckdb.DuckDBPyConnection) -> None:
    """Refuses a hospital that gives the end of no admission.

    Raises:
        InputError: it does; the message names the columns and the switch.
    """
    if not knows_stay_ends(connection):
        raise InputError(
            "the strict rule cxr_during_stay needs the end of the admissions, but the table of admissions gives none of them a "
            "dischtime (or a deathtime); add the column dischtime, or set cohort.strict.cxr_during_stay=false"
        )


def find_notes(
    connection: duckdb.DuckDBPyConnection, switches: StrictRules, require: Collection[str], ecgs_were_opened: bool
) -> list[Note]:
    """What the chosen files and values hold that the rules which are switched off would have left out.

    Args:
        connection: holds what was chosen.
        switches: the strict rules.
        require: the modalities that take part.
        ecgs_were_opened: otherwise nothing is known of their leads.
    """
    notes = []
    ends = knows_stay_ends(connection)
    for rule, count, thing, predicate in connection.execute(sql("strict/notes")).fetchall():
        modality = _MODALITY.get(rule) or _MODALITY.get(thing, "ecg")
        unknown = (rule == "cxr_during_stay" and not ends) or (rule == "no_flat_ecg_leads" and not ecgs_were_opened)
        if modality in require and not getattr(switches, rule) and not unknown:
            notes.append(Note(rule=rule, count=count, what=f"{thing} {predicate}"))
    return notes


def _fill(connection: duckdb.DuckDBPyConnection, table: str, columns: list[str], rows: list[tuple[Any, ...]]) -> None:
    if rows:
        connection.register("incoming", pd.DataFrame(rows, columns=columns))
        connection.execute(f"INSERT INTO {table} SELECT * FROM incoming")  # noqa: S608 - constants
        connection.unregister("incoming")

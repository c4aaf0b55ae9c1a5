"""Any hospital's own files: one CSV with a row per admission, and a long CSV of laboratory results.

``admissions.csv``
    ``subject_id``, ``hadm_id``, ``admittime``, ``ecg_path`` (WFDB record without extension), ``cxr_path`` (JPG, PNG or DICOM);
    both paths relative to the CSV; an empty path means that the admission has none. Optional: ``ecg_time``, ``cxr_time``
    (where given, the windows of the rules apply), ``cxr_view`` (AP or PA; other views are left out), ``dischtime``,
    ``deathtime`` (for the strict rules), ``gender``, ``age``, ``race``. A path column is needed only if ``cohort.require``
    asks for its modality.
``labs.csv``
    ``subject_id``, ``charttime``, ``itemid`` (MIMIC's), ``valuenum``, ``valueuom``. A row whose item is not one of the 50, or
    whose unit is not MIMIC's, is rejected: units are never guessed, and converted (as ``unit_conversions.csv`` says) only with
    ``hospital.convert_units``. It is matched by subject and time. In its place: ``omop.py``, ``meds.py``.

Both are comma-separated UTF-8, plain or gzip. Times are ``2180-05-31 13:45`` or ``2180-05-31T13:45:00``, all on one clock:
an offset such as ``+02:00`` is refused, and so is a date without a time of day.

Ids that are whole numbers stay as they are. If any is not, each id of that column is replaced by a positive 63-bit number made
of its SHA-256, and the hospital's own ids are kept in ``subject_key`` and ``hadm_key``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

import duckdb
import pandas as pd

from clinical_symile.cohort.coded_labs import CodedLabs
from clinical_symile.cohort.csv_table import CsvTable, filled, load_csv, read_header, readable
from clinical_symile.cohort.source import Reject, Source, sql
from clinical_symile.cohort.unit_conversions import read_unit
from clinical_symile.cohort.units import unit_fault
from clinical_symile.errors import InputError
from clinical_symile.types import LAB_ITEMS

_REQUIRED: Final = ("subject_id", "hadm_id", "admittime")
_OPTIONAL: Final = (
    *("ecg_path", "cxr_path", "ecg_time", "cxr_time", "cxr_view"),
    *("dischtime", "deathtime", "gender", "age", "race"),
)
_UNITS: Final = {item.itemid: item.unit for item in LAB_ITEMS}
_LABS: Final = ("subject_id", "charttime", "itemid", "valuenum", "valueuom")


def load_manifest(
    connection: duckdb.DuckDBPyConnection,
    manifest: Path,
    labs: Path | CodedLabs | None,
    require: Collection[str] = ("cxr", "ecg", "labs"),
    *,
    convert_units: bool = False,
) -> Source:
    """Loads a hospital from its manifest.

    Args:
        connection: receives the tables that ``source.py`` describes.
        manifest: ``admissions.csv``; file paths in it are relative to its folder.
        labs: ``labs.csv``, or results by codes; None where no labs take part.
        require: the modalities that take part.
        convert_units: whether results of ``labs.csv`` in other units than MIMIC's are converted. Those by codes always are.

    Raises:
        InputError: a column is missing, a cell of ``admissions.csv`` cannot be read, or no result can be used.
    """
    admissions = _load_admissions(connection, manifest, require)
    results = load_csv(connection, labs, "raw_labs", _LABS) if isinstance(labs, Path) else None
    _number_ids(connection, "subject", [table for table in (admissions, results) if table is not None])
    _number_ids(connection, "hadm", [admissions])
    connection.execute(sql("manifest/admissions"))
    rejects: tuple[Reject, ...] = ()
    if results is not None:
        rejects = _load_labs(connection, results, convert_units)
    elif labs is not None and not isinstance(labs, Path):
        rejects = labs.load(connection)
    return Source(manifest.parent, manifest.parent, needs_findings=False, rejects=rejects)


def stable_id(key: str) -> int:
    """A positive 63-bit number for a textual id, the same on every machine."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1


def _load_admissions(connection: duckdb.DuckDBPyConnection, manifest: Path, require: Collection[str]) -> CsvTable:
    needed = (*_REQUIRED, *(f"{modality}_path" for modality in ("ecg", "cxr") if modality in require))
    present = [column for column in _OPTIONAL if column in read_header(manifest)]
    admissions = load_csv(connection, manifest, "raw_admissions", list(dict.fromkeys((*needed, *present))))
    for column in _OPTIONAL:
        connection.execute(f"ALTER TABLE raw_admissions ADD COLUMN IF NOT EXISTS {column} VARCHAR")
    admissions.require(*filled(*_REQUIRED))
    admissions.require_unique("hadm_id")
    admissions.require(*readable("as_time", "admittime", "ecg_time", "cxr_time", "dischtime", "deathtime"))
    admissions.require(*readable("as_number", "age"))
    for column in ("ecg_path", "cxr_path"):
        _require_one_patient(admissions, column)
    return admissions


def _require_one_patient(admissions: CsvTable, column: str) -> None:
    """Refuses a file that stands with two patients: it could be in two splits at once."""
    shared = admissions.connection.execute(
        f"SELECT min(file_order), max(file_order) FROM raw_admissions WHERE {column} IS NOT NULL "  # noqa: S608 - constants
        f"GROUP BY {column} HAVING count(DISTINCT subject_id) > 1 ORDER BY 1 LIMIT 1"
    ).fetchone()
    if shared:
        raise InputError(
            f"{admissions.file}: column {column}: data rows {shared[0]} and {shared[1]} name the same file for two patients"
        )


def _number_ids(connection: duckdb.DuckDBPyConnection, name: str, tables: Iterable[CsvTable]) -> None:
    """Makes the table ``<name>_keys`` (key, id, replaced) of all ids in the column ``<name>_id``."""
    column = f"{name}_id"
    union = " UNION ".join(f"SELECT DISTINCT {column} FROM {table.name}" for table in tables)  # noqa: S608 - constants
    rows = connection.execute(f"SELECT {column} FROM ({union}) WHERE {column} IS NOT NULL ORDER BY 1").fetchall()  # noqa: S608
    keys = [row[0] for row in rows]
    replaced = not all(key.isdecimal() and len(key) <= 18 for key in keys)
    ids = [stable_id(key) if replaced else int(key) for key in keys]
    if len(set(ids)) != len(ids):
        raise InputError(f"column {column}: two ids differ only in how they are written (such as 7 and 007); make them alike")
    _insert(connection, f"{name}_keys", pd.DataFrame({"key": keys, "id": ids, "replaced": replaced}))


def _load_labs(connection: duckdb.DuckDBPyConnection, labs: CsvTable, convert: bool) -> tuple[Reject, ...]:
    """Fills ``lab_results``; gives the reasons of the rows that cannot be used, each with the number of rows."""
    pairs = connection.execute("SELECT DISTINCT itemid, valueuom FROM raw_labs ORDER BY 1, 2").fetchall()
    judged = [(itemid, unit, *_judge(itemid, unit, convert)) for itemid, unit in pairs]
    columns = ["itemid", "unit", "fault", "factor", "becomes"]
    _insert(connection, "item_faults", pd.DataFrame(judged, columns=columns, dtype=object).astype({"factor": float}))
    connection.execute(sql("manifest/labs"))
    found = connection.execute(
        "SELECT fault, count(*), min(file_order) FROM judged_labs WHERE fault IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1"
    ).fetchall()
    reasons = [f"{count} rows, the first is data row {first}: {fault}" for fault, count, first in found]
    if found and not connection.execute("SELECT count(*) FROM lab_results").fetchall()[0][0]:
        raise InputError(f"{labs.file}: no row can be used; {'; '.join(reasons[:3])}")
    return tuple((f"labs {position}", labs.file.name, reason) for position, reason in enumerate(reasons, 1))


def _judge(itemid: str, unit: str | None, convert: bool) -> tuple[str | None, float | None, str | None]:
    """What is wrong with an item and a unit; else the factor that makes a result one in MIMIC's unit, and its unit then."""
    fault = unit_fault(itemid, unit)
    if fault is None:
        return None, 1.0, unit
    if not convert or itemid not in _UNITS:
        return fault, None, None
    reading = read_unit(itemid, unit)
    return reading.fault, reading.factor, _UNITS[itemid]


def _insert(connection: duckdb.DuckDBPyConnection, table: str, rows: pd.DataFrame) -> None:
    connection.register("incoming", rows)
    connection.execute(f"INSERT INTO {table} SELECT * FROM incoming")  # noqa: S608 - constants
    connection.unregister("incoming")

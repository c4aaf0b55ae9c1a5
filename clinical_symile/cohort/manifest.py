"""Any hospital's own files: one CSV with a row per admission, and a long CSV of laboratory results.

``admissions.csv``
    ``subject_id``, ``hadm_id``, ``admittime`` (ISO 8601), ``ecg_path`` (WFDB record without extension), ``cxr_path`` (JPG, PNG or
    DICOM); both paths relative to the CSV. Optional: ``ecg_time``, ``cxr_time`` (where given, the windows of the rules apply),
    ``cxr_view`` (AP or PA), ``gender``, ``age``, ``race``.
``labs.csv``
    ``subject_id``, ``charttime``, ``itemid`` (MIMIC's), ``valuenum``, ``valueuom``. A row whose unit is not MIMIC's is rejected:
    units are never guessed.

Ids that are whole numbers stay as they are; otherwise each id is replaced by a positive 63-bit number made of its SHA-256, and
the hospital's own ids are kept in ``subject_key`` and ``hadm_key``.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

import duckdb

from clinical_symile.cohort.source import Source, load_csv, require_columns, require_filled, require_parsed, require_unique
from clinical_symile.errors import InputError
from clinical_symile.types import LAB_ITEMS

_REQUIRED: Final = ("subject_id", "hadm_id", "admittime", "ecg_path", "cxr_path")
_OPTIONAL: Final = ("ecg_time", "cxr_time", "cxr_view", "gender", "age", "race")
_LABS: Final = ("subject_id", "charttime", "itemid", "valuenum", "valueuom")
_TIME: Final = "try_cast({column} AS TIMESTAMP)"

_SPELLINGS: Final = {
    "k/ul": ("k/ul", "10^3/ul", "10*3/ul", "10e3/ul", "x10e3/ul", "10^9/l", "10*9/l", "thou/ul"),
    "m/ul": ("m/ul", "10^6/ul", "10*6/ul", "10e6/ul", "x10e6/ul", "10^12/l", "10*12/l"),
    "iu/l": ("iu/l", "u/l"),
    "sec": ("sec", "s", "seconds"),
    "mmhg": ("mmhg",),
}
"""Other spellings of the same unit, in lower case without blanks. Nothing here changes a number."""

_ITEM_SPELLINGS: Final = {"51249": ("%",), "50983": ("mmol/l",), "50971": ("mmol/l",), "50902": ("mmol/l",), "50882": ("mmol/l",)}
"""Per item: MIMIC itself gives MCHC in % and g/dL, the same number; for single-charged ions mmol/L equals mEq/L."""


def load_manifest(connection: duckdb.DuckDBPyConnection, manifest: Path, labs: Path) -> Source:
    """Loads a hospital from its manifest.

    Args:
        connection: receives the tables that ``source.py`` describes.
        manifest: ``admissions.csv``; file paths in it are relative to its folder.
        labs: ``labs.csv``.

    Raises:
        InputError: a column is missing or a cell cannot be read; the message names it.
    """
    present = require_columns(manifest, _REQUIRED)
    optional = tuple(column for column in _OPTIONAL if column in present)
    load_csv(connection, manifest, "raw_admissions", (*_REQUIRED, *optional))
    for column in set(_OPTIONAL) - set(optional):
        connection.execute(f"ALTER TABLE raw_admissions ADD COLUMN {column} VARCHAR")
    for column in _REQUIRED:
        require_filled(connection, "raw_admissions", manifest, column)
    require_unique(connection, "raw_admissions", manifest, "hadm_id")
    for column in ("admittime", "ecg_time", "cxr_time"):
        require_parsed(
            connection, "raw_admissions", manifest, column, _TIME.format(column=column), "a time such as 2024-05-31 13:45"
        )
    require_parsed(connection, "raw_admissions", manifest, "age", "try_cast(age AS DOUBLE)", "a number")
    load_csv(connection, labs, "raw_labs", _LABS)
    for column in ("subject_id", "charttime", "itemid"):
        require_filled(connection, "raw_labs", labs, column)
    require_parsed(connection, "raw_labs", labs, "charttime", _TIME.format(column="charttime"), "a time such as 2024-05-31 13:45")
    require_parsed(connection, "raw_labs", labs, "valuenum", "try_cast(valuenum AS DOUBLE)", "a number")
    keys = _number_ids(connection)
    _create_tables(connection)
    rejects = _reject_labs(connection, labs)
    _create_labs(connection)
    root = manifest.parent
    return Source("manifest", root, root, has_findings=False, rejects=rejects, keys=keys)


def stable_id(key: str) -> int:
    """A positive 63-bit number for a textual id, the same on every machine."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1


def _number_ids(connection: duckdb.DuckDBPyConnection) -> bool:
    """Makes ``subject_keys`` and ``hadm_keys`` (key -> id); returns whether any id had to be replaced."""
    replaced = False
    for column, table, sources in (
        ("subject_id", "subject_keys", ("raw_admissions", "raw_labs")),
        ("hadm_id", "hadm_keys", ("raw_admissions",)),
    ):
        union = " UNION ".join(f"SELECT {column} FROM {source}" for source in sources)  # noqa: S608 - constants
        keys = [row[0] for row in connection.execute(f"SELECT {column} FROM ({union}) ORDER BY 1").fetchall()]  # noqa: S608
        numeric = all(key.isdecimal() and len(key) <= 18 for key in keys)
        ids = [int(key) if numeric else stable_id(key) for key in keys]
        if len(set(ids)) != len(ids):
            raise InputError(f"column {column}: two ids differ only in how they are written (such as 7 and 007); make them alike")
        replaced = replaced or not numeric
        connection.execute(f"CREATE TABLE {table} (key VARCHAR, id BIGINT)")
        connection.executemany(f"INSERT INTO {table} VALUES (?, ?)", list(zip(keys, ids, strict=True)))  # noqa: S608
    return replaced


def _create_tables(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(
        """
        CREATE TABLE admissions AS
        SELECT s.id AS subject_id, h.id AS hadm_id, admittime::TIMESTAMP AS admittime, gender,
               try_cast(age AS DOUBLE)::BIGINT AS age, race, file_order
        FROM raw_admissions JOIN subject_keys AS s ON s.key = subject_id JOIN hadm_keys AS h ON h.key = hadm_id;

        CREATE TABLE images AS
        SELECT s.id AS subject_id, h.id AS hadm_id, cxr_path AS dicom_id, NULL::BIGINT AS study_id, cxr_path AS path,
               upper(cxr_view) AS view, cxr_time::TIMESTAMP AS time, file_order
        FROM raw_admissions JOIN subject_keys AS s ON s.key = subject_id JOIN hadm_keys AS h ON h.key = hadm_id;

        CREATE TABLE records AS
        SELECT s.id AS subject_id, h.id AS hadm_id, NULL::BIGINT AS study_id, ecg_path AS path, ecg_time::TIMESTAMP AS time,
               file_order
        FROM raw_admissions JOIN subject_keys AS s ON s.key = subject_id JOIN hadm_keys AS h ON h.key = hadm_id
        """
    )


def accepted_units() -> dict[str, set[str]]:
    """For each item the spellings of its unit that are accepted, in lower case without blanks."""
    accepted = {}
    for item in LAB_ITEMS:
        unit = item.unit.lower().replace(" ", "")
        accepted[item.itemid] = {unit, *_SPELLINGS.get(unit, ()), *_ITEM_SPELLINGS.get(item.itemid, ())}
    return accepted


def _reject_labs(connection: duckdb.DuckDBPyConnection, file: Path) -> list[tuple[str, str, str]]:
    """Marks the rows whose item or unit is not one of ours, and says why. ``raw_labs`` keeps the others."""
    rows = [(item, unit) for item, units in accepted_units().items() for unit in sorted(units)]
    connection.execute("CREATE TABLE accepted_units (itemid VARCHAR, unit VARCHAR)")
    connection.executemany("INSERT INTO accepted_units VALUES (?, ?)", rows)
    names = {item.itemid: item for item in LAB_ITEMS}
    rejected = connection.execute(
        """
        SELECT file_order, itemid, valueuom FROM raw_labs
        WHERE (itemid, lower(replace(coalesce(valueuom, ''), ' ', ''))) NOT IN (SELECT (itemid, unit) FROM accepted_units)
        ORDER BY file_order
        """
    ).fetchall()
    rejects = []
    for row, itemid, unit in rejected:
        item = names.get(itemid)
        if item is None:
            reason = f"itemid {itemid} is not one of the 50 items"
        else:
            reason = f"{item.name} ({itemid}) in {unit or 'no unit'!r}, expected {item.unit or 'no unit'!r}; convert it first"
        rejects.append((f"labs row {row}", file.name, reason))
    connection.execute(
        """
        DELETE FROM raw_labs
        WHERE (itemid, lower(replace(coalesce(valueuom, ''), ' ', ''))) NOT IN (SELECT (itemid, unit) FROM accepted_units)
        """
    )
    return rejects


def _create_labs(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(
        """
        CREATE TABLE lab_results AS
        SELECT s.id AS subject_id, itemid, charttime::TIMESTAMP AS time, valuenum::DOUBLE AS value, file_order
        FROM raw_labs JOIN subject_keys AS s ON s.key = subject_id
        WHERE valuenum IS NOT NULL AND isfinite(valuenum::DOUBLE)
        """
    )

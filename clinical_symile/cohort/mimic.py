"""MIMIC's own layout: MIMIC-IV 2.2 (hosp), MIMIC-CXR-JPG 2.0.0, MIMIC-IV-ECG 1.0."""

from __future__ import annotations

from pathlib import Path

import duckdb

from clinical_symile.cohort.source import (
    Source,
    find_table,
    load_csv,
    require_filled,
    require_parsed,
    require_unique,
)
from clinical_symile.errors import InputError
from clinical_symile.types import CHEXPERT_LABELS, LAB_ITEM_IDS

_TIME = "try_cast({column} AS TIMESTAMP)"

# The study's time is a number whose leading zeros were lost, with a fraction: 84523.417 is 08:45:23.
_STUDY_TIME = "try_strptime(\"StudyDate\" || lpad(split_part(coalesce(\"StudyTime\", ''), '.', 1), 6, '0'), '%Y%m%d%H%M%S')"


def load_mimic(
    connection: duckdb.DuckDBPyConnection, tables: dict[str, Path], cxr_root: Path | None, ecg_root: Path | None
) -> Source:
    """Loads a hospital in MIMIC's layout.

    Args:
        connection: receives the tables that ``source.py`` describes.
        tables: the files that ``find_mimic`` found.
        cxr_root: root of MIMIC-CXR-JPG; None where no X-rays take part.
        ecg_root: root of MIMIC-IV-ECG; None where no ECGs take part.

    Raises:
        InputError: a column is missing, or a table is damaged or of another version; the message names it.
    """
    _load_admissions(connection, tables)
    _load_labs(connection, tables["labevents"])
    if cxr_root is not None:
        _load_images(connection, tables["metadata"])
        _load_findings(connection, tables["chexpert"])
    if ecg_root is not None:
        _load_records(connection, tables["record_list"])
    return Source("mimic", cxr_root, ecg_root, has_findings=cxr_root is not None)


def find_mimic(mimic_iv: Path, mimic_cxr: Path | None, mimic_ecg: Path | None) -> dict[str, Path]:
    """The tables of a hospital in MIMIC's layout, name -> file, found before anything is read.

    Args:
        mimic_iv: folder with patients, admissions, labevents, or the folder that has it as ``hosp``.
        mimic_cxr: root of MIMIC-CXR-JPG, if X-rays take part.
        mimic_ecg: root of MIMIC-IV-ECG, if ECGs take part.

    Raises:
        InputError: a folder or table is missing.
    """
    if not mimic_iv.is_dir():
        raise InputError(f"{mimic_iv}: there is no such folder; --mimic-iv takes the folder of MIMIC-IV, or its hosp folder")
    hosp = mimic_iv / "hosp" if (mimic_iv / "hosp").is_dir() else mimic_iv
    tables = {name: find_table(hosp, name) for name in ("patients", "admissions", "labevents")}
    if mimic_cxr is not None:
        tables |= {name: find_table(mimic_cxr, f"mimic-cxr-2.0.0-{name}") for name in ("metadata", "chexpert")}
    if mimic_ecg is not None:
        tables["record_list"] = find_table(mimic_ecg, "record_list")
    return tables


def _load_admissions(connection: duckdb.DuckDBPyConnection, tables: dict[str, Path]) -> None:
    """Admissions with the patient's sex and age: anchor_age + (year of admission - anchor_year); 91 stands for over 89."""
    patients, admissions = tables["patients"], tables["admissions"]
    load_csv(connection, patients, "raw_patients", ("subject_id", "gender", "anchor_age", "anchor_year"))
    load_csv(connection, admissions, "raw_admissions", ("subject_id", "hadm_id", "admittime", "race"))
    for column in ("subject_id", "hadm_id"):
        require_filled(connection, "raw_admissions", admissions, column)
        require_parsed(connection, "raw_admissions", admissions, column, f"try_cast({column} AS BIGINT)", "a whole number")
    require_filled(connection, "raw_admissions", admissions, "admittime")
    require_parsed(connection, "raw_admissions", admissions, "admittime", _TIME.format(column="admittime"), "a time")
    require_unique(connection, "raw_admissions", admissions, "hadm_id")
    require_unique(connection, "raw_patients", patients, "subject_id")
    connection.execute(
        """
        CREATE TABLE admissions AS
        SELECT a.subject_id::BIGINT AS subject_id, a.hadm_id::BIGINT AS hadm_id, a.admittime::TIMESTAMP AS admittime, p.gender,
               try_cast(p.anchor_age AS BIGINT) + year(a.admittime::TIMESTAMP) - try_cast(p.anchor_year AS BIGINT) AS age,
               a.race, a.file_order
        FROM raw_admissions AS a LEFT JOIN raw_patients AS p ON p.subject_id = a.subject_id
        """
    )


def _load_labs(connection: duckdb.DuckDBPyConnection, file: Path) -> None:
    items = ", ".join(f"'{item}'" for item in LAB_ITEM_IDS)
    load_csv(
        connection,
        file,
        "raw_labs",
        ("subject_id", "itemid", "charttime", "valuenum"),
        where=f"itemid IN ({items}) AND valuenum IS NOT NULL",
    )
    require_parsed(connection, "raw_labs", file, "subject_id", "try_cast(subject_id AS BIGINT)", "a whole number")
    require_parsed(connection, "raw_labs", file, "charttime", _TIME.format(column="charttime"), "a time")
    require_parsed(connection, "raw_labs", file, "valuenum", "try_cast(valuenum AS DOUBLE)", "a number")
    connection.execute(
        """
        CREATE TABLE lab_results AS
        SELECT subject_id::BIGINT AS subject_id, itemid, charttime::TIMESTAMP AS time, valuenum::DOUBLE AS value, file_order
        FROM raw_labs WHERE isfinite(valuenum::DOUBLE);
        DROP TABLE raw_labs
        """
    )


def _load_images(connection: duckdb.DuckDBPyConnection, file: Path) -> None:
    load_csv(connection, file, "raw_images", ("dicom_id", "subject_id", "study_id", "ViewPosition", "StudyDate", "StudyTime"))
    for column in ("dicom_id", "subject_id", "study_id"):
        require_filled(connection, "raw_images", file, column)
    for column in ("subject_id", "study_id"):
        require_parsed(connection, "raw_images", file, column, f"try_cast({column} AS BIGINT)", "a whole number")
    require_parsed(connection, "raw_images", file, "StudyDate", _STUDY_TIME, "a date and time, with StudyTime")
    connection.execute(
        f"""
        CREATE TABLE images AS
        SELECT subject_id::BIGINT AS subject_id, NULL::BIGINT AS hadm_id, dicom_id, study_id::BIGINT AS study_id,
               concat('files/p', subject_id[1:2], '/p', subject_id, '/s', study_id, '/', dicom_id, '.jpg') AS path,
               "ViewPosition" AS view, {_STUDY_TIME} AS time, file_order
        FROM raw_images
        """  # noqa: S608 - constants
    )


def _load_findings(connection: duckdb.DuckDBPyConnection, file: Path) -> None:
    load_csv(connection, file, "raw_findings", ("study_id", *CHEXPERT_LABELS))
    labels = ", ".join(f'try_cast("{label}" AS DOUBLE) AS "{label}"' for label in CHEXPERT_LABELS)
    connection.execute(
        f"CREATE TABLE findings AS SELECT study_id::BIGINT AS study_id, {labels} FROM raw_findings "  # noqa: S608 - constants
        "QUALIFY row_number() OVER (PARTITION BY study_id ORDER BY file_order) = 1"
    )


def _load_records(connection: duckdb.DuckDBPyConnection, file: Path) -> None:
    load_csv(connection, file, "raw_records", ("subject_id", "study_id", "ecg_time", "path"))
    for column in ("subject_id", "study_id", "path"):
        require_filled(connection, "raw_records", file, column)
    for column in ("subject_id", "study_id"):
        require_parsed(connection, "raw_records", file, column, f"try_cast({column} AS BIGINT)", "a whole number")
    require_parsed(connection, "raw_records", file, "ecg_time", _TIME.format(column="ecg_time"), "a time")
    connection.execute(
        """
        CREATE TABLE records AS
        SELECT subject_id::BIGINT AS subject_id, NULL::BIGINT AS hadm_id, study_id::BIGINT AS study_id, path,
               ecg_time::TIMESTAMP AS time, file_order
        FROM raw_records
        """
    )

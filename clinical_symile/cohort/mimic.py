"""MIMIC's own layout: MIMIC-IV 2.2 (hosp), MIMIC-CXR-JPG 2.0.0, MIMIC-IV-ECG 1.0."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import duckdb

from clinical_symile.cohort.csv_table import find_table, load_csv
from clinical_symile.cohort.source import Source, sql
from clinical_symile.errors import InputError
from clinical_symile.types import CHEXPERT_LABELS, LAB_ITEM_IDS


def find_mimic(mimic_iv: Path, mimic_cxr: Path | None, mimic_ecg: Path | None, *, labs: bool = True) -> dict[str, Path]:
    """The tables of a hospital in MIMIC's layout, name -> file, found before anything is read.

    Args:
        mimic_iv: folder with patients, admissions, labevents, or the folder that has it as ``hosp``.
        mimic_cxr: root of MIMIC-CXR-JPG, if X-rays take part.
        mimic_ecg: root of MIMIC-IV-ECG, if ECGs take part.
        labs: whether labs take part.

    Raises:
        InputError: a folder or table is missing.
    """
    if not mimic_iv.is_dir():
        raise InputError(f"{mimic_iv}: there is no such folder; --mimic-iv takes the folder of MIMIC-IV, or its hosp folder")
    hosp = mimic_iv / "hosp" if (mimic_iv / "hosp").is_dir() else mimic_iv
    tables = {name: find_table(hosp, name) for name in ("admissions", "patients", *(["labevents"] if labs else []))}
    if mimic_cxr is not None:
        tables |= {name: find_table(mimic_cxr, f"mimic-cxr-2.0.0-{name}") for name in ("metadata", "chexpert")}
    if mimic_ecg is not None:
        tables["record_list"] = find_table(mimic_ecg, "record_list")
    return tables


def load_mimic(
    connection: duckdb.DuckDBPyConnection, tables: dict[str, Path], cxr_root: Path | None, ecg_root: Path | None
) -> Source:
    """Loads a hospital in MIMIC's layout.

    Args:
        connection: receives the tables that ``source.py`` describes.
        tables: the files that ``find_mimic`` found.
        cxr_root: root of MIMIC-CXR-JPG, if X-rays take part.
        ecg_root: root of MIMIC-IV-ECG, if ECGs take part.

    Raises:
        InputError: a column is missing, or a table is damaged or of another version; the message names it.
    """
    _load_admissions(connection, tables)
    for name, load in _LOADERS.items():
        if name in tables:
            load(connection, tables[name])
    return Source(cxr_root, ecg_root, needs_findings=True)


def _load_admissions(connection: duckdb.DuckDBPyConnection, tables: dict[str, Path]) -> None:
    admissions = load_csv(connection, tables["admissions"], "raw_admissions", ("subject_id", "hadm_id", "admittime", "race"))
    admissions.require_filled("subject_id", "hadm_id", "admittime")
    admissions.require_readable("as_id", "subject_id", "hadm_id")
    admissions.require_readable("as_time", "admittime")
    admissions.require_unique("hadm_id")
    patients = load_csv(connection, tables["patients"], "raw_patients", ("subject_id", "gender", "anchor_age", "anchor_year"))
    patients.require_readable("as_id", "anchor_age", "anchor_year")
    patients.require_unique("subject_id")
    connection.execute(sql("mimic/admissions"))


def _load_labs(connection: duckdb.DuckDBPyConnection, file: Path) -> None:
    items = ", ".join(f"'{item}'" for item in LAB_ITEM_IDS)
    labs = load_csv(
        connection,
        file,
        "raw_labs",
        ("subject_id", "itemid", "charttime", "valuenum"),
        where=f"itemid IN ({items}) AND valuenum IS NOT NULL",
    )
    labs.require_readable("as_id", "subject_id")
    labs.require_readable("as_time", "charttime")
    labs.require_readable("as_number", "valuenum")
    connection.execute(sql("mimic/labs"))


def _load_images(connection: duckdb.DuckDBPyConnection, file: Path) -> None:
    columns = ("dicom_id", "subject_id", "study_id", "ViewPosition", "StudyDate", "StudyTime")
    # An image without a time is in no window.
    images = load_csv(connection, file, "raw_images", columns, where='"StudyDate" IS NOT NULL AND "StudyTime" IS NOT NULL')
    images.require_filled("dicom_id", "subject_id", "study_id")
    images.require_readable("as_id", "subject_id", "study_id")
    known = {"StudyTime": 'as_study_time("StudyDate", "StudyTime") IS NOT NULL'}
    images.require(known, "is no HHMMSS, or its StudyDate no YYYYMMDD")
    connection.execute(sql("mimic/images"))


def _load_findings(connection: duckdb.DuckDBPyConnection, file: Path) -> None:
    findings = load_csv(connection, file, "raw_findings", ("study_id", *CHEXPERT_LABELS))
    findings.require_filled("study_id")
    findings.require_readable("as_id", "study_id")
    findings.require_readable("as_number", *CHEXPERT_LABELS)
    findings.require_unique("study_id")
    labels = ", ".join(f'as_number("{label}")' for label in CHEXPERT_LABELS)
    connection.execute(f"INSERT INTO findings SELECT as_id(study_id), {labels} FROM raw_findings")  # noqa: S608 - constants


def _load_records(connection: duckdb.DuckDBPyConnection, file: Path) -> None:
    records = load_csv(connection, file, "raw_records", ("subject_id", "study_id", "ecg_time", "path"))
    records.require_filled("subject_id", "study_id", "path")
    records.require_readable("as_id", "subject_id", "study_id")
    records.require_readable("as_time", "ecg_time")
    connection.execute(sql("mimic/records"))


_LOADERS: Final[dict[str, Callable[[duckdb.DuckDBPyConnection, Path], None]]] = {
    "labevents": _load_labs,
    "metadata": _load_images,
    "chexpert": _load_findings,
    "record_list": _load_records,
}

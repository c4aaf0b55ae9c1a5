"""MIMIC's own layout: MIMIC-IV 2.2 or later (hosp), MIMIC-CXR-JPG 2.0.0, MIMIC-IV-ECG 1.0."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import duckdb

from clinical_symile.cohort.csv_table import Requirement, filled, find_table, read_header, readable
from clinical_symile.cohort.parquet_cache import Layout, ParquetCache
from clinical_symile.cohort.source import Source, sql
from clinical_symile.errors import InputError
from clinical_symile.types import CHEXPERT_LABELS, LAB_ITEM_IDS

_ITEMS: Final = ", ".join(f"'{item}'" for item in LAB_ITEM_IDS)

_LAYOUTS: Final[dict[str, Layout]] = {
    "admissions": Layout(
        columns=("subject_id", "hadm_id", "admittime", "race"),
        optional=("dischtime", "deathtime"),
        select=sql("mimic/parquet/admissions"),
        requirements=(
            *filled("subject_id", "hadm_id", "admittime"),
            *readable("as_id", "subject_id", "hadm_id"),
            *readable("as_time", "admittime", "dischtime", "deathtime"),
        ),
        unique="hadm_id",
    ),
    "patients": Layout(
        columns=("subject_id", "gender", "anchor_age", "anchor_year"),
        select=sql("mimic/parquet/patients"),
        requirements=(*filled("subject_id"), *readable("as_id", "subject_id", "anchor_age", "anchor_year")),
        unique="subject_id",
    ),
    "labevents": Layout(
        columns=("subject_id", "itemid", "charttime", "valuenum"),
        optional=("valueuom",),
        select=sql("mimic/parquet/labevents"),
        where=f"itemid IN ({_ITEMS}) AND valuenum IS NOT NULL",
        requirements=(
            *readable("as_id", "subject_id"),
            *readable("as_time", "charttime"),
            *readable("as_number", "valuenum"),
        ),
    ),
    "metadata": Layout(
        columns=("dicom_id", "subject_id", "study_id", "ViewPosition", "StudyDate", "StudyTime"),
        select=sql("mimic/parquet/metadata"),
        # An image without a time is in no window.
        where='"StudyDate" IS NOT NULL AND "StudyTime" IS NOT NULL',
        requirements=(
            *filled("dicom_id", "subject_id", "study_id"),
            *readable("as_id", "subject_id", "study_id"),
            Requirement(
                "StudyTime",
                'as_study_time("StudyDate", "StudyTime") IS NOT NULL',
                "is no HHMMSS, or its StudyDate no YYYYMMDD",
            ),
        ),
        unique="dicom_id",
    ),
    "chexpert": Layout(
        columns=("study_id", *CHEXPERT_LABELS),
        select=sql("mimic/parquet/chexpert"),
        requirements=(*filled("study_id"), *readable("as_id", "study_id"), *readable("as_number", *CHEXPERT_LABELS)),
        unique="study_id",
    ),
    "record_list": Layout(
        columns=("subject_id", "study_id", "ecg_time", "path"),
        select=sql("mimic/parquet/record_list"),
        requirements=(
            *filled("subject_id", "study_id", "path"),
            *readable("as_id", "subject_id", "study_id"),
            *readable("as_time", "ecg_time"),
        ),
        unique="path",
    ),
}

_ENOUGH_ROWS: Final = 100
"""A table with fewer may hold none of the hospital's patients by chance."""


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
    connection: duckdb.DuckDBPyConnection,
    tables: Mapping[str, Path],
    cache: ParquetCache,
    cxr_root: Path | None,
    ecg_root: Path | None,
) -> Source:
    """Loads a hospital in MIMIC's layout.

    Args:
        connection: receives the tables that ``source.py`` describes.
        tables: the files that ``find_mimic`` found.
        cache: keeps them as Parquet.
        cxr_root: root of MIMIC-CXR-JPG, if X-rays take part.
        ecg_root: root of MIMIC-IV-ECG, if ECGs take part.

    Raises:
        InputError: a column is missing, or a table is damaged or of another version; the message names it.
    """
    _require_one_release(tables)
    for name, layout in _LAYOUTS.items():
        if name in tables:
            relation = cache.table(connection, name, tables[name], layout)
            connection.execute(f"CREATE VIEW mimic_{name} AS SELECT * FROM {relation}")  # noqa: S608 - constants
    _require_same_patients(connection, tables)
    for name in tables:
        if name != "patients":  # comes in with the admissions
            connection.execute(sql(f"mimic/{name}"))
    return Source(cxr_root, ecg_root, needs_findings=True)


def _require_one_release(tables: Mapping[str, Path]) -> None:
    """Refuses an admissions table and a labevents table of which only one is of MIMIC-IV 2.2 or later.

    2.2 brought the providers' ids into both. Each table's other column shows that it was not cut down by the user.
    """
    marks = {"admissions": ("admit_provider_id", "hospital_expire_flag"), "labevents": ("order_provider_id", "specimen_id")}
    has_mark = {}
    for name, (mark, complete) in marks.items():
        header = read_header(tables[name]) if name in tables else []
        if complete in header:
            has_mark[name] = mark in header
    if len(set(has_mark.values())) > 1:
        newer, older = sorted(has_mark, key=has_mark.__getitem__, reverse=True)
        raise InputError(
            f"{tables[older]}: lacks the column {marks[older][0]}, though {tables[newer].name} has its {marks[newer][0]}: the "
            "two come from different versions of MIMIC-IV; take both from one release (2.2 or later)"
        )


def _require_same_patients(connection: duckdb.DuckDBPyConnection, tables: Mapping[str, Path]) -> None:
    """Refuses tables of different hospitals or versions.

    Each admission's patient must be known. Other tables may hold patients of their own (MIMIC-CXR does), but not only such.
    """
    strangers, patients = connection.execute(
        "SELECT count(*), count(DISTINCT subject_id) FROM mimic_admissions "
        "WHERE subject_id NOT IN (SELECT subject_id FROM mimic_patients)"
    ).fetchall()[0]
    if strangers:
        raise InputError(
            f"{tables['patients']}: lacks {patients} patients of {strangers} rows of {tables['admissions'].name}: the two come "
            "from different versions of MIMIC-IV, or one is cut short; take both from one release"
        )
    for name in ("labevents", "metadata", "record_list"):
        if name not in tables:
            continue
        known, rows = connection.execute(
            f"SELECT EXISTS (SELECT 1 FROM mimic_{name} WHERE subject_id IN (SELECT subject_id FROM mimic_patients)), "  # noqa: S608
            f"(SELECT count(*) FROM mimic_{name})"
        ).fetchall()[0]
        if rows >= _ENOUGH_ROWS and not known:
            raise InputError(
                f"{tables[name]}: no row's subject_id stands in {tables['patients'].name}: the two come from different data sets "
                "(demo and full, perhaps, or another de-identification); take all tables from matching releases"
            )

"""A hospital as the rules see it: five tables with one meaning each, however the hospital's own files are laid out.

=================  ============================================================================================
``admissions``     subject_id, hadm_id, admittime, gender, age, race, subject_key, hadm_key (null: the ids are
                   the hospital's own), dischtime, deathtime (null: not known)
``images``         subject_id, hadm_id (null: matched by time), dicom_id, study_id, path, view, time, file_order
``findings``       study_id and the 14 CheXpert labels
``records``        subject_id, hadm_id (null: matched by time), study_id, path, time, file_order
``lab_results``    subject_id, itemid, time, value, unit (null: not given), file_order; only the 50 items, only
                   rows with a number
=================  ============================================================================================

A hospital without images, findings, records or results has an empty table.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import duckdb

from clinical_symile.types import CHEXPERT_LABELS

Reject = tuple[str, str, str]
"""An item that cannot be used, the path of its file, and the reason."""


@dataclass(frozen=True)
class Source:
    """What a reader knows about the tables that it loaded.

    Attributes:
        cxr_root: folder that image paths are relative to.
        ecg_root: folder that record paths are relative to.
        needs_findings: whether an image counts only if its study has a row of findings.
        rejects: rows that cannot be used.
    """

    cxr_root: Path | None
    ecg_root: Path | None
    needs_findings: bool
    rejects: tuple[Reject, ...] = ()


def connect(spill: Path, threads: int = 1, memory_limit: str = "3GB") -> duckdb.DuckDBPyConnection:
    """An in-memory database with the empty tables above, which answers the same on any number of threads.

    Args:
        spill: folder for what does not fit into memory; otherwise DuckDB would put it into the current folder.
        threads: at most so many.
        memory_limit: above it, DuckDB spills.
    """
    connection = duckdb.connect(
        ":memory:",
        config={
            "memory_limit": memory_limit,
            "threads": threads,
            "temp_directory": str(spill),
            "preserve_insertion_order": True,
            "autoinstall_known_extensions": False,  # it would use the network
            "autoload_known_extensions": False,
        },
    )
    connection.execute("SET enable_progress_bar = false")
    connection.execute(sql("macros"))
    labels = ", ".join(f'"{label}" DOUBLE' for label in CHEXPERT_LABELS)
    connection.execute(sql("tables") + f"CREATE TABLE findings (study_id BIGINT, {labels});")
    return connection


def sql(name: str) -> str:
    """The text of ``sql/<name>.sql``."""
    return files("clinical_symile.cohort").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")

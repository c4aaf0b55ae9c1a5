"""The paper's rules, step by step, on the tables of ``source.py``; the SQL beside this file holds the rules themselves."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.resources import files
from pathlib import Path

import duckdb
import pandas as pd

from clinical_symile.cohort.attrition import Attrition
from clinical_symile.cohort.source import Source
from clinical_symile.config import CohortConfig
from clinical_symile.execution import map_items
from clinical_symile.stage import RunOptions, track
from clinical_symile.types import CHEXPERT_LABELS, LAB_ITEM_IDS

EcgCheck = Callable[[Path, Path], str | None]
"""Takes a record's path and the root it must lie in; says why it cannot be used, or None when it can."""

_US_PER_HOUR = 3_600_000_000


def select_admissions(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    rules: CohortConfig,
    ecg_is_usable: EcgCheck | None,
    options: RunOptions,
) -> tuple[pd.DataFrame, Attrition, list[tuple[str, str, str]]]:
    """Applies the rules.

    X-rays first, then labs, then ECGs: the order changes nothing in the result, but an ECG file is opened only for an
    admission that has the rest.

    Args:
        connection: holds the tables.
        source: what they are.
        rules: windows, and the modalities an admission must have.
        ecg_is_usable: takes a record's path and its root; None accepts every record without opening it.
        options: how to run.

    Returns:
        One row per admission, sorted by hadm_id; the attrition; (item, path, reason) of files that could not be used.

    Raises:
        InputError: no admission is left.
    """
    admissions = connection.execute(
        "SELECT subject_id, hadm_id, admittime, gender, age, race FROM admissions ORDER BY hadm_id"
    ).df()
    attrition = Attrition("admissions", len(admissions))
    attrition.keep("all", len(admissions), "the tables hold no admission")
    rejects: list[tuple[str, str, str]] = []
    if "cxr" in rules.require:
        admissions = _with_cxr(connection, source, rules, admissions, attrition, rejects, options)
    if "labs" in rules.require:
        admissions = _with_labs(connection, rules, admissions, attrition)
    if "ecg" in rules.require:
        admissions = _with_ecg(connection, source, rules, admissions, attrition, rejects, ecg_is_usable, options)
    del attrition.steps[1]
    return admissions.sort_values("hadm_id", ignore_index=True), attrition, rejects


def _with_cxr(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    rules: CohortConfig,
    admissions: pd.DataFrame,
    attrition: Attrition,
    rejects: list[tuple[str, str, str]],
    options: RunOptions,
) -> pd.DataFrame:
    window = {"after_us": round(rules.cxr_after_hours * _US_PER_HOUR), "until_us": round(rules.cxr_until_hours * _US_PER_HOUR)}
    check = partial(_is_file, root=source.cxr_root) if source.cxr_root else None
    chosen, in_window = _first_usable(connection, "cxr", window, "excluded_images", check, "checking X-rays", rejects, options)
    hours = f"more than {rules.cxr_after_hours:g} h and at most {rules.cxr_until_hours:g} h after admission"
    attrition.keep("frontal X-ray", in_window, f"no AP or PA X-ray {hours}")
    attrition.keep("X-ray on disk", len(chosen), "the image file is missing")
    chosen = chosen.rename(columns={name: f"cxr_{name}" for name in ("dicom_id", "study_id", "path", "view", "time")})
    if source.has_findings:
        # Inner, after the earliest was taken: when its study has no row, a later X-ray is not tried.
        findings = connection.execute("SELECT * FROM findings").df()
        chosen = chosen.merge(findings, left_on="cxr_study_id", right_on="study_id").drop(columns="study_id")
        attrition.keep("CheXpert labels", len(chosen), "the X-ray's study has no CheXpert row")
    else:
        chosen = chosen.assign(**dict.fromkeys(CHEXPERT_LABELS, float("nan")))
    return admissions.merge(chosen, on="hadm_id")


def _with_labs(
    connection: duckdb.DuckDBPyConnection, rules: CohortConfig, admissions: pd.DataFrame, attrition: Attrition
) -> pd.DataFrame:
    window = {"window_us": round(rules.lab_window_hours * _US_PER_HOUR)}
    labs = connection.execute(_sql("labs"), window).df()
    wide = labs.pivot(index="hadm_id", columns="itemid", values="value").reindex(columns=list(LAB_ITEM_IDS))
    admissions = admissions.merge(wide, left_on="hadm_id", right_index=True)
    attrition.keep("labs", len(admissions), f"none of the 50 items within {rules.lab_window_hours:g} h of admission")
    return admissions


def _with_ecg(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    rules: CohortConfig,
    admissions: pd.DataFrame,
    attrition: Attrition,
    rejects: list[tuple[str, str, str]],
    ecg_is_usable: EcgCheck | None,
    options: RunOptions,
) -> pd.DataFrame:
    # Only records that could still be chosen are opened.
    connection.register("left_over", admissions[["hadm_id"]])
    connection.execute("CREATE OR REPLACE TEMP TABLE kept AS SELECT hadm_id FROM left_over")
    connection.execute("DELETE FROM admissions WHERE hadm_id NOT IN (SELECT hadm_id FROM kept)")
    check = partial(_record_check, root=source.ecg_root, is_usable=ecg_is_usable) if ecg_is_usable and source.ecg_root else None
    window = {"window_us": round(rules.ecg_window_hours * _US_PER_HOUR)}
    chosen, in_window = _first_usable(connection, "ecg", window, "excluded_records", check, "checking ECGs", rejects, options)
    attrition.keep("ECG", in_window, f"no ECG within {rules.ecg_window_hours:g} h of admission")
    attrition.keep("usable ECG", len(chosen), "each ECG in the window is unreadable, has missing samples or is flat")
    chosen = chosen.rename(columns={name: f"ecg_{name}" for name in ("study_id", "path", "time")})
    return admissions.merge(chosen, on="hadm_id")


def _first_usable(
    connection: duckdb.DuckDBPyConnection,
    query: str,
    window: dict[str, int],
    excluded: str,
    check: Callable[[str], str | None] | None,
    description: str,
    rejects: list[tuple[str, str, str]],
    options: RunOptions,
) -> tuple[pd.DataFrame, int]:
    """The earliest usable file of each admission: choose, look at what was chosen, exclude what cannot be used, choose again.

    Returns:
        The choice, and the number of admissions that had any file in the window.
    """
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {excluded} (path VARCHAR)")
    chosen = connection.execute(_sql(query), window).df()
    in_window = len(chosen)
    known: set[str] = set()
    while check is not None:
        paths = sorted(set(chosen["path"]) - known)
        # Starting processes costs as much as opening a thousand small files.
        jobs = min(options.jobs, 1 + len(paths) // 2000)
        reasons = track(map_items(check, paths, jobs=jobs), len(paths), description, options)
        bad = [(path, reason) for path, reason in zip(paths, reasons, strict=True) if reason is not None]
        known.update(paths)
        if not bad:
            break
        rejects += [(Path(path).name, path, reason) for path, reason in bad]
        connection.executemany(f"INSERT INTO {excluded} VALUES (?)", [[path] for path, _ in bad])  # noqa: S608 - constant
        chosen = connection.execute(_sql(query), window).df()
    return chosen, in_window


def _is_file(path: str, root: Path) -> str | None:
    return None if (root / path).is_file() else "the file is missing"


def _record_check(path: str, root: Path, is_usable: EcgCheck) -> str | None:
    return is_usable(root / path, root)


def _sql(name: str) -> str:
    return files("clinical_symile.cohort").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")

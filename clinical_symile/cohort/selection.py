"""The paper's rules, step by step, on the tables of ``source.py``; ``sql/rules`` holds the rules themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Literal

import duckdb
import pyarrow as pa

from clinical_symile.cohort.attrition import Attrition
from clinical_symile.cohort.source import Reject, Source, sql
from clinical_symile.config import CohortConfig
from clinical_symile.execution import map_items
from clinical_symile.stage import RunOptions, track
from clinical_symile.types import LAB_ITEM_IDS

EcgCheck = Callable[[Path, Path], str | None]
"""Takes a record's path and the root it must lie in; says why it cannot be used, or None when it can."""

_FileCheck = Callable[[str], str | None]
_MICROSECONDS_PER_HOUR: Final = 3_600_000_000
_FILES_PER_PROCESS: Final = 2000
"""Starting a process costs as much as opening so many small files."""


def select_admissions(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    rules: CohortConfig,
    ecg_is_usable: EcgCheck | None,
    options: RunOptions,
) -> tuple[pa.Table, Attrition, list[Reject]]:
    """Applies the rules.

    X-rays first, then labs, then ECGs: the order changes nothing in the result, but an ECG file is opened only for an
    admission that has the rest.

    Args:
        connection: holds the tables.
        source: what is known about them.
        rules: windows, and the modalities an admission must have.
        ecg_is_usable: takes a record's path and its root; None accepts every record without opening it.
        options: how to run.

    Returns:
        One row per admission, sorted by hadm_id; the attrition; the files that cannot be used.

    Raises:
        InputError: no admission is left.
    """
    selection = _Selection(connection, source, rules, options)
    if "cxr" in rules.require:
        selection.take_cxr()
    if "labs" in rules.require:
        selection.take_labs()
    if "ecg" in rules.require:
        selection.take_ecg(ecg_is_usable)
    return selection.table(), selection.attrition, selection.rejects


@dataclass
class _Selection:
    """The flow of admissions; the database's ``admissions`` holds those that are left."""

    connection: duckdb.DuckDBPyConnection
    source: Source
    rules: CohortConfig
    options: RunOptions
    rejects: list[Reject] = field(default_factory=list)
    attrition: Attrition = field(init=False)

    def __post_init__(self) -> None:
        self.attrition = Attrition(self._count("admissions"))

    def take_cxr(self) -> None:
        """The earliest frontal X-ray whose file is there, then its study's findings."""
        rules = self.rules
        window = {"after_us": _microseconds(rules.cxr_after_hours), "until_us": _microseconds(rules.cxr_until_hours)}
        check = partial(missing_file, root=self.source.cxr_root) if self.source.cxr_root else None
        in_window = self._choose_files("cxr", window, check)
        hours = f"more than {rules.cxr_after_hours:g} h and at most {rules.cxr_until_hours:g} h after admission"
        self.attrition.keep("frontal X-ray", in_window, f"no AP or PA X-ray {hours}")
        self.attrition.keep("X-ray on disk", self._count("chosen_cxr"), "the image file is missing")
        if self.source.needs_findings:
            # After the earliest was taken: when its study has no row, a later X-ray is not tried.
            self.connection.execute("DELETE FROM chosen_cxr WHERE study_id NOT IN (SELECT study_id FROM findings)")
            self.attrition.keep("CheXpert labels", self._count("chosen_cxr"), "the X-ray's study has no CheXpert row")
        self._drop_others("chosen_cxr")

    def take_labs(self) -> None:
        """The earliest value of each item."""
        self.connection.execute(sql("rules/labs"), {"window_us": _microseconds(self.rules.lab_window_hours)})
        self._drop_others("chosen_labs")
        reason = f"none of the 50 items within {self.rules.lab_window_hours:g} h of admission"
        self.attrition.keep("labs", self._count("admissions"), reason)

    def take_ecg(self, is_usable: EcgCheck | None) -> None:
        """The earliest ECG that can be used."""
        root = self.source.ecg_root
        check = partial(_ecg_fault, root=root, is_usable=is_usable) if is_usable and root else None
        in_window = self._choose_files("ecg", {"window_us": _microseconds(self.rules.ecg_window_hours)}, check)
        self.attrition.keep("ECG", in_window, f"no ECG within {self.rules.ecg_window_hours:g} h of admission")
        reason = "each ECG in the window is unreadable, has missing samples or is flat"
        self.attrition.keep("usable ECG", self._count("chosen_ecg"), reason)
        self._drop_others("chosen_ecg")

    def table(self) -> pa.Table:
        """The admissions that are left, with what was chosen."""
        items = ", ".join(f"'{itemid}'" for itemid in LAB_ITEM_IDS)
        self.connection.execute(
            f"CREATE TABLE labs_by_admission AS PIVOT chosen_labs ON itemid IN ({items}) USING max(value) GROUP BY hadm_id"
        )
        return self.connection.sql(sql("rules/cohort")).to_arrow_table()

    def _choose_files(self, modality: Literal["cxr", "ecg"], window: dict[str, int], check: _FileCheck | None) -> int:
        """Choose, look at what was chosen, leave out what cannot be used, choose again.

        Returns:
            The number of admissions that have any file in the window, usable or not.
        """
        chosen = f"chosen_{modality}"
        self.connection.execute("DELETE FROM excluded_files")
        self.connection.execute(sql(f"rules/{modality}"), window)
        in_window = self._count(chosen)
        seen: set[str] = set()
        while check is not None:
            rows = self.connection.execute(f"SELECT DISTINCT path FROM {chosen} ORDER BY path").fetchall()  # noqa: S608
            paths = [path for (path,) in rows if path not in seen]
            faults = [(path, fault) for path, fault in self._check(paths, check, modality) if fault is not None]
            if not faults:
                break
            seen.update(paths)
            self.rejects += [(Path(path).name, path, fault) for path, fault in faults]
            self.connection.executemany("INSERT INTO excluded_files VALUES (?)", [[path] for path, _ in faults])
            self.connection.execute(f"DELETE FROM {chosen}")  # noqa: S608 - constants
            self.connection.execute(sql(f"rules/{modality}"), window)
        return in_window

    def _check(self, paths: list[str], check: _FileCheck, modality: str) -> list[tuple[str, str | None]]:
        jobs = min(self.options.jobs, 1 + len(paths) // _FILES_PER_PROCESS)
        faults = track(map_items(check, paths, jobs=jobs), len(paths), f"cohort: check {modality} files", self.options)
        return list(zip(paths, faults, strict=True))

    def _drop_others(self, chosen: str) -> None:
        self.connection.execute(f"DELETE FROM admissions WHERE hadm_id NOT IN (SELECT hadm_id FROM {chosen})")  # noqa: S608

    def _count(self, table: str) -> int:
        return int(self.connection.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0])  # noqa: S608 - constants


def missing_file(path: str, root: Path) -> str | None:
    """Why a path that a table gives names no file under ``root``, or None when it does."""
    relative = Path(path)
    if relative.is_absolute() or ".." in relative.parts:
        return "the path must be relative to its source folder, without '..'"
    return None if (root / relative).is_file() else "the file is missing"


def _ecg_fault(path: str, root: Path, is_usable: EcgCheck) -> str | None:
    return is_usable(root / path, root)


def _microseconds(hours: float) -> int:
    return round(hours * _MICROSECONDS_PER_HOUR)

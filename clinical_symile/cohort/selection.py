"""The rules, step by step, on the tables of ``source.py``: ``sql/rules`` are the paper's, ``sql/strict`` what goes beyond them.

Each modality goes the same way: its *candidates* are what lies in an admission's window (the one range join), strict rules delete
from them, and the earliest that is left is *chosen*. Files are looked at when they are chosen; those that cannot be used are
deleted from the candidates, and the next ones are chosen.

Ties are broken by the order of the rows in their file, then by id: the paper's script takes the first after an unstable sort, and
that is the file's order as long as there are few candidates. No result depends on the number of threads.

One difference is on purpose: the script drops an ECG with any missing sample or only zeros; here one whose leads are all
constant, at whatever values, is dropped too, and one that cannot be read at all, which would have stopped the script.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Literal

import duckdb
import pyarrow as pa

from clinical_symile.cohort.attrition import Attrition
from clinical_symile.cohort.ecg_checks import EcgCheck, check_ecgs
from clinical_symile.cohort.source import Reject, Source, sql
from clinical_symile.cohort.strict import fill_lab_tables, find_notes, require_stay_ends
from clinical_symile.config import CohortConfig
from clinical_symile.stage import RunOptions, track
from clinical_symile.types import LAB_ITEM_IDS

logger = logging.getLogger(__name__)

_Look = Callable[[list[str]], list[tuple[str, str | None]]]
"""Takes paths; opens or stats their files, and says of each why it cannot be used, or None when it can."""

_Candidates = Literal["cxr_candidates", "ecg_candidates", "lab_candidates"]
_THINGS: Final[dict[_Candidates, str]] = {
    "cxr_candidates": "X-rays",
    "ecg_candidates": "ECGs",
    "lab_candidates": "Lab results",
}
_MICROSECONDS_PER_HOUR: Final = 3_600_000_000


def select_admissions(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    rules: CohortConfig,
    examine_ecg: EcgCheck | None,
    options: RunOptions,
    ecg_log: Path | None = None,
) -> tuple[pa.Table, Attrition, list[Reject]]:
    """Applies the rules.

    X-rays first, then labs, then ECGs: the order changes nothing in the result, but an ECG file is opened only for an
    admission that has the rest.

    Args:
        connection: holds the tables.
        source: what is known about them.
        rules: windows, the modalities an admission must have, and the strict rules that apply.
        examine_ecg: takes a record's path and its root; None accepts every record without opening it, flat leads included.
        options: how to run.
        ecg_log: remembers what the ECG records hold, for the next run; None remembers nothing.

    Returns:
        One row per admission, sorted by hadm_id; the attrition with its notes; the files that cannot be used.

    Raises:
        InputError: no admission is left, or a strict rule needs a column that the hospital does not give.
    """
    selection = _Selection(connection, source, rules, examine_ecg, options, ecg_log)
    if "cxr" in rules.require:
        selection.take_cxr()
    if "labs" in rules.require:
        selection.take_labs()
    if "ecg" in rules.require:
        selection.take_ecg()
    return selection.table(), selection.attrition, selection.rejects


@dataclass
class _Selection:
    """The flow of admissions; the database's ``admissions`` holds those that are left."""

    connection: duckdb.DuckDBPyConnection
    source: Source
    rules: CohortConfig
    examine_ecg: EcgCheck | None
    options: RunOptions
    ecg_log: Path | None
    rejects: list[Reject] = field(default_factory=list)
    usable: set[str] = field(default_factory=set)
    attrition: Attrition = field(init=False)

    def __post_init__(self) -> None:
        self.attrition = Attrition(*self._count())
        if self.rules.switches.cxr_during_stay and "cxr" in self.rules.require:
            require_stay_ends(self.connection)
        # All files in the windows of all admissions, before any has left: which admission a study belongs to does not depend
        # on what else the admissions have.
        after, until, ecg = (
            _microseconds(hours)
            for hours in (self.rules.cxr_after_hours, self.rules.cxr_until_hours, self.rules.ecg_window_hours)
        )
        self._run("rules/cxr_candidates", {"after_us": after, "until_us": until})
        self._run("rules/ecg_candidates", {"window_us": ecg})

    def take_cxr(self) -> None:
        """The earliest frontal X-ray whose file is there, then its study's findings."""
        rules, root = self.rules, self.source.cxr_root
        hours = f"more than {rules.cxr_after_hours:g} h and at most {rules.cxr_until_hours:g} h after admission"
        self._keep("frontal X-ray", "cxr_candidates", f"no AP or PA X-ray {hours}")
        after = "each frontal X-ray was taken after discharge or death"
        self._apply("cxr_during_stay", "cxr_candidates", "X-ray during the stay", after)
        self._apply("one_admission_per_study", "cxr_candidates", "X-ray of its own", "each X-ray belongs to another admission")
        self._choose_files("cxr", partial(self._look_at_images, root=root) if root else None)
        self._keep("X-ray on disk", "chosen_cxr", "the image file is missing")
        if self.source.needs_findings:
            self._run("rules/findings")
            self._keep("CheXpert labels", "chosen_cxr", "the X-ray's study has no CheXpert row")

    def take_labs(self) -> None:
        """The results of each item in the window; which is the earliest is settled at the end."""
        fill_lab_tables(self.connection)
        self._run("rules/lab_candidates", {"window_us": _microseconds(self.rules.lab_window_hours)})
        reason = f"none of the 50 items within {self.rules.lab_window_hours:g} h of admission"
        self._keep("labs", "lab_candidates", reason)
        other = "each result is in another unit than its item's"
        self._apply("expected_lab_units", "lab_candidates", "labs in the expected units", other)
        self._apply("plausible_labs", "lab_candidates", "plausible labs", "each result lies beyond physiological limits")

    def take_ecg(self) -> None:
        """The earliest ECG that can be used."""
        root, examine = self.source.ecg_root, self.examine_ecg
        look = partial(self._look_at_ecgs, root=root, examine=examine) if examine and root else None
        self._keep("ECG", "ecg_candidates", f"no ECG within {self.rules.ecg_window_hours:g} h of admission")
        self._apply("one_admission_per_study", "ecg_candidates", "ECG of its own", "each ECG belongs to another admission")
        self._choose_files("ecg", look)
        self._keep("usable ECG", "chosen_ecg", "each ECG in the window is unreadable, has missing samples or is flat")
        if self.rules.switches.no_flat_ecg_leads and look:
            left_out = 0
            while deleted := self._delete("no_flat_ecg_leads", "ecg_candidates"):
                left_out += deleted
                self._choose_files("ecg", look)
            reason = "each usable ECG has a flat lead"
            self._keep("ECG without flat leads", "chosen_ecg", reason, {_THINGS["ecg_candidates"]: left_out})

    def table(self) -> pa.Table:
        """The admissions that are left, with what was chosen; notes what the rules let in."""
        items = ", ".join(f"'{itemid}'" for itemid in LAB_ITEM_IDS)
        self._run("rules/choose_labs")
        self.connection.execute(
            f"CREATE TABLE labs_by_admission AS PIVOT chosen_labs ON itemid IN ({items}) USING max(value) GROUP BY hadm_id"
        )
        notes = find_notes(self.connection, self.rules.switches, self.rules.require, self.examine_ecg is not None)
        self.attrition.notes += notes
        notable = [f"{note['what']}: {note['count']:,}" for note in notes if note["count"]]
        if notable:
            logger.info("cohort: the rules '%s' let in what stricter ones would not: %s", self.rules.rules, "; ".join(notable))
        return self.connection.sql(sql("rules/cohort")).to_arrow_table()

    def _choose_files(self, modality: Literal["cxr", "ecg"], look: _Look | None) -> None:
        """Chooses from the candidates, looks at what was chosen, deletes what cannot be used, chooses again."""
        while True:
            self.connection.execute(f"DELETE FROM chosen_{modality}")  # noqa: S608 - constants
            self._run(f"rules/choose_{modality}")
            if look is None:
                return
            rows = self.connection.execute(f"SELECT DISTINCT path FROM chosen_{modality} ORDER BY path").fetchall()  # noqa: S608
            paths = [path for (path,) in rows if path not in self.usable]
            faults = [(path, fault) for path, fault in look(paths) if fault is not None]
            if not faults:
                self.usable.update(paths)
                return
            self.usable.update(set(paths) - {path for path, _ in faults})
            self.rejects += [(Path(path).name, path, fault) for path, fault in faults]
            self.connection.execute(
                f"DELETE FROM {modality}_candidates WHERE path IN (SELECT unnest($paths))",  # noqa: S608 - constants
                {"paths": [path for path, _ in faults]},
            )

    def _look_at_images(self, paths: list[str], root: Path) -> list[tuple[str, str | None]]:
        """Only whether they are there: ``prepare`` reads them."""
        faults = ((path, missing_file(path, root)) for path in paths)
        return list(track(faults, len(paths), "cohort: look for X-ray files", self.options))

    def _look_at_ecgs(self, paths: list[str], root: Path, examine: EcgCheck) -> list[tuple[str, str | None]]:
        """Also remembers the records with a flat lead, so that none is opened twice."""
        found = check_ecgs(paths, root, examine, self.ecg_log, self.options)
        flat = [path for path in paths if found[path].flat_leads]
        if flat:
            self.connection.execute("INSERT INTO flat_ecgs SELECT unnest($paths)", {"paths": flat})
        return [(path, found[path].fault) for path in paths]

    def _apply(self, switch: str, candidates: _Candidates, step: str, reason: str) -> None:
        """Applies a strict rule, if it is switched on: a step of its own."""
        if getattr(self.rules.switches, switch):
            left_out = self._delete(switch, candidates)
            self._keep(step, candidates, reason, {_THINGS[candidates]: left_out})

    def _delete(self, switch: str, candidates: _Candidates) -> int:
        """Deletes what a strict rule does not let in; counts what was a candidate of the admissions that are left."""
        what = "coalesce(sum(results), 0)" if candidates == "lab_candidates" else "count(*)"
        counting = f"SELECT {what} FROM {candidates} WHERE hadm_id IN (SELECT hadm_id FROM admissions)"  # noqa: S608 - constants
        before = self.connection.execute(counting).fetchall()[0][0]
        self.connection.execute(sql(f"strict/{switch}").replace("{candidates}", candidates))
        return int(before - self.connection.execute(counting).fetchall()[0][0])

    def _keep(self, step: str, table: str, reason: str, left_out: dict[str, int] | None = None) -> None:
        """Lets the admissions go that are not in a table."""
        self.connection.execute(f"DELETE FROM admissions WHERE hadm_id NOT IN (SELECT hadm_id FROM {table})")  # noqa: S608
        included, patients = self._count()
        self.attrition.keep(step, included, reason, patients=patients, left_out=left_out)

    def _count(self) -> tuple[int, int]:
        """Admissions that are left, and patients."""
        counted = self.connection.execute("SELECT count(*), count(DISTINCT subject_id) FROM admissions").fetchall()[0]
        return int(counted[0]), int(counted[1])

    def _run(self, name: str, parameters: dict[str, int] | None = None) -> None:
        self.connection.execute(sql(name), parameters or {})


def missing_file(path: str, root: Path) -> str | None:
    """Why a path that a table gives names no file under ``root``, or None when it does."""
    relative = Path(path)
    if relative.is_absolute() or ".." in relative.parts:
        return "the path must be relative to its source folder, without '..'"
    try:
        return None if (root / relative).is_file() else "the file is missing"
    except (OSError, ValueError) as error:
        return f"cannot be looked at ({getattr(error, 'strerror', None) or 'the path is not valid'})"


def _microseconds(hours: float) -> int:
    return round(hours * _MICROSECONDS_PER_HOUR)

"""Where the admissions went: at every step, how many stayed and how many left, and why (a CONSORT flow).

``attrition.json`` holds ``steps`` (see ``Step``), ``splits`` (admissions and patients of each) and ``notes``: what the rules let
in that a stricter rule would have left out. ``attrition.svg`` shows the first two as a flow chart.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypedDict

from clinical_symile.cohort.flow_chart import draw_flow_chart
from clinical_symile.errors import InputError
from clinical_symile.stage import write_json, write_text
from clinical_symile.types import SPLITS

FILE: Final = "attrition.json"
PICTURE: Final = "attrition.svg"


class Step(TypedDict):
    """One step of the flow; ``included`` of a step plus ``excluded`` is ``included`` of the step before.

    ``patients`` have at least one of the included admissions (null: not counted). ``left_out`` says what else the step took
    away: files or results that were candidates of admissions, many of which stayed.
    """

    step: str
    included: int
    excluded: int
    reason: str
    patients: int | None
    left_out: dict[str, int]


class SplitCount(TypedDict):
    """The size of a split."""

    split: str
    admissions: int
    patients: int


class Note(TypedDict):
    """What the cohort holds that a rule which is switched off would have left out."""

    rule: str
    count: int
    what: str


class Attrition:
    """Collects the steps and keeps the sum right.

    Args:
        included: how many admissions there are at first.
        patients: how many patients they are of.

    Raises:
        InputError: there is none.
    """

    def __init__(self, included: int, patients: int | None = None) -> None:
        self.steps: list[Step] = []
        self.notes: list[Note] = []
        first = Step(step="admissions", included=included, excluded=0, reason="", patients=patients, left_out={})
        self._add(first, "the tables hold no admission")

    def keep(
        self, step: str, included: int, reason: str, *, patients: int | None = None, left_out: Mapping[str, int] | None = None
    ) -> None:
        """Notes how many are left after a step, and why the others left.

        Args:
            step: what those that are left have.
            included: how many admissions are left.
            reason: why the others left.
            patients: how many patients those left are of.
            left_out: what -> how many files or results the step left out.

        Raises:
            InputError: none are left; the message shows the way there.
            ValueError: more would be left than there were.
        """
        before = self.steps[-1]
        if included > before["included"] or (before["patients"] or included) < (patients or 0):
            raise ValueError(f"after the step '{step}' there are more ({included}) than before it ({before['included']})")
        excluded = before["included"] - included
        row = Step(
            step=step, included=included, excluded=excluded, reason=reason, patients=patients, left_out=dict(left_out or {})
        )
        self._add(row, reason)

    def _add(self, step: Step, complaint: str) -> None:
        self.steps.append(step)
        if step["included"] == 0:
            raise InputError(
                f"the cohort is empty: no admission is left after the step '{step['step']}' ({complaint}).\n"
                f"{format_steps(self.steps)}"
            )


def write_attrition(folder: Path, attrition: Attrition, members: Iterable[tuple[Any, str]]) -> None:
    """Writes ``attrition.json`` and ``attrition.svg``.

    Args:
        folder: of the cohort.
        attrition: all steps.
        members: patient and split of each admission of the cohort.

    Raises:
        ValueError: they are not as many as the last step left.
    """
    rows = list(members)
    last = attrition.steps[-1]
    if len(rows) != last["included"]:
        raise ValueError(f"the cohort has {len(rows)} admissions, but the last step '{last['step']}' left {last['included']}")
    last["patients"] = len({subject for subject, _ in rows})
    splits = [_count(rows, split) for split in SPLITS]
    write_json(folder / FILE, {"steps": attrition.steps, "splits": splits, "notes": attrition.notes})
    write_text(folder / PICTURE, draw_flow_chart(attrition.steps, splits))


def read_attrition(cohort: Path) -> dict[str, list[dict[str, Any]]]:
    """``steps``, ``splits`` and ``notes`` of a finished cohort."""
    found = json.loads((cohort / FILE).read_text(encoding="utf-8"))
    # Before there were notes, the file was the list of steps.
    return {"steps": found, "splits": [], "notes": []} if isinstance(found, list) else found


def format_steps(steps: Sequence[Mapping[str, Any]]) -> str:
    """A table for the terminal."""
    width = max(len(step["step"]) for step in steps)
    lines = [f"{'step':<{width}}  {'included':>9}  {'excluded':>9}  {'patients':>9}  reason"]
    for step in steps:
        patients = f"{step['patients']:,}" if step.get("patients") is not None else ""
        reason = "; ".join([step["reason"], *(f"{what} left out: {count:,}" for what, count in step.get("left_out", {}).items())])
        lines.append(f"{step['step']:<{width}}  {step['included']:>9,}  {step['excluded']:>9,}  {patients:>9}  {reason}")
    return "\n".join(line.rstrip() for line in lines)


def format_attrition(cohort: Path) -> str:
    """The table of a finished cohort, with its notes."""
    found = read_attrition(cohort)
    notes = [
        f"note: {note['what']}: {note['count']:,} (cohort.strict.{note['rule']})" for note in found["notes"] if note["count"]
    ]
    return "\n".join([format_steps(found["steps"]), *notes])


def _count(rows: list[tuple[Any, str]], split: str) -> SplitCount:
    subjects = [subject for subject, own in rows if own == split]
    return SplitCount(split=split, admissions=len(subjects), patients=len(set(subjects)))

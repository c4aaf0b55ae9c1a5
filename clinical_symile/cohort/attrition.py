"""Where the admissions went: at every step, how many stayed and how many left, and why."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from clinical_symile.errors import InputError


class Step(TypedDict):
    """One step of the flow; ``included`` of a step plus ``excluded`` is ``included`` of the step before."""

    step: str
    included: int
    excluded: int
    reason: str


class Attrition:
    """Collects the steps and keeps the sum right.

    Args:
        included: how many admissions there are at first.

    Raises:
        InputError: there is none.
    """

    def __init__(self, included: int) -> None:
        self.steps: list[Step] = []
        self._add(Step(step="admissions", included=included, excluded=0, reason=""), "the tables hold no admission")

    def keep(self, step: str, included: int, reason: str) -> None:
        """Notes how many are left after a step, and why the others left.

        Raises:
            InputError: none are left; the message shows the way there.
        """
        excluded = self.steps[-1]["included"] - included
        self._add(Step(step=step, included=included, excluded=excluded, reason=reason), reason)

    def _add(self, step: Step, complaint: str) -> None:
        self.steps.append(step)
        if step["included"] == 0:
            raise InputError(
                f"the cohort is empty: no admission is left after the step '{step['step']}' ({complaint}).\n"
                f"{format_steps(self.steps)}"
            )


def format_steps(steps: Sequence[Step]) -> str:
    """A table for the terminal."""
    width = max(len(step["step"]) for step in steps)
    lines = [f"{'step':<{width}}  {'included':>9}  {'excluded':>9}  reason"]
    lines += [f"{step['step']:<{width}}  {step['included']:>9,}  {step['excluded']:>9,}  {step['reason']}" for step in steps]
    return "\n".join(line.rstrip() for line in lines)


def format_attrition(cohort: Path) -> str:
    """The table of a finished cohort."""
    return format_steps(json.loads((cohort / "attrition.json").read_text(encoding="utf-8")))

"""Where the admissions went: at every step, how many stayed and how many left, and why."""

from __future__ import annotations

import json
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
        step: what is counted first.
        included: how many there are.
    """

    def __init__(self, step: str, included: int) -> None:
        self.steps: list[Step] = [Step(step=step, included=included, excluded=0, reason="")]

    def keep(self, step: str, included: int, reason: str) -> None:
        """Notes how many are left after a step.

        Raises:
            InputError: none are left; the message shows the way there.
        """
        before = self.steps[-1]["included"]
        self.steps.append(Step(step=step, included=included, excluded=before - included, reason=reason))
        if included == 0:
            raise InputError(
                f"the cohort is empty: no admission is left after the step '{step}' ({reason}).\n{format_steps(self.steps)}"
            )


def format_steps(steps: list[Step]) -> str:
    """A table for the terminal."""
    width = max(len(step["step"]) for step in steps)
    lines = [f"{'step':<{width}}  {'included':>9}  {'excluded':>9}  reason"]
    lines += [f"{step['step']:<{width}}  {step['included']:>9,}  {step['excluded']:>9,}  {step['reason']}" for step in steps]
    return "\n".join(line.rstrip() for line in lines)


def format_attrition(cohort: Path) -> str:
    """The table of a finished cohort."""
    return format_steps(json.loads((cohort / "attrition.json").read_text(encoding="utf-8")))

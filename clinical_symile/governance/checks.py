"""The result of one check and the verdict over many: what a gate decides with, and what it leaves behind as evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from clinical_symile.errors import GateRefused

Severity = Literal["block", "warn"]


@dataclass(frozen=True)
class CheckResult:
    """What one check found.

    Attributes:
        id: the check's name, such as ``E02``; ``governance/README.md`` lists them.
        passed: whether what was checked is as it should be.
        severity: a failed ``block`` refuses the action, a failed ``warn`` is only recorded.
        message: what was found, with the numbers.
        evidence: the files the check looked at.
        remedy: what to do about a failure; empty when it passed.
    """

    id: str
    passed: bool
    severity: Severity
    message: str
    evidence: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Verdict:
    """All results for one action on one subject.

    Attributes:
        action: ``register`` or ``serve``.
        subject: the digests of what was judged; whoever acts on the verdict compares them with what is at hand.
        results: one per check.
    """

    action: Literal["register", "serve"]
    subject: Mapping[str, str]
    results: tuple[CheckResult, ...]

    @property
    def refusals(self) -> tuple[CheckResult, ...]:
        """The failed checks that forbid the action."""
        return tuple(result for result in self.results if not result.passed and result.severity == "block")

    @property
    def warnings(self) -> tuple[CheckResult, ...]:
        """The failed checks that do not forbid the action."""
        return tuple(result for result in self.results if not result.passed and result.severity == "warn")

    @property
    def passed(self) -> bool:
        """Whether the action is allowed."""
        return not self.refusals

    def require(self) -> Verdict:
        """Returns the verdict if it allows the action.

        Raises:
            GateRefused: lists every check that failed, with its remedy.
        """
        if self.refusals:
            lines = [f"  {result.id}: {result.message}\n       -> {result.remedy}" for result in self.refusals]
            raise GateRefused(f"governance refuses to {self.action} this model:\n" + "\n".join(lines))
        return self

    def as_dict(self) -> dict[str, Any]:
        """The verdict as JSON-able data."""
        return {
            "action": self.action,
            "passed": self.passed,
            "subject": dict(self.subject),
            "results": [asdict(result) for result in self.results],
        }

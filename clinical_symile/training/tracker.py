"""What training tells the outside about a run. The room ``tracking`` implements it with MLflow; training knows no MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Protocol

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]


class RunTracker(Protocol):
    """Follows one training run, also across interruptions."""

    def start(
        self,
        run_name: str,
        params: Mapping[str, str | int | float | bool | None],
        tags: Mapping[str, str],
        resume_id: str | None,
    ) -> str:
        """Begins a run, or continues the one that was interrupted.

        Args:
            run_name: name for people.
            params: flat parameters, such as ``{"train.lr": 0.001}``.
            tags: digests and versions.
            resume_id: id of the interrupted run; ``None`` for a new one.

        Returns:
            The run's id, which a later call passes as ``resume_id``.
        """

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Records the metrics of one epoch; ``step`` is the epoch, counted from 1.

        After an interruption every finished epoch is told again, because the tracker may have missed the last one; an
        implementation records each epoch once.
        """

    def log_artifact(self, path: Path) -> None:
        """Attaches a file to the run."""

    def finish(self, status: RunStatus) -> None:
        """Ends the run."""


class NullTracker:
    """Follows nothing: for tests, and for whoever wants no tracking."""

    def start(
        self,
        run_name: str,
        params: Mapping[str, str | int | float | bool | None],
        tags: Mapping[str, str],
        resume_id: str | None,
    ) -> str:
        """Begins nothing."""
        return resume_id or "untracked"

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Records nothing."""

    def log_artifact(self, path: Path) -> None:
        """Attaches nothing."""

    def finish(self, status: RunStatus) -> None:
        """Ends nothing."""

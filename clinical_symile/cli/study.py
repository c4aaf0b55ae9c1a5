"""Commands that make and judge models: ``train``, ``evaluate``."""

from typing import Annotated

import typer

from clinical_symile.cli import stages
from clinical_symile.cli.common import Invocation, Overrides, stage_command


@stage_command
def train(
    invocation: Invocation,
    loss: Annotated[str | None, typer.Option(help="symile, or clip (the pairwise baseline)."), Overrides("train.loss")] = None,
    run: Annotated[str | None, typer.Option(help="Name of the run; default: the loss."), Overrides("train.run")] = None,
) -> None:
    """Learn the representations."""
    stages.train(invocation)


@stage_command
def evaluate(
    invocation: Invocation,
    run: Annotated[
        str | None, typer.Option(help="Run to evaluate; default: the configured loss's."), Overrides("train.run")
    ] = None,
    baseline: Annotated[list[str] | None, typer.Option(help="Run to compare with. May be repeated.")] = None,
) -> None:
    """Measure retrieval, with intervals, beside baselines, chance and (for simulated hospitals) the oracle."""
    stages.evaluate(invocation, tuple(baseline or ()))


def add_to(app: typer.Typer) -> None:
    """Registers the commands of this file."""
    for command in (train, evaluate):
        app.command(command.__name__)(command)

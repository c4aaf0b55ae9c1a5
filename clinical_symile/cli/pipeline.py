"""``run`` and ``demo``: every stage in order, in one process; what is finished is not done again."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Any

import typer

from clinical_symile.cli import stages
from clinical_symile.cli.common import Invocation, stage_command
from clinical_symile.cli.serve import serve
from clinical_symile.errors import IncompleteStage

Step = tuple[str, Callable[[], Any]]
"""A name to show, and what to do."""


@stage_command
def run(invocation: Invocation) -> None:
    """Run every stage in order: data, models, evaluation, registry, gallery. `review` then serves the result."""
    run_all(invocation)


@partial(stage_command, default_config="demo")
def demo(
    invocation: Invocation,
    no_serve: Annotated[bool, typer.Option("--no-serve", help="Stop before the dashboard.")] = False,
) -> None:
    """Run the whole path on a simulated hospital with the preset `demo`, then serve the dashboard on 127.0.0.1."""
    run_all(invocation)
    if not no_serve:
        serve(invocation)


def run_all(call: Invocation) -> None:
    """The stages in order. Trains one model per ``pipeline.losses`` and registers the one that validation prefers."""
    steps = list(_steps(call))
    for number, (name, step) in enumerate(steps, 1):
        _say(call, f"[{number}/{len(steps)}] {name}")
        started = time.monotonic()
        try:
            step()
        except IncompleteStage as missing:
            # A plan cannot look into outputs that do not exist yet.
            if not call.options.dry_run:
                raise
            print(f"{name}: would run next ({missing})")
        _say(call, f"      {time.monotonic() - started:.1f} s")


def _steps(call: Invocation) -> Iterator[Step]:
    losses = call.config.pipeline.losses
    if call.config.hospital.kind == "mimic" and call.config.hospital.mimic_iv is None and not _has_imported(call):
        yield "simulate", partial(stages.simulate, call)
    yield "cohort", partial(stages.cohort, call)
    yield "prepare", partial(stages.prepare, call)
    for loss in losses:
        yield f"train {loss}", partial(stages.train, _with_loss(call, loss))
    for loss in losses:
        others = tuple(other for other in losses if other != loss)
        yield f"evaluate {loss}", partial(stages.evaluate, _with_loss(call, loss), others)
    # Which run is the better one is known only when these two are reached.
    if call.config.pipeline.register_better:
        yield "register", lambda: stages.register(_with_loss(call, stages.better_run(call, losses)), "champion")
    yield "index", lambda: stages.index(_with_loss(call, stages.better_run(call, losses)))


def _has_imported(call: Invocation) -> bool:
    """Whether the workspace holds the released Symile-MIMIC, which needs no hospital."""
    from clinical_symile.cohort import is_imported

    return is_imported(call.workspace)


def _with_loss(call: Invocation, loss: str) -> Invocation:
    train = call.config.train.model_copy(update={"loss": loss, "run": None})
    return Invocation(call.config.model_copy(update={"train": train}), call.workspace, call.options)


def _say(call: Invocation, text: str) -> None:
    if not call.options.quiet:
        print(text, flush=True)


def add_to(app: typer.Typer) -> None:
    """Registers the commands of this file."""
    app.command("demo")(demo)
    app.command("run")(run)

"""``clinical-symile experiment …``: small experiments whose right answer is known."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clinical_symile.cli.common import Overrides, find_config, find_workspace, run_options, with_shared_options
from clinical_symile.config import load_section
from clinical_symile.stage import RunOptions, Workspace

if TYPE_CHECKING:
    from clinical_symile.experiments.running import ExperimentConfig

app = typer.Typer(
    help="Small experiments whose right answer is known: does the loss find what it should, and no more?", no_args_is_help=True
)


@dataclass(frozen=True)
class StudyCall:
    """The options of one call, resolved."""

    name: str
    config: "ExperimentConfig"
    workspace: Workspace
    options: RunOptions

    def run(self) -> None:
        """Runs the experiment and prints its table."""
        from clinical_symile.experiments.running import run_experiment

        outcome = run_experiment(self.name, self.config, self.workspace, self.options)
        if outcome is not None and not self.options.quiet:
            print(outcome.describe())


def _resolve(name: str) -> Callable[[Mapping[str, Any], Sequence[str]], StudyCall]:
    def resolve(shared: Mapping[str, Any], overrides: Sequence[str]) -> StudyCall:
        from clinical_symile.experiments.running import find_experiment

        file = find_config(shared["config"], presets="experiments")
        config = load_section(find_experiment(name)[1], file, overrides, example="epochs=5")
        return StudyCall(name, config, find_workspace(shared["workspace"]), run_options(shared))

    return resolve


def xor(
    invocation: StudyCall,
    modalities: Annotated[
        int | None,
        typer.Option(help="3, or more for parity: the last is the exclusive or of the others."),
        Overrides("modalities"),
    ] = None,
    missing: Annotated[
        list[float] | None,
        typer.Option(help="Share of rows that lack each modality in training. May be repeated."),
        Overrides("missing"),
    ] = None,
) -> None:
    """Figure 3 of the paper: b from a and c, where c is a or the exclusive or of both; Symile, CLIP and the Bayes rule."""
    invocation.run()


def xnor(invocation: StudyCall) -> None:
    """What one wrong modality costs: Symile, Gated Symile and CLIP on Synthetic-XNOR."""
    invocation.run()


def digits(invocation: StudyCall) -> None:
    """Two real handwritten digits and their sum modulo 10: no pair tells anything."""
    invocation.run()


for _command in (xor, xnor, digits):
    app.command(_command.__name__)(with_shared_options(_command, _resolve(_command.__name__)))

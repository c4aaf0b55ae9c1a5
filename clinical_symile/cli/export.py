"""Commands that write the cohort in other projects' formats: ``export meds-labels``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from clinical_symile.cli.common import OverwriteOption, QuietOption, WorkspaceOption, find_workspace, start_log
from clinical_symile.errors import ConfigError

if TYPE_CHECKING:
    from clinical_symile.cohort.meds_labels import PredictionTime

app = typer.Typer(help="Write the cohort in other projects' formats.", no_args_is_help=True)
_TIMES = ("window-end", "admission")


@app.callback()
def _group() -> None:
    """Write the cohort in other projects' formats."""


@app.command("meds-labels")
def meds_labels(
    output: Annotated[Path, typer.Argument(metavar="OUT", help="New folder: train, tuning and held_out.parquet.")],
    workspace: WorkspaceOption = Path("workspace"),
    at: Annotated[
        str, typer.Option(help="Prediction time: window-end (the ECG's and labs' window is over) or admission.")
    ] = "window-end",
    label: Annotated[str | None, typer.Option(help="CheXpert label as boolean_value, such as Edema; default: none.")] = None,
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write each admission's prediction time as a label set of the Medical Event Data Standard (MEDS 0.4)."""
    from clinical_symile.cohort.meds_labels import export_meds_labels

    start_log(quiet=quiet)
    if at not in _TIMES:
        raise ConfigError(f"--at {at}: must be one of {', '.join(_TIMES)}")
    folder = output.expanduser().resolve()
    manifest = export_meds_labels(
        find_workspace(workspace), folder, at=cast("PredictionTime", at), label=label, overwrite=overwrite
    )
    if not quiet:
        left_out = sum(manifest["left_out"].values())
        counts = ", ".join(f"{name} {rows}" for name, rows in manifest["rows"].items())
        print(f"wrote {output}: {counts} rows" + (f"; {left_out} admissions without a certain label left out" if label else ""))
        print(f"access: {manifest['access']}; what it says of patients may be shared only with those who may see the cohort")

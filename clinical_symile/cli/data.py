"""Commands that make data: ``simulate``, ``cohort``, ``prepare``, ``import``."""

from pathlib import Path
from typing import Annotated

import typer

from clinical_symile.cli import stages
from clinical_symile.cli.common import Invocation, Overrides, stage_command, start_log

imports = typer.Typer(help="Take over what the authors of Symile released.", no_args_is_help=True)


@stage_command
def simulate(
    invocation: Invocation,
    admissions: Annotated[
        int | None, typer.Option(help="Admissions with all three modalities."), Overrides("simulation.admissions")
    ] = None,
    synergy: Annotated[
        float | None, typer.Option(help="0: all ties pairwise, 1: all triple-wise."), Overrides("simulation.synergy")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same bytes."), Overrides("simulation.seed")] = None,
    dicom: Annotated[bool | None, typer.Option("--dicom", help="Also write DICOM files."), Overrides("simulation.dicom")] = None,
    quirks: Annotated[
        bool | None, typer.Option("--quirks", help="Add the traps of real data."), Overrides("simulation.quirks")
    ] = None,
) -> None:
    """Write a simulated hospital in MIMIC's own file layout."""
    stages.simulate(invocation)


@stage_command
def cohort(
    invocation: Invocation,
    mimic_iv: Annotated[Path | None, typer.Option(help="MIMIC-IV, or its hosp folder."), Overrides("hospital.mimic_iv")] = None,
    mimic_cxr: Annotated[Path | None, typer.Option(help="MIMIC-CXR-JPG."), Overrides("hospital.mimic_cxr")] = None,
    mimic_ecg: Annotated[Path | None, typer.Option(help="MIMIC-IV-ECG."), Overrides("hospital.mimic_ecg")] = None,
    manifest: Annotated[Path | None, typer.Option(help="Another hospital: CSV with a row per admission.")] = None,
    labs: Annotated[
        Path | None, typer.Option(help="Another hospital: long CSV of laboratory results."), Overrides("hospital.labs")
    ] = None,
    labs_omop: Annotated[
        Path | None,
        typer.Option(help="Instead of --labs: OMOP's measurement table, concept beside it."),
        Overrides("hospital.labs_omop"),
    ] = None,
    labs_meds: Annotated[
        Path | None, typer.Option(help="Instead of --labs: folder of a MEDS data set."), Overrides("hospital.labs_meds")
    ] = None,
    rules: Annotated[
        str | None, typer.Option(help="Selection rules: symile-mimic (the paper's) or strict."), Overrides("cohort.rules")
    ] = None,
    splits_from: Annotated[
        Path | None,
        typer.Option(help="Folder with train, val and test files to take splits from, such as the release's."),
        Overrides("cohort.splits_from"),
    ] = None,
) -> None:
    """Select the admissions that have an ECG, labs and a chest X-ray, split them, and draw candidate sets."""
    if manifest is not None:
        hospital = invocation.config.hospital.model_copy(update={"kind": "manifest", "manifest": manifest})
        invocation = Invocation(
            invocation.config.model_copy(update={"hospital": hospital}), invocation.workspace, invocation.options
        )
    stages.cohort(invocation)


@stage_command
def prepare(invocation: Invocation) -> None:
    """Turn the cohort's raw files into arrays, and fit the laboratory statistics on the training split."""
    stages.prepare(invocation)


@imports.command("dataset")
@stage_command
def import_dataset(
    invocation: Invocation,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Symile-MIMIC 1.0.0 as PhysioNet ships it (33 GB).")],
) -> None:
    """Take over the authors' own tensors, splits and candidate sets, checked against SHA256SUMS.txt; no raw files are needed."""
    stages.import_dataset(invocation, folder)


@imports.command("checkpoint")
def import_checkpoint(
    file: Annotated[Path, typer.Argument(help="symile_mimic_model.ckpt of the PhysioNet release.")],
    output: Annotated[Path, typer.Argument(help="New folder for the model.")],
) -> None:
    """Convert the released checkpoint to safetensors without running any code that it may hold."""
    from clinical_symile.models import import_released_checkpoint, save_model

    start_log(quiet=False)
    model = import_released_checkpoint(file)
    save_model(model, output, extra={"loss": "symile", "source": file.name})
    print(f"wrote {output}")


def add_to(app: typer.Typer) -> None:
    """Registers the commands of this file."""
    for command in (simulate, cohort, prepare):
        app.command(command.__name__)(command)

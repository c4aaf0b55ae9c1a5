"""``clinical-symile``: the entry point. Turns every expected error into one message and an exit code."""

import os
import sys
from typing import Annotated

import typer

from clinical_symile import __version__
from clinical_symile.cli import data, doctor, experiment, export, govern, pipeline, registry, serve, study
from clinical_symile.errors import ClinicalSymileError

app = typer.Typer(
    name="clinical-symile",
    help="Retrieve the chest X-ray that fits a patient's ECG and laboratory panel. Research use only.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (pipeline, data, study, serve, doctor):
    group.add_to(app)
app.add_typer(registry.app, name="registry")
app.add_typer(govern.app, name="governance")
app.add_typer(govern.audit, name="audit")
app.add_typer(data.imports, name="import")
app.add_typer(export.app, name="export")
app.add_typer(experiment.app, name="experiment")


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"clinical-symile {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Retrieve the chest X-ray that fits a patient's ECG and laboratory panel. Research use only."""


def main() -> None:
    """Runs the command line. Exit codes: 0 done, 1-6 see ``clinical_symile.errors``, 70 a defect of ours, 130 interrupted."""
    try:
        app()
    except ClinicalSymileError as error:
        _complain(str(error))
        sys.exit(error.exit_code)
    except PermissionError as error:
        _complain(f"{error.filename}: no permission; check who owns it, or choose another --workspace")
        sys.exit(1)
    except OSError as error:
        _complain(f"{error.filename or 'the system'}: {error.strerror or error}; nothing finished was lost")
        sys.exit(1)
    except Exception as error:  # the last line of defence: a defect is reported without a traceback
        if os.environ.get("CLINICAL_SYMILE_DEBUG"):
            raise
        print(
            f"error: this is a defect in Clinical Symile ({type(error).__name__}). Set CLINICAL_SYMILE_DEBUG=1 and run the "
            "command again to see where; do not send patient data with a report.",
            file=sys.stderr,
        )
        sys.exit(70)


def _complain(message: str) -> None:
    """Shows an error without identifiers: the path of a file of MIMIC names its patient."""
    from clinical_symile.governance.privacy import redact

    print(f"error: {redact(message)}", file=sys.stderr)

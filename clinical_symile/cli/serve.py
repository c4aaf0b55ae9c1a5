"""Commands that put a model to work: ``index``, ``review``."""

import subprocess
import sys
from typing import Annotated

import typer

from clinical_symile.cli import stages
from clinical_symile.cli.common import Invocation, Overrides, stage_command
from clinical_symile.resources import resource_root


@stage_command
def index(
    invocation: Invocation,
    run: Annotated[str | None, typer.Option(help="Run whose model embeds the X-rays."), Overrides("train.run")] = None,
) -> None:
    """Embed the gallery's X-rays once."""
    stages.index(invocation)


@stage_command
def review(
    invocation: Invocation,
    port: Annotated[int | None, typer.Option(help="Port on 127.0.0.1."), Overrides("review.port")] = None,
) -> None:
    """Serve the dashboard on this machine only, and print its link."""
    serve(invocation)


def serve(invocation: Invocation) -> None:
    """Runs the dashboard until it is interrupted; governance must allow it."""
    root = str(resource_root())
    if root not in sys.path:  # an installed wheel carries app/ inside the package
        sys.path.append(root)
    from app.server import streamlit_command

    port = invocation.config.review.port
    command, environment = streamlit_command(invocation.workspace, invocation.config, port)
    if invocation.options.dry_run:
        print(f"review: would serve on http://127.0.0.1:{port}")
        return
    print(f"Dashboard: http://127.0.0.1:{port}  (research use only; Ctrl-C stops it)", flush=True)
    sys.exit(subprocess.run(command, env=environment, check=False).returncode)


def add_to(app: typer.Typer) -> None:
    """Registers the commands of this file."""
    for command in (index, review):
        app.command(command.__name__)(command)

"""Commands that put a model to work: ``index``, ``review``."""

import os
import socket
import sys
from typing import Annotated

import typer

from clinical_symile.cli import stages
from clinical_symile.cli.common import Invocation, Overrides, stage_command
from clinical_symile.errors import ConfigError
from clinical_symile.resources import resource_root
from clinical_symile.stage import require_complete


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
    from clinical_symile.tracking import find_champion

    port = invocation.config.review.port
    command, environment = streamlit_command(invocation.workspace, invocation.config, port)
    if invocation.options.dry_run:
        print(f"review: would serve on http://127.0.0.1:{port}")
        return
    # A dashboard that could only show this error is not worth a link. The other gates are asked when it opens.
    require_complete(invocation.workspace.dataset, "prepare")
    find_champion(invocation.workspace, invocation.config)
    _require_free(port)
    print(f"Dashboard: http://127.0.0.1:{port}  (research use only; Ctrl-C stops it)", flush=True)
    # In this process's place, so that whoever ends it ends the dashboard; a child would live on.
    os.execve(command[0], command, environment)  # noqa: S606  # our own interpreter, no shell


def _require_free(port: int) -> None:
    """Refuses a port that is taken before a link is printed, which would lead to somebody else's page."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise ConfigError(
                f"port {port} of 127.0.0.1 is taken, perhaps by another dashboard; stop that one, "
                "or choose a port: --set review.port=8502"
            ) from None


def add_to(app: typer.Typer) -> None:
    """Registers the commands of this file."""
    for command in (index, review):
        app.command(command.__name__)(command)

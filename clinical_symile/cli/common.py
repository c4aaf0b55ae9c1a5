"""What every stage command shares: its options, its configuration, its log."""

import functools
import inspect
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from clinical_symile.config import ExperimentConfig, load_config
from clinical_symile.errors import ConfigError
from clinical_symile.resources import preset, resource_root
from clinical_symile.stage import RunOptions, Workspace

CORES = os.cpu_count() or 1

WorkspaceOption = Annotated[
    Path, typer.Option("--workspace", "-w", help="Folder for everything that is written.", envvar="CLINICAL_SYMILE_WORKSPACE")
]
ConfigOption = Annotated[
    str | None, typer.Option("--config", "-c", help="YAML file, or the name of a preset in pipelines/configs (such as demo).")
]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="Override one value: section.key=value. May be repeated.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and write nothing.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Do it again even if the output is finished.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings and errors; no progress.")]
JobsOption = Annotated[int, typer.Option("--jobs", "-j", min=1, help="Processes to use. Does not change any result.")]


@dataclass(frozen=True)
class Invocation:
    """The options of one call, resolved."""

    config: ExperimentConfig
    workspace: Workspace
    options: RunOptions


def _shared_options(
    workspace: WorkspaceOption = Path("workspace"),
    config: ConfigOption = None,
    set_: SetOption = None,
    dry_run: DryRunOption = False,
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
    jobs: JobsOption = CORES,
) -> None:
    """The signature that ``stage_command`` adds to a command."""


_SHARED = tuple(inspect.signature(_shared_options).parameters.values())


def stage_command(function: Callable[..., None], default_config: str | None = None) -> Callable[..., None]:
    """Gives a command the options that all stages have.

    The command takes an ``Invocation`` first. Its own options that are not ``None`` are applied on top of ``--config`` and
    ``--set`` when their parameter names a configuration key in ``Annotated[..., Overrides("section.key")]``.
    """

    def invocation(shared: Mapping[str, Any], overrides: Sequence[str]) -> Invocation:
        return Invocation(
            config=load_config(find_config(shared["config"] or default_config), overrides),
            workspace=find_workspace(shared["workspace"]),
            options=run_options(shared),
        )

    return with_shared_options(function, invocation)


def with_shared_options(
    function: Callable[..., None], resolve: Callable[[Mapping[str, Any], Sequence[str]], Any]
) -> Callable[..., None]:
    """Gives a command the shared options; ``resolve`` makes its first argument of their values and of all overrides."""
    own = [parameter for parameter in inspect.signature(function).parameters.values() if parameter.name != "invocation"]
    targets = {parameter.name: _override_target(parameter.annotation) for parameter in own}

    @functools.wraps(function)
    def command(**values: Any) -> None:
        shared = {parameter.name: values.pop(parameter.name) for parameter in _SHARED}
        start_log(quiet=shared["quiet"])
        overrides = list(shared["set_"] or [])
        for name, target in targets.items():
            if target is not None:
                value = values.pop(name)
                if value is not None:
                    overrides.append(f"{target}={_as_yaml(value)}")
        try:
            function(resolve(shared, overrides), **values)
        except KeyboardInterrupt:  # Typer would end without a word
            print("interrupted; the same command continues where it stopped", file=sys.stderr)
            raise typer.Exit(130) from None

    del command.__wrapped__
    command.__signature__ = inspect.Signature([*own, *_SHARED])  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *_SHARED)}
    return command


@dataclass(frozen=True)
class Overrides:
    """Marks a command's option as another spelling of a configuration key."""

    key: str


def find_workspace(folder: Path) -> Workspace:
    """A workspace in a folder that is there or may be made.

    Raises:
        ConfigError: something else has that name.
    """
    root = folder.expanduser().resolve()
    if root.exists() and not root.is_dir():
        raise ConfigError(f"--workspace {folder}: is a file; name a folder, which is made if need be")
    return Workspace(root)


def run_options(shared: Mapping[str, Any]) -> RunOptions:
    """How to run, from the values of the shared options."""
    return RunOptions(shared["dry_run"], shared["overwrite"], shared["quiet"], shared["jobs"])


def find_config(name: str | None, presets: str = "configs") -> Path | None:
    """A file's path as given, or the preset of that name.

    Args:
        name: what ``--config`` was given.
        presets: folder of ``pipelines`` that holds the presets.

    Raises:
        ConfigError: neither exists; the message lists the presets.
    """
    if name is None:
        return None
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if path.suffix == "" and preset(name, presets).is_file():
        return preset(name, presets)
    known = sorted(file.stem for file in (resource_root() / "pipelines" / presets).glob("*.yaml"))
    raise ConfigError(f"--config {name}: no such file, and no such preset (presets: {', '.join(known)})")


def start_log(*, quiet: bool) -> None:
    """Sends our log to standard error, without identifiers; other packages only when they warn."""
    from clinical_symile.governance.privacy import RedactingFilter

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    handler.addFilter(RedactingFilter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("clinical_symile").setLevel(logging.WARNING if quiet else logging.INFO)


def _override_target(annotation: Any) -> str | None:
    for extra in getattr(annotation, "__metadata__", ()):
        if isinstance(extra, Overrides):
            return extra.key
    return None


def _as_yaml(value: Any) -> str:
    import json

    return json.dumps(value if isinstance(value, bool | int | float | list) else str(value))

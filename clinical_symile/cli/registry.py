"""``registry``: register a run that passes the gate, list, promote and compare versions."""

from typing import Annotated

import typer

from clinical_symile.cli import stages
from clinical_symile.cli.common import Invocation, Overrides, stage_command

app = typer.Typer(help="Versions of the model: register, list, promote, compare.", no_args_is_help=True)

AliasOption = Annotated[str | None, typer.Option(help="champion (the one that is served) or challenger.")]
VersionArgument = Annotated[str, typer.Argument(help="Number of a version, or an alias.")]


@stage_command
def register(
    invocation: Invocation,
    run: Annotated[str | None, typer.Option(help="Trained and evaluated run."), Overrides("train.run")] = None,
    alias: AliasOption = None,
) -> None:
    """Register a run, with its card, if governance lets it pass."""
    stages.register(invocation, alias)


@stage_command
def list_(invocation: Invocation) -> None:
    """List the versions, the newest first."""
    from clinical_symile.tracking import list_versions

    versions = list_versions(invocation.workspace, invocation.config)
    if not versions:
        print(f"{invocation.config.registry.name}: no version is registered")
    for version in versions:
        aliases = f" [{', '.join(version.aliases)}]" if version.aliases else ""
        print(f"{version.label}{aliases}  run {version.run}, {version.tags.get('headline', '')}, {version.created:%Y-%m-%d}")


@stage_command
def promote(invocation: Invocation, version: VersionArgument, alias: AliasOption = "champion") -> None:
    """Give a version an alias. Whoever does so has read its card."""
    from clinical_symile.tracking import find_version
    from clinical_symile.tracking import promote as give

    if invocation.options.dry_run:
        found = find_version(invocation.workspace, invocation.config, version)
        print(f"would give {found.label} the alias {alias}")
        return
    promoted = give(invocation.workspace, invocation.config, version, alias)  # type: ignore[arg-type]  # checked inside
    print(f"{promoted.label} is now {', '.join(promoted.aliases)}")


@stage_command
def compare(invocation: Invocation, first: VersionArgument, second: VersionArgument) -> None:
    """Compare two versions that were evaluated on the same data."""
    from clinical_symile.tracking import compare as side_by_side

    result = side_by_side(invocation.workspace, invocation.config, first, second)
    print(f"{result.first.label} ({result.first.run}) and {result.second.label} ({result.second.run})")
    print(", ".join(f"{key} {value}" for key, value in result.setting.items()))
    print(f"{'metric':<16} {'first':>24} {'second':>24} {'first - second':>26} {'chance':>8}")
    for row in result.metrics:
        cells = [f"{i.value:.3f} [{i.low:.3f}, {i.high:.3f}]" for i in (row.first, row.second)]
        difference = row.difference
        paired = f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]" if difference else "not measured"
        chance = "" if row.chance is None else f"{row.chance:.3f}"
        print(f"{row.metric:<16} {cells[0]:>24} {cells[1]:>24} {paired:>26} {chance:>8}")
    for title, differing in (("settings", result.settings), ("lineage", result.lineage)):
        for key, (one, other) in differing.items():
            print(f"{title}: {key}: {one or '-'} | {other or '-'}")
    if result.remark:
        print("\npaired difference, computed now from both versions' ranks:")
        for metric, found in stages.paired_difference(invocation, result.first, result.second).items():
            print(f"{metric:<16} {found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]")


for name, command in (("register", register), ("list", list_), ("promote", promote), ("compare", compare)):
    app.command(name)(command)

"""``governance`` and ``audit``: ask the gate, attest one's own access, look at what was done."""

import datetime as dt
from typing import Annotated

import typer

from clinical_symile.cli.common import Invocation, Overrides, stage_command
from clinical_symile.errors import GateRefused

app = typer.Typer(help="The rules, and who may see what.", no_args_is_help=True)
audit = typer.Typer(help="What was asked and shown in the dashboard.", no_args_is_help=True)

_NOTHING = "nothing is recorded yet; the dashboard writes here when it is opened"


@stage_command
def check(
    invocation: Invocation,
    run: Annotated[str | None, typer.Option(help="Trained and evaluated run."), Overrides("train.run")] = None,
) -> None:
    """Say whether a run may be registered, check by check; without --run, whether the rules themselves are in order.

    Exits with 5 if not.
    """
    from clinical_symile.governance import Evidence, check_registration, check_upkeep, load_policy

    run = invocation.config.train.run
    if run is None:
        results, subject = check_upkeep(), "the rules are not in order"
    else:
        evidence = Evidence.gather(invocation.workspace, run)
        results, subject = check_registration(evidence, load_policy()).verdict.results, f"run '{run}' may not be registered"
    for result in results:
        state = "ok  " if result.passed else "FAIL" if result.severity == "block" else "warn"
        print(f"{state} {result.id:<15} {result.message}")
        if result.remedy:
            print(f"{'':20} -> {result.remedy}")
    failed = [result.id for result in results if not result.passed and result.severity == "block"]
    if failed:
        raise GateRefused(f"{subject}: {', '.join(failed)}")


@stage_command
def card(
    invocation: Invocation,
    run: Annotated[str | None, typer.Option(help="Trained and evaluated run."), Overrides("train.run")] = None,
) -> None:
    """Print a run's model card, filled from its report."""
    from clinical_symile.governance import Evidence, check_registration, load_policy

    print(
        check_registration(Evidence.gather(invocation.workspace, invocation.config.train.run_name), load_policy()).card.markdown
    )


@app.command()
def attest(
    physionet_username: Annotated[str, typer.Option(prompt=True, help="Your own account on physionet.org.")],
    dua_version: Annotated[str, typer.Option(prompt=True, help="Version of the agreement that you signed, such as 1.5.0.")],
    dua_signed: Annotated[dt.datetime, typer.Option(prompt=True, formats=["%Y-%m-%d"], help="Day on which you signed it.")],
    training_expires: Annotated[
        dt.datetime, typer.Option(prompt=True, formats=["%Y-%m-%d"], help="Last day of your CITI training.")
    ],
) -> None:
    """State your own access to credentialed data; without it a credentialed gallery is not shown."""
    from pydantic import ValidationError

    from clinical_symile.errors import ConfigError
    from clinical_symile.governance import Attestation, load_attestation, load_policy, require_counting, write_attestation

    try:
        attestation = Attestation(
            physionet_username=physionet_username,
            dua_version=dua_version,
            dua_signed=dua_signed.date(),
            training_expires=training_expires.date(),
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{first['loc'][0]}: {first['msg']}") from None
    policy = load_policy()
    require_counting(attestation, policy)  # before it replaces one that counts
    file = write_attestation(attestation)
    load_attestation(policy, file)
    print(f"wrote {file}; it counts until {attestation.training_expires}")


@audit.command()
@stage_command
def verify(
    invocation: Invocation,
    head: Annotated[str | None, typer.Option(help="Head that an earlier check printed, kept elsewhere.")] = None,
) -> None:
    """Check the chain of the audit log from its first record to its last, and print its head."""
    from clinical_symile.governance import AuditLog

    verdict = AuditLog(invocation.workspace.audit_log).verify(head)
    if not verdict.intact:
        raise GateRefused(f"{invocation.workspace.audit_log}: {verdict.problem}")
    if verdict.records:
        print(f"intact: {verdict.records} records, head {verdict.head}")
    else:
        print(f"{invocation.workspace.audit_log}: {_NOTHING}")


@audit.command()
@stage_command
def report(invocation: Invocation) -> None:
    """Count the events of each month."""
    from clinical_symile.governance import AuditLog

    months = AuditLog(invocation.workspace.audit_log).monthly_counts()
    if not months:
        print(f"{invocation.workspace.audit_log}: {_NOTHING}")
    for month, counts in months.items():
        print(f"{month}  {', '.join(f'{event}: {count}' for event, count in counts.items())}")


app.command("check")(check)
app.command("card")(card)

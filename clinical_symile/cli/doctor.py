"""``doctor``: what is installed, what is missing, and the remedy."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import typer

from clinical_symile import __version__
from clinical_symile.cli.common import Invocation, stage_command
from clinical_symile.stage import Workspace


@dataclass(frozen=True)
class Finding:
    """One line of the report. ``remedy`` is empty when nothing is wrong; an advisory does not fail the check."""

    subject: str
    state: str
    remedy: str = ""
    advisory: bool = False


@stage_command
def doctor(invocation: Invocation) -> None:
    """Say what is installed, what is wrong, and how to mend it. Exits with 1 if something needed is wrong."""
    findings = list(examine(invocation))
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        mark = "ok  " if not finding.remedy else "note" if finding.advisory else "BAD "
        print(f"{mark} {finding.subject:<{width}}  {finding.state}")
        if finding.remedy:
            print(f"     {'':<{width}}  -> {finding.remedy}")
    broken = [finding for finding in findings if finding.remedy and not finding.advisory]
    print(f"\n{len(broken)} problem(s)" if broken else "\nno problems")
    if broken:
        raise typer.Exit(1)


def examine(invocation: Invocation) -> Iterator[Finding]:
    """All findings, cheapest first."""
    yield Finding("clinical-symile", __version__)
    yield Finding("python", f"{sys.version.split()[0]} in {sys.prefix}")
    yield from _packages()
    yield from _accelerator()
    yield from _dicom_decoders()
    yield from _workspace(invocation.workspace)
    yield from _tracking(invocation)
    yield from _policy()


def _packages() -> Iterator[Finding]:
    """The libraries of each room."""
    needed = {
        "duckdb": "", "monai": "", "pydicom": "", "safetensors": "", "torch": "", "wfdb": "",
        "lightning": "train", "mlflow": "train", "streamlit": "app",
    }  # fmt: skip
    for name, extra in needed.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            package = f"clinical-symile[{extra}]" if extra else "clinical-symile"
            yield Finding(name, "not installed", f"pip install '{package}' -c constraints.txt", advisory=bool(extra))
            continue
        yield Finding(name, found)


def _accelerator() -> Iterator[Finding]:
    try:
        import torch
    except ImportError as error:
        yield Finding("GPU", "unknown: torch does not import", f"reinstall torch ({error})")
        return
    if torch.cuda.is_available():
        device = torch.cuda.get_device_properties(0)
        yield Finding("GPU", f"{torch.cuda.device_count()} x {device.name}, {device.total_memory / 2**30:.0f} GiB")
    elif torch.version.cuda is None:
        yield Finding(
            "GPU", "none: this torch is a CPU build", "fine for the demo; for the paper's model install a CUDA build", True
        )
    else:
        yield Finding("GPU", f"none found (torch built for CUDA {torch.version.cuda})", "check nvidia-smi and the driver", True)
    yield Finding("CPU", f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads")


def _dicom_decoders() -> Iterator[Finding]:
    """Which compressed DICOM files can be read here."""
    from pydicom.pixels import get_decoder
    from pydicom.uid import (
        JPEG2000,
        UID,
        JPEG2000Lossless,
        JPEGBaseline8Bit,
        JPEGExtended12Bit,
        JPEGLosslessSV1,
        JPEGLSLossless,
        RLELossless,
    )

    syntaxes: tuple[UID, ...] = (
        RLELossless, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, JPEG2000,
    )  # fmt: skip
    available: list[str] = []
    missing: list[str] = []
    for syntax in syntaxes:
        (available if get_decoder(syntax).is_available else missing).append(syntax.name.split(",")[0].split(" (")[0])
    state = f"{len(available)} of {len(syntaxes)} compressed kinds" + (f"; missing: {', '.join(missing)}" if missing else "")
    yield Finding(
        "DICOM decoders", state, "pip install 'clinical-symile[dicom]' -c constraints.txt" if missing else "", advisory=True
    )


def _workspace(workspace: Workspace) -> Iterator[Finding]:
    root = workspace.root
    existing = next(folder for folder in (root, *root.parents) if folder.exists())
    free_gib = shutil.disk_usage(existing).free / 2**30
    remedy = "" if os.access(existing, os.W_OK) else f"not writable: choose another --workspace, or mend the rights of {existing}"
    if free_gib < 2:
        remedy = "less than 2 GiB are free: make room or choose another --workspace"
    yield Finding("workspace", f"{root} ({'exists' if root.exists() else 'will be made'}, {free_gib:.0f} GiB free)", remedy)
    if root.exists() and root.stat().st_mode & 0o077:
        yield Finding("workspace rights", "other users of this machine can read it", f"chmod 700 {root}", advisory=True)


def _tracking(invocation: Invocation) -> Iterator[Finding]:
    uri = invocation.config.registry.tracking_uri
    if uri:
        yield Finding("tracking store", uri)
        return
    database = invocation.workspace.tracking / "mlflow.db"
    yield Finding("tracking store", f"{database} ({'exists' if database.exists() else 'made by the first training run'})")


def _policy() -> Iterator[Finding]:
    from clinical_symile.errors import ClinicalSymileError
    from clinical_symile.governance import load_policy
    from clinical_symile.governance.evidence import installed_packages
    from clinical_symile.governance.integrity import no_denied_dependency
    from clinical_symile.resources import resource_root

    path: Path | str = "governance/policy.yaml"
    try:
        path = resource_root() / "governance" / "policy.yaml"
        policy = load_policy()
    except ClinicalSymileError as error:
        yield Finding("policy", str(path), str(error))
        return
    yield Finding("policy", str(path))
    denied = no_denied_dependency(installed_packages(), policy)
    yield Finding("denied releases", denied.message, denied.remedy)


def add_to(app: typer.Typer) -> None:
    """Registers the command of this file."""
    command: Callable[..., None] = doctor
    app.command("doctor")(command)

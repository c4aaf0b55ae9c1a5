"""A cohort that was imported from the release of Symile-MIMIC: there are no raw files that it could be built from again."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final

from clinical_symile.config import HospitalConfig
from clinical_symile.errors import IncompleteStage, InputError
from clinical_symile.stage import RunOptions, Workspace, require_complete

logger = logging.getLogger(__name__)

RELEASED: Final = "symile-mimic-release"
"""``kind`` among the hospital's facts in the manifests."""

_COMMAND: Final = "import dataset DIR"


def is_imported(workspace: Workspace) -> bool:
    """Whether the workspace's finished cohort came from the release."""
    try:
        manifest = require_complete(workspace.cohort, "cohort")
    except IncompleteStage:
        return False
    return bool((manifest.get("hospital") or {}).get("kind") == RELEASED)


def keep_imported(name: str, folder: Path, options: RunOptions, hospital: HospitalConfig) -> dict[str, Any]:
    """What ``cohort`` and ``prepare`` do in such a workspace: nothing, and never destroy what was imported.

    Args:
        name: of the stage.
        folder: its output.
        options: how to run.
        hospital: the raw files that were named, if any.

    Returns:
        The manifest; empty for a dry run.

    Raises:
        InputError: it is to be done again, or with another hospital's files.
        IncompleteStage: the import was interrupted.
    """
    sources = ("mimic_iv", "mimic_cxr", "mimic_ecg", "manifest", "labs", "labs_omop", "labs_meds")
    named = [key for key in sources if getattr(hospital, key) is not None]
    if options.overwrite or named:
        reason = f"hospital.{named[0]} is another source" if named else "there are no raw files to make it from again"
        raise InputError(
            f"{folder}: was imported from the release of Symile-MIMIC, and {reason}. Choose another --workspace, or import again "
            f"with 'clinical-symile {_COMMAND} --overwrite'"
        )
    if options.dry_run:
        print(f"{name}: nothing to do, {folder} comes from 'import dataset'")  # noqa: T201 - what --dry-run is for
        return {}
    manifest = require_complete(folder, _COMMAND)
    logger.info("%s: nothing to do, %s was imported from the release of Symile-MIMIC", name, folder)
    return manifest

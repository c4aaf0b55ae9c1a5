"""A cohort that was imported from the release of Symile-MIMIC: there are no raw files that it could be built from again."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final

from clinical_symile.config import CohortConfig, ExperimentConfig
from clinical_symile.errors import IncompleteStage, InputError
from clinical_symile.stage import RunOptions, Workspace, require_complete

logger = logging.getLogger(__name__)

RELEASED: Final = "symile-mimic-release"
"""``kind`` among the hospital's facts in the manifests."""

_SETTLED: Final = (
    *("rules", "splits_from", "val_size", "test_size", "train_size", "stratify_by", "require"),
    *("lab_window_hours", "ecg_window_hours", "cxr_after_hours", "cxr_until_hours"),
)
"""What the release has settled. Presets for other data give fractions and sizes of candidate sets, which are let pass."""

_COMMAND: Final = "import dataset DIR"


def is_imported(workspace: Workspace) -> bool:
    """Whether the workspace's finished cohort came from the release."""
    try:
        manifest = require_complete(workspace.cohort, "cohort")
    except IncompleteStage:
        return False
    return bool((manifest.get("hospital") or {}).get("kind") == RELEASED)


def keep_imported(name: str, folder: Path, options: RunOptions, config: ExperimentConfig) -> dict[str, Any]:
    """What ``cohort`` and ``prepare`` do in such a workspace: nothing, and never destroy what was imported.

    Args:
        name: of the stage.
        folder: its output.
        options: how to run.
        config: must not ask for another hospital, other rules or other splits.

    Returns:
        The manifest; empty for a dry run.

    Raises:
        InputError: it is to be done again, or otherwise than it was.
        IncompleteStage: the import was interrupted.
    """
    sources = ("mimic_iv", "mimic_cxr", "mimic_ecg", "manifest", "labs", "labs_omop", "labs_meds")
    asked = [f"hospital.{key}" for key in sources if getattr(config.hospital, key) is not None]
    usual = CohortConfig()
    asked += [f"cohort.{key}" for key in _SETTLED if getattr(config.cohort, key) != getattr(usual, key)]
    if options.overwrite or asked:
        reason = f"{asked[0]} asks for something else" if asked else "there are no raw files to make it from again"
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

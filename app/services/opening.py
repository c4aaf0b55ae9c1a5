"""Opens the model that the registry serves, with its gallery and dataset, behind the gate of governance."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from app.records import Provenance
from app.server import ADDRESS, CONFIG_VARIABLE, WORKSPACE_VARIABLE
from app.services.review import Review
from clinical_symile.config import ExperimentConfig
from clinical_symile.errors import ClinicalSymileError, ConfigError, InputError
from clinical_symile.stage import Workspace, require_complete

if TYPE_CHECKING:
    from clinical_symile.modalities import LabStatistics


def open_review() -> Review:
    """Opens the champion of the registry with its gallery and dataset, if governance allows it to be shown.

    Raises:
        GateRefused: governance forbids it.
        ClinicalSymileError: something is missing or does not belong together; the message says what to run.
    """
    from clinical_symile.dataset import ArrayStore
    from clinical_symile.governance import AuditLog, Service, check_serving
    from clinical_symile.models import load_model, read_metadata
    from clinical_symile.retrieval import Gallery, find_gallery, model_digest
    from clinical_symile.tracking import find_champion, model_dir

    workspace, config = _workspace(), _config()
    scratch = workspace.root / "tmp"
    shutil.rmtree(scratch, ignore_errors=True)  # what a crash may have left of an upload
    require_complete(workspace.dataset, "prepare")
    champion = find_champion(workspace, config)
    folder = model_dir(workspace, config, champion)
    digest = model_digest(folder)
    store = ArrayStore.open(workspace.dataset)
    gallery = Gallery.open(find_gallery(workspace, digest), model=digest, dataset=store.digest)
    service = Service(
        host=ADDRESS,
        model_dir=folder,
        registered_digest=champion.model_digest,
        reviewed_on=champion.reviewed_on,
        gallery=gallery.facts,
        audit_log=workspace.audit_log,
    )
    check_serving(service).require()
    provenance = Provenance(
        name=champion.name,
        version=champion.version,
        loss=str(read_metadata(folder)["loss"]),
        access=gallery.access,
        gallery_size=len(gallery),
        model_digest=digest,
        gallery_digest=gallery.digest,
        dataset_digest=store.digest,
    )
    audit = AuditLog(workspace.audit_log)
    audit.append({"event": "start", "model_version": champion.label, "model_digest": digest, "gallery_digest": gallery.digest})
    return Review(
        provenance=provenance,
        store=store,
        model=load_model(folder),
        statistics=_labs_statistics(folder),
        gallery=gallery,
        audit=audit,
        scratch=scratch,
    )


def known_access() -> str | None:
    """The class of the workspace's data, read from its manifest alone; None while it is not known."""
    try:
        return str(require_complete(_workspace().dataset, "prepare").get("access"))
    except ClinicalSymileError:
        return None


def _labs_statistics(model: Path) -> LabStatistics:
    """Those of the data that the model was trained on."""
    from clinical_symile.modalities import LabStatistics

    file = model / "labs_statistics.json"
    if not file.is_file():
        raise InputError(f"{file}: is missing, so laboratory results cannot be turned into this model's input")
    return LabStatistics.from_json(file.read_text(encoding="utf-8"))


def _workspace() -> Workspace:
    folder = os.environ.get(WORKSPACE_VARIABLE)
    if not folder:
        raise ConfigError(
            f"{WORKSPACE_VARIABLE} is not set; start the dashboard with 'clinical-symile review --workspace <folder>'"
        )
    return Workspace(Path(folder))


def _config() -> ExperimentConfig:
    text = os.environ.get(CONFIG_VARIABLE)
    return ExperimentConfig.model_validate_json(text) if text else ExperimentConfig()

"""Reading the registry: versions, their aliases, their documents and the model that is served."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args
from urllib.parse import unquote, urlsplit

from clinical_symile.config import ExperimentConfig
from clinical_symile.errors import ConfigError, GateRefused, IncompleteStage, InputError
from clinical_symile.stage import Workspace, digest_file
from clinical_symile.tracking.package import MODEL_IN_PACKAGE
from clinical_symile.tracking.store import database_file, import_mlflow, open_store, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

Alias = Literal["champion", "challenger"]
DOCUMENTS: Final = "versions/{report}"
"""Folder of a version's documents among the artifacts of its run; ``{report}`` is the start of the report's digest."""


@dataclass(frozen=True)
class ModelVersion:
    """One version of the registered model.

    Attributes:
        name: the registered model.
        version: its number.
        aliases: ``champion`` is served, ``challenger`` is compared with it.
        run_id: the MLflow run that trained it and holds its documents.
        source: where its package lies.
        created: when it was registered.
        card: the model card, or its beginning if it is long.
        tags: lineage and headline, see ``registry.register``.
    """

    name: str
    version: int
    aliases: tuple[str, ...]
    run_id: str
    source: str
    created: datetime
    card: str
    tags: Mapping[str, str]

    @property
    def label(self) -> str:
        """Name and number, as the audit log and the dashboard write it."""
        return f"{self.name}/{self.version}"

    @property
    def run(self) -> str:
        """The name of the run."""
        return self.tags.get("run", "")

    @property
    def model_digest(self) -> str:
        """SHA-256 of the list of checksums of its files."""
        return self.tags.get("model_digest", "")

    @property
    def report_digest(self) -> str:
        """SHA-256 of the report it was registered with."""
        return self.tags.get("report_digest", "")

    @property
    def reviewed_on(self) -> date:
        """The day on which a person last gave it an alias, else that of its registration."""
        day = self.tags.get("reviewed_on")
        return date.fromisoformat(day) if day else self.created.date()

    @property
    def admitted(self) -> bool:
        """Whether it came through the gate; a version made by hand did not."""
        return self.tags.get("verdict") == "passed"


def list_versions(workspace: Workspace, config: ExperimentConfig) -> list[ModelVersion]:
    """All versions, the newest first. Makes no store where there is none."""
    database = database_file(tracking_uri(workspace, config))
    if database is not None and not database.exists():
        return []
    client = open_store(workspace, config)
    name = config.registry.name
    found = client.search_model_versions(f"name = '{name}'", order_by=["version_number DESC"])
    # A search returns versions without their aliases, so each is read again.
    return [describe(client, name, version.version) for version in found]


def find_version(workspace: Workspace, config: ExperimentConfig, wanted: int | str) -> ModelVersion:
    """A version by its number or alias.

    Raises:
        ConfigError: there is none; the message lists what there is.
    """
    versions = list_versions(workspace, config)
    for version in versions:
        if str(wanted) == str(version.version) or wanted in version.aliases:
            return version
    known = ", ".join(f"{version.version}{''.join(f' ({alias})' for alias in version.aliases)}" for version in versions)
    raise ConfigError(f"{config.registry.name}: has no version {wanted!r} (there is: {known or 'nothing, register a run first'})")


def promote(workspace: Workspace, config: ExperimentConfig, version: int | str, alias: Alias) -> ModelVersion:
    """Gives a version an alias, taking it from the version that had it. A challenger that becomes champion stops being one.

    The version's ``reviewed_on`` becomes today: whoever promotes it has read its card.

    Raises:
        ConfigError: there is no such version or alias.
        GateRefused: the version did not come through the gate.
    """
    if alias not in get_args(Alias):
        raise ConfigError(f"alias {alias!r}: must be one of {', '.join(get_args(Alias))}")
    found = find_version(workspace, config, version)
    if not found.admitted:
        raise GateRefused(f"{found.label}: was not registered through the gate; run 'clinical-symile registry register'")
    client = open_store(workspace, config)
    client.set_model_version_tag(found.name, str(found.version), "reviewed_on", datetime.now(UTC).date().isoformat())
    client.set_registered_model_alias(found.name, alias, str(found.version))
    if alias == "champion" and "challenger" in found.aliases:
        client.delete_registered_model_alias(found.name, "challenger")
    return describe(client, found.name, found.version)


def find_champion(workspace: Workspace, config: ExperimentConfig) -> ModelVersion:
    """The version that is served.

    Raises:
        IncompleteStage: there is none yet.
    """
    for version in list_versions(workspace, config):
        if "champion" in version.aliases:
            return version
    raise IncompleteStage(
        f"{config.registry.name}: no version is the champion; run 'clinical-symile registry register --alias champion' first"
    )


def champion_model_dir(workspace: Workspace, config: ExperimentConfig) -> Path:
    """The folder of the champion's model, see ``model_dir``."""
    return model_dir(workspace, config, find_champion(workspace, config))


def model_dir(workspace: Workspace, config: ExperimentConfig, version: ModelVersion) -> Path:
    """The folder of a version's model, for ``models.load_model``; a server's model is downloaded once.

    Raises:
        InputError: the folder is gone, or is not the model that was registered.
    """
    local = _local_path(version.source)
    if local is None:
        local = workspace.tracking / "downloads" / f"{version.name}-{version.version}-{version.model_digest[:16]}"
        if not (local / MODEL_IN_PACKAGE).is_dir():
            staged = local.with_name(f".{local.name}.tmp")
            shutil.rmtree(staged, ignore_errors=True)
            staged.mkdir(parents=True, mode=0o700)
            download = import_mlflow().artifacts.download_artifacts
            uri = tracking_uri(workspace, config)
            Path(download(artifact_uri=version.source, dst_path=str(staged), tracking_uri=uri)).rename(local)
            shutil.rmtree(staged, ignore_errors=True)
    folder = local / MODEL_IN_PACKAGE
    sums = folder / "SHA256SUMS"
    if not sums.is_file():
        raise InputError(f"{folder}: the model of {version.label} is gone; put the folder back from a copy of the workspace")
    if digest_file(sums) != version.model_digest:
        raise InputError(f"{folder}: is not the model that was registered as {version.label}; do not use it")
    return folder


def document(workspace: Workspace, config: ExperimentConfig, version: ModelVersion, name: str) -> Path:
    """The file of one of a version's documents, to be read only.

    Args:
        workspace: holds the store.
        config: names the store.
        version: whose document.
        name: ``report.json``, ``report.html``, ``ranks.parquet``, ``model_card.md``, ``verdict.json`` or another that
            was given to ``register``.

    Raises:
        InputError: there is no such document.
    """
    from mlflow.exceptions import MlflowException

    client = open_store(workspace, config)
    downloads = None  # a local store's file is read where it lies
    if database_file(tracking_uri(workspace, config)) is None:
        downloads = workspace.tracking / "downloads" / version.run_id
        downloads.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = f"{DOCUMENTS.format(report=version.report_digest[:16])}/{name}"
    try:
        return Path(client.download_artifacts(version.run_id, path, downloads and str(downloads)))
    except (MlflowException, OSError):
        raise InputError(
            f"{version.label}: has no document {name!r}; put the folder tracking/ back from a copy of the workspace"
        ) from None


def read_report(workspace: Workspace, config: ExperimentConfig, version: ModelVersion) -> dict[str, Any]:
    """The report with which a version was registered."""
    report: dict[str, Any] = json.loads(document(workspace, config, version, "report.json").read_text(encoding="utf-8"))
    return report


def describe(client: MlflowClient, name: str, version: int | str) -> ModelVersion:
    """A version as the store has it now, with its aliases."""
    found = client.get_model_version(name, str(version))
    return ModelVersion(
        name=found.name,
        version=int(found.version),
        aliases=tuple(sorted(found.aliases)),
        run_id=found.run_id or "",
        source=found.source,
        created=datetime.fromtimestamp(found.creation_timestamp / 1000, UTC),
        card=found.description or "",
        tags=dict(found.tags),
    )


def _local_path(uri: str) -> Path | None:
    parts = urlsplit(uri)
    return Path(unquote(parts.path)) if parts.scheme in ("", "file") else None

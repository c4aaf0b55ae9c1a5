"""The tracking store: where it is, made once and whole, closed to others, and silent towards the outside.

Four defects of a plain ``MlflowClient(uri)`` are avoided here. Two processes that first open the same sqlite file destroy
it for good (its migrations race), so it is made under a lock, under another name, and renamed when it is whole. MLflow
reports its use to its makers unless told otherwise *before* it is imported. It loads pickles unless told otherwise. And it
keeps absolute addresses, so that a copied workspace would read the original's models and write its own beside them.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from clinical_symile.config import ExperimentConfig
from clinical_symile.errors import ClinicalSymileError, ConfigError, GateRefused
from clinical_symile.stage import MANIFEST, Workspace, atomic_path, file_lock

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

DATABASE = "mlflow.db"
ARTIFACTS = "artifacts"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Tables and columns in which MLflow keeps where artifacts are."""
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
"""With a server that does not answer; MLflow's own default keeps a user waiting for minutes."""


def import_mlflow() -> Any:
    """Imports MLflow with telemetry and pickles off. Everything in this room gets MLflow from here.

    Silence is not a default that a user's environment overrides: it is what the licence of the data asks for.
    """
    os.environ.update(_QUIET)
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    import mlflow

    # The environment decides only if nobody imported MLflow before.
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    return mlflow


def tracking_uri(workspace: Workspace, config: ExperimentConfig) -> str:
    """The store's address: ``registry.tracking_uri``, else an sqlite file in the workspace.

    Raises:
        ConfigError: the configured address is of a kind that is not supported.
    """
    configured = config.registry.tracking_uri
    if configured is None:
        return f"sqlite:///{(workspace.tracking / DATABASE).resolve()}"
    if urlsplit(configured).scheme not in ("sqlite", "http", "https"):
        raise ConfigError(
            f"registry.tracking_uri = {configured!r}: must be sqlite:///<file> or http(s)://<server>; "
            "MLflow's folder store is not supported (it has no registry that several processes can use)"
        )
    return configured


def database_file(uri: str) -> Path | None:
    """The file of an sqlite address, ``None`` for a server."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def access_class(workspace: Workspace) -> str:
    """The access class of the workspace's data; ``credentialed`` while it is not known."""
    return str(_dataset_manifest(workspace).get("access", "credentialed"))


def dataset_digest(workspace: Workspace) -> str | None:
    """The digest of the workspace's dataset, if there is one."""
    digest = _dataset_manifest(workspace).get("digest")
    return None if digest is None else str(digest)


def open_store(workspace: Workspace, config: ExperimentConfig) -> MlflowClient:
    """A client of the tracking store and registry; makes the local store if it is not there.

    Raises:
        GateRefused: the store is another machine's and the data is credentialed.
        ConfigError: the address is not supported.
        ClinicalSymileError: the store does not answer, or another version of MLflow made it.
    """
    uri = tracking_uri(workspace, config)
    database = database_file(uri)
    if database is None:
        _refuse_remote_credentialed(uri, access_class(workspace))
    else:
        _make_database(database)
        if config.registry.tracking_uri is None:
            _follow_move(database)
    mlflow = import_mlflow()
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        # Both addresses, so that nothing depends on MLflow's process-wide default (an mlflow.db in the current folder).
        client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_experiments(max_results=1)
    except (MlflowException, SQLAlchemyError) as error:
        remedy = "is the server running?" if database is None else f"if an older MLflow made it: mlflow db upgrade {uri}"
        raise ClinicalSymileError(f"{uri}: the tracking store cannot be used ({_first_line(error)}); {remedy}") from None
    return client


def experiment_id(client: MlflowClient, config: ExperimentConfig, name: str | None = None) -> str:
    """The id of the experiment that holds our runs, named like the registered model unless named; made if it is not there."""
    from mlflow.exceptions import MlflowException

    name = name or config.registry.name
    found = client.get_experiment_by_name(name)
    if found is None:
        # A client of an sqlite file would put artifacts under ./mlruns; a server knows its own place.
        database = database_file(client.tracking_uri)
        location = (database.parent / ARTIFACTS).resolve().as_uri() if database else None
        try:
            return str(client.create_experiment(name, artifact_location=location))
        except MlflowException:
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)  # also when another process was faster


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]


def _dataset_manifest(workspace: Workspace) -> dict[str, Any]:
    try:
        manifest = json.loads((workspace.dataset / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def _refuse_remote_credentialed(uri: str, access: str) -> None:
    host = urlsplit(uri).hostname or ""
    if access == "credentialed" and host not in _LOOPBACK:
        raise GateRefused(
            f"registry.tracking_uri = {uri}: credentialed data and what derives from it (weights, metrics of patients) may not "
            "be sent to another machine; leave registry.tracking_uri unset, or use a server on 127.0.0.1"
        )


def _make_database(database: Path) -> None:
    """Makes an sqlite store with MLflow's tables, atomically; does nothing if it is there."""
    if database.exists():
        return
    database.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with file_lock(database.with_suffix(".lock")):
        if database.exists():
            return
        import_mlflow()
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        logger.info("making the tracking store %s", database)
        artifacts = database.parent / ARTIFACTS
        artifacts.mkdir(exist_ok=True, mode=0o700)
        with atomic_path(database) as temporary:  # made with rights 0600
            SqlAlchemyStore(f"sqlite:///{temporary}", artifacts.resolve().as_uri()).engine.dispose()


def _follow_move(database: Path) -> None:
    """Lets a store find the artifacts beside it again after its workspace was moved or copied."""
    here = (database.parent / ARTIFACTS).resolve().as_uri()
    try:
        with closing(sqlite3.connect(database)) as connection:
            row = connection.execute("SELECT artifact_location FROM experiments WHERE experiment_id = 0").fetchone()
            before = row[0].removesuffix("/0") if row else here
            if before == here or not before.endswith(f"/{ARTIFACTS}"):
                return
            logger.info("the workspace was moved or copied: the tracking store now uses %s", here)
            with connection:  # one transaction: a second process finds nothing left to do
                for table, column in _ADDRESSES:
                    connection.execute(
                        f"UPDATE {table} SET {column} = :here || substr({column}, length(:before) + 1) "  # noqa: S608  # our names
                        f"WHERE {column} = :before OR substr({column}, 1, length(:before) + 1) = :before || '/'",
                        {"here": here, "before": before},
                    )
    except (sqlite3.Error, OSError) as error:
        remedy = "if the workspace was moved or copied, it must be writable once"
        raise ClinicalSymileError(f"{database}: the tracking store cannot be used ({error}); {remedy}") from None

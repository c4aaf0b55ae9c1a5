"""One training run, followed in MLflow across interruptions. Fits the protocol ``training.RunTracker``."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clinical_symile.config import ExperimentConfig, config_digest
from clinical_symile.errors import ClinicalSymileError
from clinical_symile.stage import Workspace, code_version, digest_json
from clinical_symile.tracking.store import access_class, dataset_digest, experiment_id, open_store

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

WORKSPACE_TAG = "clinical_symile.workspace"
_BATCH = 100  # MLflow takes at most 100 parameters at once
_MAX_DIGEST = 36  # and dataset digests of at most 36 characters


class MlflowTracker:
    """Follows a run in the workspace's MLflow store.

    An interrupted run is continued under its id, with status RUNNING again. Epochs that were trained a second time, because
    the interruption came after the last checkpoint, are not recorded a second time. Once a run has begun, a store that fails
    does not stop the training: ``metrics.jsonl`` in the run's folder holds the same numbers.

    Args:
        workspace: its ``tracking/`` is the store, unless the configuration names another.
        config: all of it is recorded as parameters.
    """

    def __init__(self, workspace: Workspace, config: ExperimentConfig) -> None:
        self.workspace = workspace
        self.config = config
        self._opened: tuple[MlflowClient, str] | None = None
        self._last_step: dict[str, int] = {}

    def start(
        self,
        run_name: str,
        params: Mapping[str, str | int | float | bool | None],
        tags: Mapping[str, str],
        resume_id: str | None,
    ) -> str:
        """Begins a run, or continues an interrupted one.

        Args:
            run_name: the name of the run's folder.
            params: flat parameters beyond the configuration.
            tags: digests and versions beyond those recorded for every run: the digests of configuration and dataset, the
                access class, the code's version and commit.
            resume_id: id of the interrupted run; a new run begins if the store does not know it (any more).

        Returns:
            The run's id.
        """
        client = open_store(self.workspace, self.config)
        experiment = experiment_id(client, self.config)
        run_id = self._resumable(client, resume_id) or self._create(client, experiment, run_name)
        self._close_abandoned(client, experiment, run_name, run_id)
        self._opened = (client, run_id)
        run = client.get_run(run_id)
        # The latest step of each metric; what a resumed run trains again is not recorded again.
        self._last_step = {key: max(m.step for m in client.get_metric_history(run_id, key)) for key in run.data.metrics}
        wanted = {**flatten(self.config.model_dump(mode="json")), **params}
        self._log_params(client, run_id, {key: value for key, value in wanted.items() if key not in run.data.params})
        for key, value in {**self._provenance(), **tags}.items():
            client.set_tag(run_id, key, value)
        client.update_run(run_id, status="RUNNING")
        return run_id

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Records the metrics of one epoch; ``step`` is the epoch, counted from 1."""
        from mlflow.entities import Metric

        client, run_id = self._run()
        now = int(time.time() * 1000)
        new = [Metric(key, float(value), now, step) for key, value in metrics.items() if step > self._last_step.get(key, -1)]
        with self._not_fatal():
            client.log_batch(run_id, metrics=new)

    def log_artifact(self, path: Path) -> None:
        """Attaches a file to the run."""
        client, run_id = self._run()
        with self._not_fatal():
            client.log_artifact(run_id, str(path))

    def finish(self, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
        """Ends the run."""
        client, run_id = self._run()
        with self._not_fatal():
            client.set_terminated(run_id, status)

    def _run(self) -> tuple[MlflowClient, str]:
        if self._opened is None:
            raise ClinicalSymileError("MlflowTracker: start() must be called first")
        return self._opened

    @contextmanager
    def _not_fatal(self) -> Iterator[None]:
        from mlflow.exceptions import MlflowException

        try:
            yield
        except (MlflowException, OSError) as error:
            logger.warning("tracking failed (%s); the run goes on, its metrics.jsonl is complete", type(error).__name__)

    def _resumable(self, client: MlflowClient, resume_id: str | None) -> str | None:
        from mlflow.exceptions import MlflowException

        if resume_id is None:
            return None
        try:
            return str(client.get_run(resume_id).info.run_id)
        except MlflowException:
            logger.warning("the tracking store does not know the interrupted run %s; it continues as a new one", resume_id)
            return None

    def _create(self, client: MlflowClient, experiment: str, run_name: str) -> str:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        run_id = str(client.create_run(experiment, run_name=run_name, tags={WORKSPACE_TAG: self._workspace_key()}).info.run_id)
        digest = dataset_digest(self.workspace)
        if digest:
            dataset = Dataset(name="dataset", digest=digest[:_MAX_DIGEST], source_type="clinical-symile", source=digest)
            client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])
        return run_id

    def _close_abandoned(self, client: MlflowClient, experiment: str, run_name: str, keep: str) -> None:
        """Marks earlier runs of this name that were killed; the run's folder has one owner, so nobody else works on them."""
        where = f"attributes.status = 'RUNNING' AND tags.`{WORKSPACE_TAG}` = '{self._workspace_key()}'"
        for run in client.search_runs([experiment], f"{where} AND attributes.run_name = '{run_name}'"):
            if run.info.run_id != keep:
                client.set_terminated(run.info.run_id, "KILLED")

    def _log_params(self, client: MlflowClient, run_id: str, params: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        entities = [Param(key, str(value)) for key, value in params.items()]
        for start in range(0, len(entities), _BATCH):
            client.log_batch(run_id, params=entities[start : start + _BATCH])

    def _provenance(self) -> dict[str, str]:
        code = code_version()
        facts = {
            "config_digest": config_digest(self.config),
            "dataset_digest": dataset_digest(self.workspace),
            "access": access_class(self.workspace),
            "code_version": code["version"],
            "code_modified": code["modified"],
            "mlflow.source.git.commit": code["commit"],  # the name that MLflow's own pages show
        }
        return {key: str(value) for key, value in facts.items() if value is not None}

    def _workspace_key(self) -> str:
        return digest_json(str(self.workspace.root.resolve()))[:16]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one flat one: ``{"train": {"lr": 1}}`` -> ``{"train.lr": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat

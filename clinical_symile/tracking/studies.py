"""Results of the small experiments (``clinical-symile experiment``) in MLflow: one finished run each."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clinical_symile.config import ExperimentConfig
from clinical_symile.stage import Workspace, code_version
from clinical_symile.tracking.mlflow_tracker import flatten
from clinical_symile.tracking.store import experiment_id, open_store

EXPERIMENT = "clinical-symile-experiments"
KEY_TAG = "clinical_symile.key"
_BATCH = 100  # MLflow takes at most 100 parameters at once
_METRICS = 1000  # and 1,000 metrics
_LONGEST = 6000  # and parameters of at most 6,000 characters


def record_study(
    workspace: Workspace,
    name: str,
    key: str,
    params: Mapping[str, Any],
    metrics: Mapping[str, float],
    artifacts: Sequence[Path],
) -> str:
    """Writes a run of the workspace's MLflow store, experiment ``clinical-symile-experiments``.

    Args:
        workspace: its ``tracking/`` is the store.
        name: of the run.
        key: identifies the work: what was written for it before, perhaps by a process that was killed, is written over.
        params: possibly nested.
        metrics: finite numbers.
        artifacts: files to attach.

    Returns:
        The run's id.

    Raises:
        ClinicalSymileError: the store cannot be used.
    """
    from mlflow.entities import Metric, Param

    config = ExperimentConfig()
    client = open_store(workspace, config)
    experiment = experiment_id(client, config, EXPERIMENT)
    for earlier in client.search_runs([experiment], f"tags.`{KEY_TAG}` = '{key}'"):
        client.delete_run(earlier.info.run_id)
    code = {f"code_{part}": str(value) for part, value in code_version().items() if value is not None}
    run_id = str(client.create_run(experiment, run_name=name, tags={KEY_TAG: key, **code}).info.run_id)
    entities = [Param(param, str(value)[:_LONGEST]) for param, value in flatten(params).items()]
    for start in range(0, len(entities), _BATCH):
        client.log_batch(run_id, params=entities[start : start + _BATCH])
    now = int(time.time() * 1000)
    values = [Metric(metric, float(value), now, 0) for metric, value in metrics.items()]
    for start in range(0, len(values), _METRICS):
        client.log_batch(run_id, metrics=values[start : start + _METRICS])
    for path in artifacts:
        client.log_artifact(run_id, str(path))
    client.set_terminated(run_id, "FINISHED")
    return run_id

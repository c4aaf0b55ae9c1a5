"""The stage ``train``: one run under ``runs/<run>/``, followed by a tracker."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from clinical_symile.config import ExperimentConfig, config_digest
from clinical_symile.dataset import ArrayStore
from clinical_symile.errors import ConfigError
from clinical_symile.models import SymileModel, save_model
from clinical_symile.stage import RunOptions, Stage, Workspace, code_version, require_complete, write_json, write_text
from clinical_symile.training.checkpoint import Progress
from clinical_symile.training.data import EpochBatches, TrainingData
from clinical_symile.training.epochs import METRICS
from clinical_symile.training.estimate import estimate_minutes
from clinical_symile.training.fit import fit
from clinical_symile.training.tracker import RunTracker

logger = logging.getLogger(__name__)

CONFIG = "config.yaml"
RUN = "run.json"


def train(config: ExperimentConfig, workspace: Workspace, options: RunOptions, tracker: RunTracker) -> dict[str, Any]:
    """Trains one model on the workspace's dataset; writes ``runs/<run>/``.

    ``model/`` holds the model of the epoch that validation prefers, ``checkpoints/`` what an interrupted run continues
    from, ``metrics.jsonl`` a line for each epoch, ``config.yaml`` the whole resolved configuration.

    Args:
        config: sections ``model`` and ``train``.
        workspace: holds the dataset.
        options: how to run.
        tracker: follows the run.

    Returns:
        The manifest; empty for a dry run.

    Raises:
        IncompleteStage: the dataset is not finished.
        InputError: a split is too small.
        ConfigError: an option that cannot be.
        ClinicalSymileError: the loss is not finite.
    """
    if config.train.devices > 1:
        raise ConfigError("train.devices: this version trains on one device; negatives are not gathered across several. Use 1")
    prepared = require_complete(workspace.dataset, "prepare")
    store = ArrayStore.open(workspace.dataset)
    data = TrainingData.of(store)
    data.check(config.train)
    stage = Stage(
        "train",
        workspace.run(config.train.run_name),
        inputs={"dataset": store.digest},
        config={"model": config.model.model_dump(mode="json"), "train": config.train.model_dump(mode="json")},
        options=options,
    )
    if options.dry_run:
        stage.announce(_plan(config, data))
        return {}
    if stage.should_skip():
        return stage.manifest()
    with stage.writing() as run:
        write_text(run.output / CONFIG, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
        with _tracked(config, store, run.output, tracker):
            model, progress = fit(config.model, config.train, data, run.output, options, tracker)
            facts = {"run": config.train.run_name, "loss": config.train.loss, "access": store.access}
            save_model(model, run.output / "model", _metadata(facts, config, store, progress), _labs_statistics(workspace))
            for name in (CONFIG, METRICS, "model/model.json"):
                tracker.log_artifact(run.output / name)
        run.counts.update(train=len(data.train), val=len(data.val), epochs=progress.epoch, steps=progress.step)
        run.facts.update(facts, hospital=prepared.get("hospital"), best_epoch=progress.best_epoch, best=progress.best)
        # Times, ids and paths differ between equal runs.
        run.volatile.update({METRICS, RUN, CONFIG})
    return stage.manifest()


@contextmanager
def _tracked(config: ExperimentConfig, store: ArrayStore, folder: Path, tracker: RunTracker) -> Iterator[None]:
    """A tracked run that ends with the right status; an interrupted one is continued under its id."""
    earlier = json.loads((folder / RUN).read_text(encoding="utf-8"))["run_id"] if (folder / RUN).exists() else None
    tags = {
        "dataset_digest": store.digest,
        "config_digest": config_digest(config),
        "access": store.access,
        **{f"code_{key}": str(value) for key, value in code_version().items()},
    }
    params = _flat({"model": config.model.model_dump(mode="json"), "train": config.train.model_dump(mode="json")})
    write_json(folder / RUN, {"run_id": tracker.start(config.train.run_name, params, tags, earlier)})
    try:
        yield
    except Exception:
        tracker.finish("FAILED")
        raise
    except BaseException:
        tracker.finish("KILLED")
        raise
    tracker.finish("FINISHED")


def _metadata(facts: dict[str, Any], config: ExperimentConfig, store: ArrayStore, progress: Progress) -> dict[str, Any]:
    """The facts that travel with the model."""
    return {
        **facts,
        "dataset": store.digest,
        "epoch": progress.best_epoch,
        "validation": progress.best,
        "train": config.train.model_dump(mode="json"),
    }


def _labs_statistics(workspace: Workspace) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((workspace.dataset / "labs_statistics.json").read_text(encoding="utf-8"))
    return loaded


def _plan(config: ExperimentConfig, data: TrainingData) -> dict[str, Any]:
    """What a run would do, for ``--dry-run``."""
    model = SymileModel(config.model)
    steps = len(EpochBatches(data, config.train.batch_size, config.train.seed))
    weights_mb = sum(tensor.nbytes for tensor in model.state_dict().values()) / 1e6
    return {
        "admissions": f"{len(data.train)} to train on, {len(data.val)} to validate on",
        "steps": f"{config.train.epochs} epochs of {steps}",
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "writes": f"{weights_mb:.1f} MB model, {4 * weights_mb:.1f} MB checkpoints",
        "minutes, roughly": estimate_minutes(model, config.train, len(data.train), len(data.val), steps),
    }


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, str | int | float | bool | None]:
    """``{"train": {"lr": 1}}`` -> ``{"train.lr": 1}``; lists become text."""
    flat: dict[str, str | int | float | bool | None] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = str(value) if isinstance(value, list) else value
    return flat

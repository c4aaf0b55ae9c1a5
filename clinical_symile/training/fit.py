"""Fits a model to a dataset, from the beginning or from where an interrupted run stopped."""

from __future__ import annotations

import logging
from pathlib import Path

from clinical_symile.config import ModelConfig, TrainConfig
from clinical_symile.models import SymileModel
from clinical_symile.stage import RunOptions
from clinical_symile.training.checkpoint import Progress, load_best, load_checkpoint
from clinical_symile.training.data import EpochBatches, TrainingData
from clinical_symile.training.driver import drive
from clinical_symile.training.epochs import Epochs
from clinical_symile.training.module import ContrastiveModule
from clinical_symile.training.randomness import seeded_initialisation
from clinical_symile.training.tracker import RunTracker

logger = logging.getLogger(__name__)


def fit(
    model_config: ModelConfig, config: TrainConfig, data: TrainingData, folder: Path, options: RunOptions, tracker: RunTracker
) -> tuple[SymileModel, Progress]:
    """Trains, and gives back the model of the best epoch.

    On the same machine with the same number of threads the result is the same to the last bit, whether or not the run was
    interrupted: weights and moments come from the checkpoint, everything random from (seed, epoch, step).

    Args:
        model_config: architecture.
        config: loss, optimisation, selection.
        data: training and validation split.
        folder: of the run; ``checkpoints/`` and ``metrics.jsonl`` are written there, and continued if they exist.
        options: how to run.
        tracker: a started run.

    Returns:
        The model on the CPU, and how training went.
    """
    data.check(config)
    checkpoints = folder / "checkpoints"
    checkpoint = load_checkpoint(checkpoints)
    progress = checkpoint.progress if checkpoint else Progress()
    with seeded_initialisation(config.seed):
        model = SymileModel(model_config)
    if checkpoint:
        logger.info("continuing after epoch %d of %d", progress.epoch, config.epochs)
        model.load_state_dict(checkpoint.weights)
    batches = EpochBatches(data, config.batch_size, config.seed, config.augment)
    module = ContrastiveModule(model, config, config.epochs * len(batches), checkpoint)
    epochs = Epochs(folder, batches, progress, options, tracker)
    if progress.epoch < config.epochs:
        drive(module, batches, config.epochs - progress.epoch, config, folder, [epochs])
    model.cpu().load_state_dict(load_best(checkpoints, epochs.progress.best_epoch))
    return model.eval(), epochs.progress

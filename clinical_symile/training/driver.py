"""Lightning as a driver and nothing else: device placement, precision and the loop over epochs.

It must not print, write files, requeue jobs, or decide how an interruption looks from outside.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.plugins.environments import LightningEnvironment

from clinical_symile.config import TrainConfig
from clinical_symile.errors import ConfigError
from clinical_symile.training.data import EpochBatches
from clinical_symile.training.module import ContrastiveModule

_EXIT_TERMINATED = 143  # 128 + SIGTERM, as a shell reports it


def drive(
    module: ContrastiveModule, batches: EpochBatches, epochs: int, config: TrainConfig, folder: Path, callbacks: list[pl.Callback]
) -> None:
    """Trains for a number of epochs.

    Raises:
        ConfigError: the accelerator that was asked for is not there.
        KeyboardInterrupt: Ctrl-C.
        SystemExit: the process was asked to terminate (status 143).
    """
    with _quiet(), _honest_interruptions():
        try:
            trainer = pl.Trainer(
                accelerator=config.accelerator,
                devices=config.devices,
                precision=config.precision,
                max_epochs=epochs,
                callbacks=callbacks,
                default_root_dir=folder,
                # Checkpoints, metrics, progress and validation are our own, see `epochs`.
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
                use_distributed_sampler=False,
                # Under SLURM, Lightning would otherwise requeue the job and write a checkpoint of its own.
                plugins=[LightningEnvironment()],
            )
        except (pl.utilities.exceptions.MisconfigurationException, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"train.accelerator = {config.accelerator!r}, train.precision = {config.precision!r}: {error}"
            ) from None
        trainer.fit(module, train_dataloaders=batches)


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's tips and remarks go nowhere; its errors still do."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning(\.|$)")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _honest_interruptions() -> Iterator[None]:
    """Lightning turns Ctrl-C into exit(1), and SIGTERM into an exit with status 0, as if training had finished."""
    try:
        yield
    except SystemExit as stop:
        cause: Any = stop.__context__
        if isinstance(cause, KeyboardInterrupt):
            raise cause from None
        raise SystemExit(_EXIT_TERMINATED) from None

"""What happens around each epoch: progress, validation, the line in ``metrics.jsonl``, the checkpoint, the tracker."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from clinical_symile.errors import ClinicalSymileError
from clinical_symile.stage import RunOptions, track, write_text
from clinical_symile.training.checkpoint import Progress, forget_other_bests, save_best, save_checkpoint
from clinical_symile.training.data import EpochBatches
from clinical_symile.training.module import ContrastiveModule
from clinical_symile.training.tracker import RunTracker
from clinical_symile.training.validation import validate

logger = logging.getLogger(__name__)

METRICS = "metrics.jsonl"


class Epochs(pl.Callback):
    """Ends each epoch so that a kill at any moment loses at most the epoch under way.

    The order of the writes matters: first the epoch's line, then the weights of a better epoch under a name of their own,
    then the checkpoint, which makes both valid; a resumed run drops what is beyond its checkpoint. The tracker comes last.

    Args:
        folder: of the run.
        batches: told which epoch it is.
        progress: where training stands.
        options: whether progress is shown.
        tracker: told the metrics of each epoch.
    """

    def __init__(self, folder: Path, batches: EpochBatches, progress: Progress, options: RunOptions, tracker: RunTracker) -> None:
        self.folder = folder
        self.checkpoints = folder / "checkpoints"
        self.batches = batches
        self.progress = progress
        self.options = options
        self.tracker = tracker
        self.lines = [line for line in read_metrics(folder) if line["epoch"] <= progress.epoch]
        self.started = 0.0
        self.bar: Iterator[Any] = iter(())

    def on_train_start(self, trainer: pl.Trainer, module: ContrastiveModule) -> None:
        """Shows progress, and repeats to the tracker what it may have missed; it drops what it knows."""
        for line in self.lines:
            self.tracker.log_metrics(_numbers(line), int(line["epoch"]))
        steps = module.total_steps - module.step
        self.bar = track(range(steps), steps, f"train {module.config.run_name}", self.options)

    def on_train_epoch_start(self, trainer: pl.Trainer, module: ContrastiveModule) -> None:
        """Chooses the epoch's batches."""
        self.batches.epoch = self.progress.epoch
        self.started = time.monotonic()
        module.losses.clear()

    def on_train_batch_start(self, trainer: pl.Trainer, module: ContrastiveModule, batch: Any, batch_idx: int) -> None:
        """Moves the progress on: asking for the next item marks the one before as done."""
        next(self.bar, None)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: ContrastiveModule) -> None:
        """Validates and saves.

        Raises:
            ClinicalSymileError: a metric is not a finite number.
        """
        line = self._measure(trainer, module)
        best = self._is_best(module.config.select_by, line)
        self.progress = Progress(
            epoch=line["epoch"],
            step=module.step,
            best_epoch=line["epoch"] if best else self.progress.best_epoch,
            best=_reproducible(line) if best else self.progress.best,
        )
        self.lines.append(line)
        write_text(self.folder / METRICS, "".join(json.dumps(line, allow_nan=False) + "\n" for line in self.lines))
        if best:
            save_best(self.checkpoints, module.model, self.progress.best_epoch)
        save_checkpoint(self.checkpoints, module.model, trainer.optimizers[0], self.progress)
        forget_other_bests(self.checkpoints, self.progress.best_epoch)
        self.tracker.log_metrics(_numbers(line), int(line["epoch"]))
        shown = ", ".join(f"{key} {line[key]:.3f}" for key in ("train_loss", "val_loss", "accuracy_10way") if key in line)
        logger.info("epoch %d: %s (%.1f s)%s", line["epoch"], shown, line["seconds"], ", best so far" if best else "")

    def on_train_end(self, trainer: pl.Trainer, module: ContrastiveModule) -> None:
        """Finishes the progress."""
        for _ in self.bar:
            continue

    def on_exception(self, trainer: pl.Trainer, module: ContrastiveModule, exception: BaseException) -> None:
        """Takes the progress bar off the terminal before the error is shown."""
        close = getattr(self.bar, "close", None)
        if close is not None:
            close()

    def _measure(self, trainer: pl.Trainer, module: ContrastiveModule) -> dict[str, Any]:
        line: dict[str, Any] = {
            "epoch": self.progress.epoch + 1,
            "step": module.step,
            "train_loss": torch.stack(module.losses).mean().item(),
            **validate(module.model, module.loss, self.batches.data, module.config),
            "logit_scale": module.model.logit_scale.item(),
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "seconds": round(time.monotonic() - self.started, 3),
        }
        broken = [key for key, value in line.items() if not math.isfinite(value)]
        if broken:
            raise ClinicalSymileError(
                f"epoch {line['epoch']}: {broken[0]} is {line[broken[0]]}; lower train.lr (now {module.config.lr:g}) or set "
                "train.max_logit_scale. The last checkpoint is kept"
            )
        return line

    def _is_best(self, select_by: str, line: dict[str, Any]) -> bool:
        """The first epoch, or a better one. Equal accuracies, which are common in small splits, are decided by the loss."""
        if not self.progress.best_epoch:
            return True

        def merit(metrics: dict[str, Any]) -> tuple[float, float]:
            return (metrics["accuracy_10way"] if select_by == "accuracy_10way" else 0.0, -metrics["val_loss"])

        return merit(line) > merit(self.progress.best)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl``: one for each finished epoch, ``logit_scale`` as the logarithm that is learned."""
    file = folder / METRICS
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def _numbers(line: dict[str, Any]) -> dict[str, float]:
    return {key: float(value) for key, value in line.items() if key not in ("epoch", "step")}


def _reproducible(line: dict[str, Any]) -> dict[str, float]:
    return {key: value for key, value in line.items() if key != "seconds"}

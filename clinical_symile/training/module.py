"""One optimisation step, as Lightning wants it: thin, because the model, the loss and the schedule live elsewhere."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from clinical_symile.config import TrainConfig
from clinical_symile.contrastive import PairwiseCLIPLoss, SymileLoss
from clinical_symile.errors import ClinicalSymileError
from clinical_symile.models import SymileModel
from clinical_symile.training.checkpoint import Checkpoint, restore_optimizer
from clinical_symile.training.randomness import Purpose, generator
from clinical_symile.training.schedule import learning_rate


class ContrastiveModule(pl.LightningModule):
    """Trains a ``SymileModel``.

    AdamW decays every parameter, ``logit_scale`` included, as the authors' code does. Steps are counted here and not by
    Lightning, which knows nothing of the steps before an interruption.

    Args:
        model: the model, with the checkpoint's weights if there is one.
        config: loss, optimizer and schedule.
        total_steps: of the whole run.
        checkpoint: where an interrupted run stopped.
    """

    def __init__(self, model: SymileModel, config: TrainConfig, total_steps: int, checkpoint: Checkpoint | None) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.total_steps = total_steps
        self.checkpoint = checkpoint
        self.step = checkpoint.progress.step if checkpoint else 0
        self.loss = SymileLoss(config.negative_sampling) if config.loss == "symile" else PairwiseCLIPLoss()
        self.losses: list[Tensor] = []
        model.logit_scale.requires_grad_(not config.freeze_logit_scale)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """The loss of one batch.

        Raises:
            ClinicalSymileError: it is not a finite number.
        """
        representations = self.model(batch)
        logit_scale = representations.pop("logit_scale")
        loss: Tensor = self.loss(representations, logit_scale, generator(self.config.seed, Purpose.NEGATIVES, self.step))
        if not torch.isfinite(loss):
            raise ClinicalSymileError(
                f"the loss of step {self.step + 1} is {loss.item()} (logit_scale {self.model.logit_scale.item():.2f}); "
                f"lower train.lr (now {self.config.lr:g}) or set train.max_logit_scale. The last checkpoint is kept"
            )
        self.losses.append(loss.detach())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW, with the checkpoint's moments if there is one."""
        config = self.config
        optimizer = torch.optim.AdamW(self.model.parameters(), config.lr, config.betas, weight_decay=config.weight_decay)
        if self.checkpoint is not None:
            restore_optimizer(optimizer, self.model, self.checkpoint.moments)
            self.checkpoint = None  # not needed any more, and as large as the model three times
        return optimizer

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Sets the learning rate of the step."""
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.lr

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Counts the step and limits the scale."""
        self.step += 1
        if self.config.max_logit_scale is not None:
            with torch.no_grad():
                self.model.logit_scale.clamp_(max=self.config.max_logit_scale)

    @property
    def lr(self) -> float:
        """The learning rate of the step that comes next."""
        return learning_rate(self.step, self.total_steps, self.config.lr, self.config.schedule)

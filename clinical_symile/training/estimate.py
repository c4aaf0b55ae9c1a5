"""How long a run will take, by timing one small step."""

from __future__ import annotations

import time

import torch

from clinical_symile.config import TrainConfig
from clinical_symile.contrastive import symile_loss
from clinical_symile.models import SymileModel
from clinical_symile.models.symile_model import INPUT_SHAPES

_ROWS = 4
_FORWARD_SHARE = 1 / 3  # a forward pass costs about a third of forward and backward


def estimate_minutes(model: SymileModel, config: TrainConfig, train: int, val: int, steps: int) -> float | str:
    """Minutes of the whole run on this machine's CPU; the encoders' share, measured on blank admissions.

    Args:
        model: a fresh model.
        config: epochs, batch size and accelerator.
        train: admissions to train on.
        val: admissions to validate on.
        steps: of one epoch.

    Returns:
        A number, or a remark when training would run on a GPU.
    """
    if config.accelerator != "cpu" and torch.cuda.is_available():
        return "known after the first epoch (a GPU was found)"
    blank = {name: torch.rand(_ROWS, *shape) for name, shape in INPUT_SHAPES.items()}
    seconds = []
    for _ in range(2):  # the first step also allocates
        started = time.perf_counter()
        outputs = model(blank)
        scale = outputs.pop("logit_scale")
        symile_loss(outputs, scale, "n_squared").backward()
        seconds.append(time.perf_counter() - started)
    admissions = steps * min(config.batch_size, train) + _FORWARD_SHARE * val
    return round(config.epochs * admissions * min(seconds) / _ROWS / 60, 1)

"""The two validation metrics of an epoch: the loss, and how often the right X-ray is picked out of its candidates."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from clinical_symile.config import TrainConfig
from clinical_symile.models import SymileModel, embed, score
from clinical_symile.training.data import CandidateSets, Rows, TrainingData
from clinical_symile.training.randomness import Purpose, generator
from clinical_symile.types import MODALITIES, Modality


def validate(model: SymileModel, loss: nn.Module, data: TrainingData, config: TrainConfig) -> dict[str, float]:
    """``val_loss`` and, where the split has candidate sets, ``accuracy_10way``.

    Every admission is embedded once, with the centre crop.
    """
    rows = np.unique(np.concatenate([data.val, data.sets.queries, data.sets.candidates.ravel()]))
    batches = (data.make_batch(rows[start : start + config.batch_size], None) for start in range(0, len(rows), config.batch_size))
    embedded = embed(model, batches)
    in_val = torch.from_numpy(np.searchsorted(rows, data.val))
    metrics = {
        "val_loss": batched_loss(
            loss,
            {name: tensor[in_val].to(model.logit_scale.device) for name, tensor in embedded.items()},
            model.logit_scale.detach().exp(),
            config.batch_size,
            generator(config.seed, Purpose.VALIDATION),
        )
    }
    if len(data.sets.queries):
        metrics["accuracy_10way"] = candidate_accuracy(config.loss, embedded, rows, data.sets)
    return metrics


def batched_loss(
    loss: nn.Module, embedded: Mapping[str, Tensor], logit_scale: Tensor, batch_size: int, negatives: torch.Generator
) -> float:
    """The mean loss over nearly equal batches.

    A contrastive loss grows with the logarithm of the batch, so a small last batch would not compare with the others: n rows
    are cut into n // batch_size parts whose sizes differ by at most one.

    Args:
        loss: called as the losses of ``contrastive`` are.
        embedded: modality -> (n, d).
        logit_scale: exponentiated.
        batch_size: no part is smaller, unless there are fewer rows.
        negatives: the same in every epoch, so that epochs compare.
    """
    n = len(next(iter(embedded.values())))
    total = 0.0
    with torch.inference_mode():
        for part in np.array_split(np.arange(n), max(1, n // batch_size)):
            rows = {name: tensor[part[0] : part[-1] + 1] for name, tensor in embedded.items()}
            total += len(part) * loss(rows, logit_scale, negatives).item()
    return total / n


def candidate_accuracy(loss: str, embedded: Mapping[Modality, Tensor], rows: Rows, sets: CandidateSets) -> float:
    """How often the query's own X-ray scores highest among its candidates; a tie counts as the chance to pick it.

    Args:
        loss: ``symile`` or ``clip``; decides the score.
        embedded: modality -> (n, d).
        rows: (n,) the dataset rows of the embeddings, ascending.
        sets: the candidate sets.
    """
    query_modalities = [modality for modality in MODALITIES if modality != "cxr"]
    positions = torch.from_numpy(np.searchsorted(rows, sets.queries))
    candidates = torch.from_numpy(np.searchsorted(rows, sets.candidates))
    scores = score(loss, embedded["cxr"], [embedded[modality][positions] for modality in query_modalities]).gather(1, candidates)
    highest = scores == scores.amax(dim=1, keepdim=True)
    own = highest.gather(1, torch.from_numpy(sets.positives.astype(np.int64))[:, None]).squeeze(1)
    return (own.double() / highest.sum(dim=1)).mean().item()

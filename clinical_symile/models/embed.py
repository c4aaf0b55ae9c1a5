"""Embeddings of many admissions, in evaluation mode and without gradients; and the scores of embeddings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from clinical_symile.contrastive import pairwise_retrieval_scores, retrieval_scores
from clinical_symile.models.symile_model import SymileModel
from clinical_symile.types import MODALITIES, Modality

Loss = Literal["symile", "clip"]


def embed(
    model: SymileModel, batches: Iterable[Mapping[str, Tensor]], modalities: Sequence[Modality] = MODALITIES
) -> dict[Modality, Tensor]:
    """Embeds the chosen modalities of every batch.

    Args:
        model: left in the mode in which it came.
        batches: dicts with at least the chosen modalities; see ``SymileModel.forward``.
        modalities: which ones to embed.

    Returns:
        Modality -> (n, d) float32 on the CPU, in the order of the batches. Without batches, (0, d).

    Raises:
        KeyError: a batch lacks a chosen modality.
    """
    device = model.logit_scale.device
    was_training = model.training
    parts: dict[Modality, list[Tensor]] = {modality: [] for modality in modalities}
    model.eval()
    try:
        with torch.inference_mode():
            for batch in batches:
                outputs = model({modality: batch[modality].to(device) for modality in modalities})
                for modality in modalities:
                    parts[modality].append(outputs[modality].float().cpu())
    finally:
        model.train(was_training)
    # Clones: tensors made in inference mode cannot take part in autograd later.
    empty = torch.empty(0, model.config.embed_dim)
    return {modality: torch.cat([empty, *rows]).clone() for modality, rows in parts.items()}


def score(loss: str, candidates: Tensor, queries: Sequence[Tensor]) -> Tensor:
    """The score by which a model that was trained with ``loss`` ranks candidates.

    Args:
        loss: ``symile`` (multilinear inner product) or ``clip`` (sum of dot products); ``loss`` of the model's metadata.
        candidates: (g, d).
        queries: one tensor (n, d), (1, d) or (d,) per query modality.

    Returns:
        (n, g).

    Raises:
        ValueError: an unknown loss.
    """
    if loss == "symile":
        return retrieval_scores(candidates, queries)
    if loss == "clip":
        return pairwise_retrieval_scores(candidates, queries)
    raise ValueError(f"unknown loss {loss!r}; a model is trained with 'symile' or 'clip'")

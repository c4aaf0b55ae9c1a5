"""The pairwise baseline: CLIP's loss on every pair of modalities, and the score that goes with it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clinical_symile.contrastive.mip import check_query
from clinical_symile.contrastive.representations import Representations
from clinical_symile.contrastive.symile_loss import check_batch

Reduction = Literal["sum", "mean"]


def pairwise_clip_loss(representations: Representations, logit_scale: Tensor | float, reduction: Reduction = "sum") -> Tensor:
    """CLIP's symmetric InfoNCE loss, over all pairs of modalities.

        loss = sum_{a<b} ( CE(s a b^T, diagonal) + CE(s b a^T, diagonal) ) / 2

    Args:
        representations: M >= 2 tensors, each (n, d), in a sequence or a mapping.
        logit_scale: the scale s itself, not its logarithm.
        reduction: ``"sum"`` of the pairs, as the authors of Symile train CLIP, or their ``"mean"``.

    Returns:
        Scalar, float32 or float64.

    Raises:
        ValueError: an unknown ``reduction``, a batch of fewer than 2 rows, or tensors that do not fit together.

    Source: Radford et al. 2021, figure 3; Saporta et al. 2024, baseline.
    """
    if reduction not in get_args(Reduction):
        raise ValueError(f"reduction={reduction!r}; choose 'sum' or 'mean'")
    tensors = check_batch(representations)
    with torch.autocast(tensors[0].device.type, enabled=False):
        labels = torch.arange(len(tensors[0]), device=tensors[0].device)
        losses = []
        for a, b in combinations(tensors, 2):
            logits = logit_scale * (a @ b.T)
            losses.append((F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2)
        pairs = torch.stack(losses)
        return pairs.sum() if reduction == "sum" else pairs.mean()


def pairwise_retrieval_scores(candidates: Tensor, queries: Sequence[Tensor]) -> Tensor:
    """The summed dot products of every candidate with each part of every query: ``scores[i, j] = sum_k q_k[i] . candidates[j]``.

    The dot products among the query's own parts are the same for all candidates and are left out.

    Args:
        candidates: (g, d).
        queries: one tensor per query modality, (n, d), (1, d) or (d,).

    Returns:
        (n, g), float32 or float64.

    Raises:
        ValueError: no query, or shapes, dtypes or devices that do not match.
    """
    gallery, *parts = check_query(candidates, queries)
    return torch.stack(parts).sum(dim=0) @ gallery.T


class PairwiseCLIPLoss(nn.Module):
    """``pairwise_clip_loss`` as a module, called like ``SymileLoss``.

    Args:
        reduction: ``"sum"`` (as the authors) or ``"mean"`` over the pairs.
    """

    def __init__(self, reduction: Reduction = "sum") -> None:
        super().__init__()
        if reduction not in get_args(Reduction):
            raise ValueError(f"reduction={reduction!r}; choose 'sum' or 'mean'")
        self.reduction: Reduction = reduction

    def forward(
        self, representations: Representations, logit_scale: Tensor | float, generator: torch.Generator | None = None
    ) -> Tensor:
        """Scalar loss of one batch; ``generator`` is accepted because ``SymileLoss`` takes one, and is not used."""
        return pairwise_clip_loss(representations, logit_scale, self.reduction)

    def extra_repr(self) -> str:
        """Shown when the module is printed."""
        return f"reduction={self.reduction!r}"

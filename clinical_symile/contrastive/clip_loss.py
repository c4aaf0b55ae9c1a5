"""The pairwise baseline: CLIP's loss on every pair of modalities, and the score that goes with it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clinical_symile.contrastive.loss_batch import LossBatch, loss_batch
from clinical_symile.contrastive.mip import check_query
from clinical_symile.contrastive.representations import Presence, Representations

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

Reduction = Literal["sum", "mean"]


def pairwise_clip_loss(
    representations: Representations,
    logit_scale: Tensor | float,
    reduction: Reduction = "sum",
    *,
    present: Presence | None = None,
    gather: bool = False,
    process_group: ProcessGroup | None = None,
) -> Tensor:
    """CLIP's symmetric InfoNCE loss, over all pairs of modalities.

        loss = sum_{a<b} ( CE(s a b^T, diagonal) + CE(s b a^T, diagonal) ) / 2

    Args:
        representations: M >= 2 tensors, each (n, d), in a sequence or a mapping.
        logit_scale: the scale s itself, not its logarithm.
        reduction: ``"sum"`` of the pairs, as the authors of Symile train CLIP, or their ``"mean"``.
        present: which rows have which modality. A row counts in the pairs of which it has both; a row with one of them is a
            negative; a pair that no row has costs 0.
        gather: take the negatives from the batches of all processes; as in ``symile_loss``.
        process_group: of these processes; ``None`` for the default one.

    Returns:
        Scalar, float32 or float64.

    Raises:
        ValueError: an unknown ``reduction``, a batch of fewer than 2 rows, or tensors that do not fit together.

    Source: Radford et al. 2021, figure 3; Saporta et al. 2024, baseline.
    """
    if reduction not in get_args(Reduction):
        raise ValueError(f"reduction={reduction!r}; choose 'sum' or 'mean'")
    with loss_batch(representations, logit_scale, present, gather=gather, process_group=process_group) as batch:
        pairs = pairwise_losses(batch)
        return pairs.sum() if reduction == "sum" else pairs.mean()


def pairwise_losses(batch: LossBatch) -> Tensor:
    """CLIP's loss of every pair of modalities, (M (M - 1) / 2,), in the order of ``itertools.combinations``."""
    local = []
    for a, b in combinations(range(len(batch.tensors)), 2):
        rows = batch.rows_with(a, b)
        local.append(_local_sum(batch, a, b, rows) / (2 * max(1, len(rows))))
    return batch.mean_of(torch.stack(local), 1)


def _local_sum(batch: LossBatch, a: int, b: int, rows: Tensor) -> Tensor:
    """Both cross-entropies of this process's anchors among ``rows``, which have both modalities, added up."""
    first, second, first_rows, second_rows = batch.tensors[a], batch.tensors[b], rows, rows
    if batch.present is not None:
        first, second = first[batch.present[a]], second[batch.present[b]]
        first_rows, second_rows = (batch.present[m].cumsum(0)[rows] - 1 for m in (a, b))
    if batch.ranks == 1:
        # One matrix serves both directions.
        logits = batch.logit_scale * (first @ second.T)
        by_row, by_column = logits, logits.T
        if batch.present is not None:
            by_row, by_column = by_row[first_rows], by_column[second_rows]
    else:
        mine = batch.anchors_among(rows)
        by_row = batch.logit_scale * (first[first_rows[mine]] @ second.T)
        by_column = batch.logit_scale * (second[second_rows[mine]] @ first.T)
        first_rows, second_rows = first_rows[mine], second_rows[mine]
    return F.cross_entropy(by_row, second_rows, reduction="sum") + F.cross_entropy(by_column, first_rows, reduction="sum")


def pairwise_retrieval_scores(candidates: Tensor, queries: Sequence[Tensor], present: Sequence[Tensor] | None = None) -> Tensor:
    """The summed dot products of every candidate with each part of every query: ``scores[i, j] = sum_k q_k[i] . candidates[j]``.

    The dot products among the query's own parts are the same for all candidates and are left out.

    Args:
        candidates: (g, d).
        queries: one tensor per query modality, (n, d), (1, d) or (d,).
        present: which rows of each query tensor are there; as in ``retrieval_scores``.

    Returns:
        (n, g), float32 or float64.

    Raises:
        ValueError: no query, a query row without any modality, or shapes, dtypes or devices that do not match.
    """
    gallery, *parts = check_query(candidates, queries, present, absent_as=0.0)
    with torch.autocast(gallery.device.type, enabled=False):
        return torch.stack(parts).sum(dim=0) @ gallery.T


class PairwiseCLIPLoss(nn.Module):
    """``pairwise_clip_loss`` as a module, called like ``SymileLoss``.

    Args:
        reduction: ``"sum"`` (as the authors) or ``"mean"`` over the pairs.
        gather: take the negatives from the batches of all processes.
        process_group: of these processes; ``None`` for the default one.
    """

    def __init__(self, reduction: Reduction = "sum", *, gather: bool = False, process_group: ProcessGroup | None = None) -> None:
        super().__init__()
        if reduction not in get_args(Reduction):
            raise ValueError(f"reduction={reduction!r}; choose 'sum' or 'mean'")
        self.reduction: Reduction = reduction
        self.gather = gather
        self.process_group = process_group

    def forward(
        self,
        representations: Representations,
        logit_scale: Tensor | float,
        generator: torch.Generator | None = None,
        *,
        present: Presence | None = None,
    ) -> Tensor:
        """Scalar loss of one batch; ``generator`` is accepted because ``SymileLoss`` takes one, and is not used."""
        return pairwise_clip_loss(
            representations,
            logit_scale,
            self.reduction,
            present=present,
            gather=self.gather,
            process_group=self.process_group,
        )

    def extra_repr(self) -> str:
        """Shown when the module is printed."""
        return f"reduction={self.reduction!r}"

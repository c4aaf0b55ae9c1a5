"""The O(N) loss: each positive tuple among as many tuples as there are positives, drawn at random."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from clinical_symile.contrastive.mip import product


def sampled_tuples_losses(
    tensors: Sequence[Tensor],
    logit_scale: Tensor,
    negatives: Sequence[Sequence[Tensor]],
    *,
    positives: Tensor | None = None,
    anchors: slice = slice(None),
    exclude_own: bool = False,
) -> Tensor:
    """The sum over anchors of the cross-entropy of the positive tuple among the drawn ones, for each anchor modality.

    Args:
        tensors: M tensors of one dtype, each (n, d).
        logit_scale: scalar, multiplied with the products.
        negatives: for each anchor modality, the rows (p,) of each non-anchor modality, in the order of ``tensors``.
            Column k holds the tuple of the k-th entries; positive i meets every column but the i-th, whose place it takes.
        positives: rows (p,) of the complete tuples; ``None`` for all rows.
        anchors: which of the positives are compared with the columns.
        exclude_own: leave a column out for the anchor whose own positive tuple it is; needed where the draw allows that.

    Returns:
        (M,).
    """
    rows = torch.arange(len(tensors[0]), device=tensors[0].device) if positives is None else positives
    complete = list(tensors) if positives is None else [tensor[rows] for tensor in tensors]
    labels = torch.arange(len(rows), device=rows.device)[anchors]
    positive_logits = logit_scale * product([tensor[anchors] for tensor in complete]).sum(dim=1)
    losses = []
    for position, (anchor, drawn) in enumerate(zip(complete, negatives, strict=True)):
        indices = [index.to(rows.device) for index in drawn]
        others = [tensor for other, tensor in enumerate(tensors) if other != position]
        columns = product([other[index] for other, index in zip(others, indices, strict=True)])
        logits = logit_scale * (anchor[anchors] @ columns.T)
        if exclude_own:
            own = torch.stack([index == rows[anchors][:, None] for index in indices]).all(dim=0)
            logits = logits.masked_fill(own, -torch.inf)
        logits = logits.scatter(1, labels[:, None], positive_logits[:, None])
        losses.append(F.cross_entropy(logits, labels, reduction="sum"))
    return torch.stack(losses)


def draw_negatives(n: int, modalities: int, generator: torch.Generator | None = None) -> list[Tensor]:
    """Permutations whose columns are negative tuples: a positive tuple never appears among the negatives of its row.

    Two independent permutations agree somewhere in about 64 % of batches; such a column is a positive tuple, and the row
    it belongs to would be taught to push itself away. Here the second permutation is the first one rolled by a random
    number of places, so no column names the same row twice. With one non-anchor modality (M = 2) the only choice is the
    identity, which gives the InfoNCE loss of CLIP.

    Args:
        n: rows of the batch, at least 2.
        modalities: number of non-anchor modalities, at least 1.
        generator: source of randomness, on the CPU.

    Returns:
        ``modalities`` permutations, each (n,) int64, on the CPU.
    """
    if modalities == 1:
        return [torch.arange(n)]
    first = torch.randperm(n, generator=generator)
    shift = int(torch.randint(1, n, (), generator=generator))
    return [first, first.roll(shift), *(torch.randperm(n, generator=generator) for _ in range(modalities - 2))]


def draw_present_negatives(present: Sequence[Tensor], count: int, generator: torch.Generator | None = None) -> list[Tensor]:
    """``count`` rows of each modality among those that have it, without replacement; a column may be a positive tuple.

    Args:
        present: of each non-anchor modality, (n,) bool with at least ``count`` times True.
        count: how many.
        generator: source of randomness, on the CPU.

    Returns:
        (count,) int64 per modality, on the CPU.
    """
    rows = [torch.nonzero(flag.cpu()).flatten() for flag in present]
    return [index[torch.randperm(len(index), generator=generator)[:count]] for index in rows]

"""The Symile loss: a function, and a thin module around it that replaces ``symile.Symile`` of PyPI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clinical_symile.contrastive.all_tuples import BLOCK_ELEMENTS, all_tuples_loss
from clinical_symile.contrastive.mip import product
from clinical_symile.contrastive.representations import Representations, as_representations

NegativeSampling = Literal["n", "n_squared"]


def symile_loss(
    representations: Representations,
    logit_scale: Tensor | float,
    negative_sampling: NegativeSampling = "n",
    *,
    generator: torch.Generator | None = None,
    block_elements: int = BLOCK_ELEMENTS,
) -> Tensor:
    """The mean over anchors of the cross-entropy that picks the positive tuple among negatives.

    For anchor modality a, row i and the set J_i of non-anchor tuples that are compared (the positive one included),

        loss = - 1/(M N) sum_a sum_i log( exp(s MIP(a_i, positive_i)) / sum_{j in J_i} exp(s MIP(a_i, others_j)) )

    Nothing is normalised here: whether representations are unit vectors or LayerNorm outputs is the model's business.

    Args:
        representations: M >= 2 tensors, each (n, d), in a sequence or a mapping.
        logit_scale: the scale s itself, not its logarithm.
        negative_sampling: ``"n"``: N - 1 negatives per row, drawn by ``draw_negatives``; ``"n_squared"``: all
            N^(M-1) - 1 of them, exact, for any M.
        generator: for ``"n"``; ``None`` uses torch's default generator, as ``torch.randperm`` does.
        block_elements: for ``"n_squared"``; memory against speed, see ``all_tuples``.

    Returns:
        Scalar, float32 or float64.

    Raises:
        ValueError: an unknown ``negative_sampling``, a batch of fewer than 2 rows, or tensors that do not fit together.

    Source: Saporta et al. 2024, https://arxiv.org/abs/2411.01053, section 3.
    """
    if negative_sampling not in get_args(NegativeSampling):
        raise ValueError(f"negative_sampling={negative_sampling!r}; choose 'n' or 'n_squared'")
    # Autocast would turn the products back to half precision.
    tensors = check_batch(representations)
    with torch.autocast(tensors[0].device.type, enabled=False):
        scale = torch.as_tensor(logit_scale, dtype=tensors[0].dtype, device=tensors[0].device).reshape(())
        if negative_sampling == "n_squared":
            return all_tuples_loss(tensors, scale, block_elements=block_elements)
        negatives = [draw_negatives(len(tensors[0]), len(tensors) - 1, generator) for _ in tensors]
        return sampled_tuples_loss(tensors, scale, negatives)


def check_batch(representations: Representations) -> list[Tensor]:
    """The representations as tensors that a contrastive loss can use.

    Raises:
        ValueError: they do not fit together, or there are no negatives.
    """
    tensors = as_representations(representations)
    if len(tensors[0]) < 2:
        raise ValueError(f"a contrastive loss needs a batch of at least 2 rows, but got {len(tensors[0])}")
    return tensors


def sampled_tuples_loss(tensors: Sequence[Tensor], logit_scale: Tensor, negatives: Sequence[Sequence[Tensor]]) -> Tensor:
    """The O(N) loss for given negatives.

    Args:
        tensors: M tensors of one dtype, each (n, d).
        logit_scale: scalar, exponentiated.
        negatives: for each anchor, one permutation (n,) per non-anchor modality, in the order of ``tensors``. Column k
            holds the tuple of the k-th entries; row i meets every column but its own, which the positive tuple takes.

    Returns:
        Scalar loss.
    """
    n = len(tensors[0])
    labels = torch.arange(n, device=tensors[0].device)
    positives = product(tensors).sum(dim=1)
    losses = []
    for position, (anchor, rows) in enumerate(zip(tensors, negatives, strict=True)):
        others = [tensor for other, tensor in enumerate(tensors) if other != position]
        columns = product([other[index.to(other.device)] for other, index in zip(others, rows, strict=True)])
        logits = (anchor @ columns.T).diagonal_scatter(positives)
        losses.append(F.cross_entropy(logit_scale * logits, labels))
    return torch.stack(losses).mean()


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


def tuples_per_row(n: int, modalities: int, negative_sampling: NegativeSampling) -> int:
    """How many tuples each row compares, the positive included: the number whose logarithm bounds the information.

    Args:
        n: rows of the batch.
        modalities: M.
        negative_sampling: as in ``symile_loss``.
    """
    return n if negative_sampling == "n" else n ** (modalities - 1)


class SymileLoss(nn.Module):
    """``symile_loss`` as a module; takes the arguments of ``symile.Symile`` 0.1.0.

    Args:
        negative_sampling: ``"n"`` or ``"n_squared"``.

    Example:
        >>> loss = SymileLoss(negative_sampling="n_squared")
        >>> r = torch.zeros(4, 8)
        >>> loss([r, r, r], logit_scale=1.0)  # nothing to tell 4 x 4 tuples apart: log 16
        tensor(2.7726)
    """

    def __init__(self, negative_sampling: NegativeSampling = "n") -> None:
        super().__init__()
        if negative_sampling not in get_args(NegativeSampling):
            raise ValueError(f"negative_sampling={negative_sampling!r}; choose 'n' or 'n_squared'")
        self.negative_sampling: NegativeSampling = negative_sampling

    def forward(
        self, representations: Representations, logit_scale: Tensor | float, generator: torch.Generator | None = None
    ) -> Tensor:
        """Scalar loss of one batch; see ``symile_loss``."""
        return symile_loss(representations, logit_scale, self.negative_sampling, generator=generator)

    def extra_repr(self) -> str:
        """Shown when the module is printed."""
        return f"negative_sampling={self.negative_sampling!r}"

"""GRAM: modalities fit together when the parallelotope that their unit vectors span has a small volume.

With G the Gram matrix of the vectors, ``V = sqrt(det G)``. For a candidate c and a query whose vectors have the Gram matrix Q
and the dot products b with c, the Schur complement gives

    V^2 = det(Q) |c|^2 - b^T adj(Q) b

for all candidates from one matrix product per query modality. The adjugate, unlike the inverse, is a polynomial: it exists,
with finite gradients, also for vectors that depend on each other, where the volume is 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from clinical_symile.contrastive.anchored_loss import AnchoredLoss
from clinical_symile.contrastive.mip import check_query
from clinical_symile.contrastive.representations import Representations, as_representations
from clinical_symile.contrastive.unit_vectors import to_unit_vectors


def gram_volume(representations: Representations) -> Tensor:
    """The volume that the unit vectors of each row span: ``V[i] = sqrt(det G_i)``, ``G_i[a, b] = r_a[i] . r_b[i]``.

    0 when the vectors depend on each other, 1 when they are orthogonal. Rows are normalised here.

    Args:
        representations: M >= 2 tensors, each (n, d).

    Returns:
        (n,) in [0, 1], float32 or float64.

    Raises:
        ValueError: shapes, dtypes or devices do not match.

    Example:
        >>> a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]])
        >>> gram_volume([a, b])  # the sine of 45 degrees
        tensor([0.7071])

    Source: Cicchetti et al. 2025, https://arxiv.org/abs/2412.11959.
    """
    tensors = as_representations(representations)
    with torch.autocast(tensors[0].device.type, enabled=False):
        determinant, _ = _determinant_and_adjugate(_gram([to_unit_vectors(tensor) for tensor in tensors]))
        return safe_sqrt(determinant)


def gram_retrieval_scores(candidates: Tensor, queries: Sequence[Tensor]) -> Tensor:
    """Minus the volume that each candidate spans with each query; the smallest volume is the best fit.

    Args:
        candidates: (g, d), normalised here.
        queries: one tensor per query modality, (n, d), (1, d) or (d,), normalised here. Any subset of the modalities.

    Returns:
        (n, g), float32 or float64.

    Raises:
        ValueError: no query, or shapes, dtypes or devices that do not match.
    """
    gallery, *parts = check_query(candidates, queries)
    with torch.autocast(gallery.device.type, enabled=False):
        return _scores(to_unit_vectors(gallery), [to_unit_vectors(part) for part in parts])


class GramLoss(AnchoredLoss):
    """Cross-entropy of the volumes, ``logits = -s V`` with s = 1 / tau, between an anchor modality and the tuples of the others.

    Called like ``SymileLoss``. See ``anchored_loss`` for the formula and for samples that lack a modality.

    Args:
        anchor: key or position of the anchor modality (in the paper, text); ``None`` for the mean over all in turn.
        label_smoothing: 0.1 in the paper's code.
        gather: compare with the rows of the other processes too.
        process_group: of ``gather``; ``None`` for all processes.

    Source: Cicchetti et al. 2025, https://arxiv.org/abs/2412.11959; tau starts at 0.07.
    """

    def scores(self, candidates: Tensor, queries: Sequence[Tensor]) -> Tensor:
        """Minus the volumes, (n, g)."""
        return _scores(candidates, queries)


def safe_sqrt(squared: Tensor) -> Tensor:
    """The square root, 0 below 0, with a slope that stays finite at 0.

    Below the square root of the machine's precision, where a squared volume is rounding error anyway, a parabola with the
    same value and slope leads to 0: slope 3 / (2 e) instead of infinity, e the root of the threshold.
    """
    threshold = torch.finfo(squared.dtype).eps
    root = threshold**0.5
    clamped = squared.clamp_min(0)
    small = clamped * (1.5 / root) - clamped**2 * (0.5 / (root * threshold))
    return torch.where(clamped < threshold, small, clamped.clamp_min(threshold).sqrt())


def _scores(candidates: Tensor, queries: Sequence[Tensor]) -> Tensor:
    """Minus the volume, (n, g), from unit vectors."""
    determinant, adjugate = _determinant_and_adjugate(_gram(queries))
    dots = [query @ candidates.T for query in queries]
    squared = determinant[:, None] * candidates.pow(2).sum(dim=1)
    for p, b in enumerate(dots):
        squared = squared - adjugate[:, p, p, None] * b**2
        for q in range(p):
            squared = squared - 2 * adjugate[:, p, q, None] * b * dots[q]
    return -safe_sqrt(squared)


def _gram(tensors: Sequence[Tensor]) -> Tensor:
    """(n, k, k) of k tensors (n, d)."""
    stacked = torch.stack(list(tensors), dim=1)
    return stacked @ stacked.transpose(1, 2)


def _determinant_and_adjugate(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Determinants (n,) and adjugates (n, k, k) of (n, k, k), by the recursion of Faddeev and LeVerrier.

    k products of small matrices and nothing to divide by, so that singular matrices have finite gradients.
    """
    k = matrices.shape[-1]
    identity = torch.eye(k, dtype=matrices.dtype, device=matrices.device)
    step, coefficient = identity.expand_as(matrices), matrices.new_ones(len(matrices))
    for order in range(1, k + 1):
        if order > 1:
            step = matrices @ step + coefficient[:, None, None] * identity
        coefficient = -(matrices * step.transpose(1, 2)).sum(dim=(1, 2)) / order
    sign = -1 if k % 2 else 1
    return sign * coefficient, -sign * step

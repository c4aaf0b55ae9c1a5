"""TRIANGLE: three modalities fit together when the triangle between the tips of their unit vectors has a small area.

With the sides u = a - b and v = a - c,

    area = sqrt(|u|^2 |v|^2 - (u . v)^2) / 2

The authors' code leaves the square root out and keeps the half, (|u|^2 |v|^2 - (u . v)^2) / 2: twice the squared area, which is
the default here too. Exactly three modalities.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clinical_symile.contrastive.anchored_loss import AnchoredLoss
from clinical_symile.contrastive.gram import safe_sqrt
from clinical_symile.contrastive.mip import check_query
from clinical_symile.contrastive.representations import Presence, Representations, as_representations
from clinical_symile.contrastive.unit_vectors import to_unit_vectors

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def triangle_area(representations: Representations, *, squared: bool = True) -> Tensor:
    """The area between the tips of the three unit vectors of each row. Rows are normalised here.

    Args:
        representations: 3 tensors, each (n, d).
        squared: twice the squared area, as the authors' code; False for the area.

    Returns:
        (n,), float32 or float64.

    Raises:
        ValueError: not three modalities, or shapes, dtypes or devices that do not match.

    Example:
        >>> a, b, c = torch.eye(3)[:, None]
        >>> triangle_area([a, b, c], squared=False)  # equilateral, side sqrt(2)
        tensor([0.8660])

    Source: Cicchetti et al. 2025, https://arxiv.org/abs/2509.24734.
    """
    a, b, c = _three(as_representations(representations))
    with torch.autocast(a.device.type, enabled=False):
        a, b, c = (to_unit_vectors(tensor) for tensor in (a, b, c))
        u, v = a - b, a - c
        return _area((u * u).sum(dim=1) * (v * v).sum(dim=1) - (u * v).sum(dim=1) ** 2, squared)


def triangle_retrieval_scores(candidates: Tensor, queries: Sequence[Tensor], *, squared: bool = True) -> Tensor:
    """Minus the area of each candidate with each query; the smallest area is the best fit.

    Args:
        candidates: (g, d), normalised here.
        queries: two tensors, (n, d), (1, d) or (d,), normalised here.
        squared: twice the squared area, as the authors' code; False for the area. The order is the same.

    Returns:
        (n, g), float32 or float64.

    Raises:
        ValueError: not two query modalities, or shapes, dtypes or devices that do not match.
    """
    gallery, *parts = check_query(candidates, queries)
    with torch.autocast(gallery.device.type, enabled=False):
        return _scores(to_unit_vectors(gallery), [to_unit_vectors(part) for part in parts], squared)


class TriangleLoss(AnchoredLoss):
    """Cross-entropy of the areas, ``logits = -s area`` with s = 1 / tau, between an anchor modality and pairs of the other two.

    Called like ``SymileLoss``. See ``anchored_loss`` for the formula and for samples that lack a modality.

    Args:
        anchor: key or position of the anchor modality (in the paper, text); ``None`` for the mean over all in turn.
        label_smoothing: 0.1 in the paper's code.
        squared: twice the squared area, as the authors' code; False for the area.
        gather: compare with the rows of the other processes too.
        process_group: of ``gather``; ``None`` for all processes.

    Source: Cicchetti et al. 2025, https://arxiv.org/abs/2509.24734; tau is 0.07.
    """

    def __init__(
        self,
        anchor: int | str | None = 0,
        label_smoothing: float = 0.1,
        *,
        squared: bool = True,
        gather: bool = False,
        process_group: ProcessGroup | None = None,
    ) -> None:
        super().__init__(anchor, label_smoothing, gather=gather, process_group=process_group)
        self.squared = squared

    def scores(self, candidates: Tensor, queries: Sequence[Tensor]) -> Tensor:
        """Minus the areas, (n, g)."""
        return _scores(candidates, queries, self.squared)

    def forward(
        self,
        representations: Representations,
        logit_scale: Tensor | float,
        generator: torch.Generator | None = None,
        *,
        present: Presence | None = None,
    ) -> Tensor:
        """Scalar loss of one batch; ``generator`` is accepted because ``SymileLoss`` takes one, and is not used."""
        _three(representations)
        return super().forward(representations, logit_scale, generator, present=present)

    def extra_repr(self) -> str:
        """Shown when the module is printed."""
        return f"{super().extra_repr()}, squared={self.squared}"


def _three(representations: Representations) -> list[Tensor]:
    """The three tensors.

    Raises:
        ValueError: there are more or fewer.
    """
    if len(representations) != 3:
        raise ValueError(f"a triangle has three corners, but got {len(representations)} modalities; GRAM takes any number")
    return list(representations.values() if hasattr(representations, "values") else representations)


def _scores(candidates: Tensor, queries: Sequence[Tensor], squared: bool) -> Tensor:
    """Minus the area, (n, g), from unit vectors."""
    if len(queries) != 2:
        raise ValueError(f"a triangle needs two query modalities beside the candidate, but got {len(queries)}")
    a, b = queries
    side = a - b
    to_a = a.pow(2).sum(dim=1, keepdim=True) + candidates.pow(2).sum(dim=1) - 2 * (a @ candidates.T)  # |a - c|^2
    along = (side * a).sum(dim=1, keepdim=True) - side @ candidates.T  # (a - b) . (a - c)
    return -_area(side.pow(2).sum(dim=1, keepdim=True) * to_a - along**2, squared)


def _area(quadrupled: Tensor, squared: bool) -> Tensor:
    """From four times the squared area: twice the squared area, or the area."""
    return quadrupled.clamp_min(0) / 2 if squared else safe_sqrt(quadrupled) / 2

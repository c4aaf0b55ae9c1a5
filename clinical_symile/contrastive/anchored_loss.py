"""The symmetric cross-entropy of one modality against tuples of all others: what GRAM and TRIANGLE train with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clinical_symile.contrastive.loss_batch import LossBatch, loss_batch
from clinical_symile.contrastive.representations import Presence, Representations
from clinical_symile.contrastive.unit_vectors import to_unit_vectors

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

Scores = Callable[[Tensor, Sequence[Tensor]], Tensor]
"""Unit vectors of candidates (g, d) and of each query modality (n, d) to scores (n, g), higher is better."""


def anchored_loss(batch: LossBatch, scores: Scores, anchors: Sequence[int], label_smoothing: float) -> Tensor:
    """Half the cross-entropy of finding each anchor's own tuple, and half that of finding each tuple's own anchor.

    With ``V[i, j]`` the score of tuple i (row i of all other modalities) with anchor j, and s the scale,

        loss = ( CE(s V, diagonal) + CE(s V^T, diagonal) ) / 2

    Args:
        batch: M >= 2 modalities; rows are normalised here. A row that has all is a positive; an anchor counts where it is
            present, a tuple where it is whole.
        scores: the geometry.
        anchors: positions of the anchor modalities; the loss is the mean over them.
        label_smoothing: share of the target that is spread over all candidates.

    Returns:
        Scalar, float32 or float64; 0 with gradients of 0 when no row is complete.
    """
    tensors = batch.tensors
    flags = batch.present or [torch.ones_like(tensors[0][:, 0], dtype=torch.bool)] * len(tensors)
    positives = batch.rows_with()
    if len(positives) == 0:
        return batch.nothing()
    own = positives[batch.anchors_among(positives)]
    mine = torch.zeros_like(flags[0]).index_fill(0, own, True)
    units = [to_unit_vectors(tensor, flag) for tensor, flag in zip(tensors, flags, strict=True)]
    losses = []
    for position in anchors:
        whole = torch.stack([flag for other, flag in enumerate(flags) if other != position]).all(dim=0)
        others = [unit for other, unit in enumerate(units) if other != position]
        # Rows are chosen rather than masked: label smoothing would spread its share over logits of minus infinity.
        for of_tuples in (True, False):
            queries, candidates = (mine, flags[position]) if of_tuples else (whole, mine)
            logits = batch.logit_scale * scores(units[position][candidates], [other[queries] for other in others])
            labels = ((flags[position] if of_tuples else whole).cumsum(dim=0) - 1)[own]
            losses.append(
                F.cross_entropy(logits if of_tuples else logits.T, labels, reduction="sum", label_smoothing=label_smoothing)
            )
    return batch.mean_of(torch.stack(losses).sum(), len(losses) * len(positives))


def _positions(representations: Representations, anchor: int | str | None) -> list[int]:
    """The anchors' places among the tensors."""
    if anchor is None:
        return list(range(len(representations)))
    keys: list[int | str] = [*representations] if isinstance(representations, Mapping) else [*range(len(representations))]
    if anchor in keys:
        return [keys.index(anchor)]
    if isinstance(anchor, int) and 0 <= anchor < len(keys):
        return [anchor]
    raise ValueError(f"anchor={anchor!r}; choose one of {keys}, or None for each in turn")


class AnchoredLoss(nn.Module, ABC):
    """What the modules of GRAM and TRIANGLE share: arguments, and the exchange between processes.

    Args:
        anchor: key or position of the anchor modality; ``None`` for the mean over all modalities in turn.
        label_smoothing: share of the target that is spread over all candidates.
        gather: compare with the rows of the other processes too. Every process must call it together, with equally many rows.
        process_group: of ``gather``; ``None`` for all processes.

    Raises:
        ValueError: ``label_smoothing`` is not in [0, 1).
    """

    def __init__(
        self,
        anchor: int | str | None = 0,
        label_smoothing: float = 0.1,
        *,
        gather: bool = False,
        process_group: ProcessGroup | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing={label_smoothing}; expected a share in [0, 1)")
        self.anchor, self.label_smoothing = anchor, label_smoothing
        self.gather, self.process_group = gather, process_group

    @abstractmethod
    def scores(self, candidates: Tensor, queries: Sequence[Tensor]) -> Tensor:
        """The geometry: (g, d) and k times (n, d) of unit vectors to (n, g)."""

    def forward(
        self,
        representations: Representations,
        logit_scale: Tensor | float,
        generator: torch.Generator | None = None,
        *,
        present: Presence | None = None,
    ) -> Tensor:
        """Scalar loss of one batch; ``generator`` is accepted because ``SymileLoss`` takes one, and is not used."""
        anchors = _positions(representations, self.anchor)
        with loss_batch(representations, logit_scale, present, gather=self.gather, process_group=self.process_group) as batch:
            return anchored_loss(batch, self.scores, anchors, self.label_smoothing)

    def extra_repr(self) -> str:
        """Shown when the module is printed."""
        return f"anchor={self.anchor!r}, label_smoothing={self.label_smoothing}, gather={self.gather}"

"""The symmetric cross-entropy of one modality against tuples of all others: what GRAM and TRIANGLE train with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clinical_symile.contrastive.gather import gather_batch, mean_over_ranks
from clinical_symile.contrastive.representations import Presence, Representations, as_presence, as_representations
from clinical_symile.contrastive.unit_vectors import to_unit_vectors

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

Scores = Callable[[Tensor, Sequence[Tensor]], Tensor]
"""Unit vectors of candidates (g, d) and of each query modality (n, d) to scores (n, g), higher is better."""


def anchored_loss(
    representations: Representations,
    logit_scale: Tensor | float,
    scores: Scores,
    anchor: int | str | None,
    label_smoothing: float,
    *,
    present: Presence | None = None,
    rows: range | None = None,
) -> Tensor:
    """Half the cross-entropy of finding each anchor's own tuple, and half that of finding each tuple's own anchor.

    With ``V[i, j]`` the score of tuple i (row i of all other modalities) with anchor j, and s the scale,

        loss = ( CE(s V, diagonal) + CE(s V^T, diagonal) ) / 2

    Args:
        representations: M >= 2 tensors, each (n, d), in a sequence or a mapping; normalised here.
        logit_scale: the scale s itself, 1 / tau.
        scores: the geometry.
        anchor: key or position of the anchor modality; ``None`` for the mean over all modalities in turn.
        label_smoothing: share of the target that is spread over all candidates.
        present: (n,) bool per modality. A row that has all is a positive; an anchor counts where it is present, a tuple
            where it is whole.
        rows: which rows of the batch are positives, compared with all rows; ``None``: all. As in ``gated_symile_loss``.

    Returns:
        Scalar, float32 or float64; 0 with gradients of 0 when no row is complete.

    Raises:
        ValueError: fewer than 2 rows, no such anchor, ``label_smoothing`` outside [0, 1), ``rows`` outside the batch, or
            tensors that do not fit together.
    """
    tensors = as_representations(representations)
    n, device = len(tensors[0]), tensors[0].device
    anchors = _positions(representations, anchor)
    if n < 2:
        raise ValueError(f"a contrastive loss needs a batch of at least 2 rows, but got {n}")
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing={label_smoothing}; expected a share in [0, 1)")
    own = range(n) if rows is None else rows
    if own.step != 1 or not 0 <= own.start < own.stop <= n:
        raise ValueError(f"rows={rows}; expected a range of rows within the batch of {n}")
    flags = as_presence(representations, present) or [torch.ones(n, dtype=torch.bool, device=device)] * len(tensors)
    with torch.autocast(device.type, enabled=False):
        scale = torch.as_tensor(logit_scale, dtype=tensors[0].dtype, device=device)
        units = [to_unit_vectors(tensor, flag) for tensor, flag in zip(tensors, flags, strict=True)]
        complete = torch.stack(flags).all(dim=0)
        mine = complete.clone()
        mine[: own.start], mine[own.stop :] = False, False
        if not mine.any():
            return torch.stack(units).sum() * 0  # still part of the graph: backward gives gradients of 0
        losses = []
        for position in anchors:
            whole = torch.stack([flag for other, flag in enumerate(flags) if other != position]).all(dim=0)
            others = [unit for other, unit in enumerate(units) if other != position]
            # Rows are chosen rather than masked: label smoothing would spread its share over logits of minus infinity.
            for of_tuples in (True, False):
                queries, candidates = (mine, flags[position]) if of_tuples else (whole, mine)
                logits = scale * scores(units[position][candidates], [other[queries] for other in others])
                labels = ((flags[position] if of_tuples else whole).cumsum(dim=0) - 1)[mine]
                losses.append(
                    F.cross_entropy(logits if of_tuples else logits.T, labels, reduction="sum", label_smoothing=label_smoothing)
                )
        share = n / len(own)  # 1, or the number of processes
        return torch.stack(losses).mean() * share / complete.sum().clamp_min(1)


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


class AnchoredLoss(nn.Module):
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

    def scores(self, candidates: Tensor, queries: Sequence[Tensor]) -> Tensor:
        """The geometry: (g, d) and k times (n, d) of unit vectors to (n, g)."""
        raise NotImplementedError

    def forward(
        self,
        representations: Representations,
        logit_scale: Tensor | float,
        generator: torch.Generator | None = None,
        *,
        present: Presence | None = None,
    ) -> Tensor:
        """Scalar loss of one batch; ``generator`` is accepted because ``SymileLoss`` takes one, and is not used."""
        batch, flags, rows = representations, present, None
        if self.gather:
            keys = list(representations) if isinstance(representations, Mapping) else None
            observed = as_presence(representations, present)
            joined = gather_batch(as_representations(representations), self.process_group, present=observed)
            rows = range(joined.start, joined.stop)
            batch = joined.tensors if keys is None else dict(zip(keys, joined.tensors, strict=True))
            flags = joined.present
            if flags is not None and keys is not None:
                flags = dict(zip(keys, flags, strict=True))
        loss = anchored_loss(batch, logit_scale, self.scores, self.anchor, self.label_smoothing, present=flags, rows=rows)
        return mean_over_ranks(loss, self.process_group) if self.gather else loss

    def extra_repr(self) -> str:
        """Shown when the module is printed."""
        return f"anchor={self.anchor!r}, label_smoothing={self.label_smoothing}, gather={self.gather}"

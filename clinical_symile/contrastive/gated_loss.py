"""The loss of Gated Symile: a function of representations and gates, and the module that owns the gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clinical_symile.contrastive.gated_scores import scores_of_unit_vectors
from clinical_symile.contrastive.gates import GateKind, Gates, Neutral
from clinical_symile.contrastive.gather import gather_batch, mean_over_ranks, same_on_all_ranks
from clinical_symile.contrastive.representations import Presence, Representations, as_presence, as_representations
from clinical_symile.contrastive.unit_vectors import to_unit_vectors

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def gated_symile_loss(
    representations: Representations,
    logit_scale: Tensor | float,
    gates: Gates,
    negatives: int | None = None,
    *,
    generator: torch.Generator | None = None,
    present: Presence | None = None,
    rows: range | None = None,
    drawn: Sequence[Tensor] | None = None,
) -> Tensor:
    """The mean over targets of the cross-entropy that picks the true candidate for a query of all other modalities.

    For target modality t and row i, with the gated score of ``gated_retrieval_scores`` and K other rows J_i,

        loss = - 1/(M N) sum_t sum_i log( exp(s score_t(i, i)) / sum_{j in J_i + {i}} exp(s score_t(i, j)) )

    Only the target is exchanged; the rest of the query stays true (the authors' "pair" negatives). So log(K + 1) - loss bounds
    I(x_t; the other modalities), not the total correlation. Tuples of negatives ("n", "n_squared") are left out: a gate judges
    one candidate against one query, and the authors' code, to avoid a gate per tuple, computes the gates of a row from its own
    true tuple there, which is not the score that a retrieval uses.

    Args:
        representations: M >= 2 tensors, each (n, d); a sequence in the order of ``gates.modalities``, or a mapping. They
            are normalised here, as the gates' formulas ask.
        logit_scale: the scale s itself, not its logarithm.
        gates: one set of gates per modality, see ``Gates``.
        negatives: K, drawn for each row and target without repetition, never the row itself; ``None``: all other rows,
            which costs hardly more, since the score of all pairs is a few matrix products.
        generator: for K, on the CPU; ``None`` uses torch's default generator.
        present: (n,) bool per modality. A row counts as a positive if it has all modalities; as a negative candidate if it has
            the target.
        rows: which rows of the batch are queries; all rows are their candidates. ``None``: all. A process that holds rows
            ``start … stop`` of a gathered batch passes them here: the mean of such losses over processes with equally many
            rows is the loss of the joined batch, also when rows are incomplete.
        drawn: the negatives themselves, for each target (len(rows), K) int64 as ``draw_candidates`` gives them; in place of
            ``negatives`` and ``generator``.

    Returns:
        Scalar, float32 or float64; 0 with gradients of 0 when no row is complete.

    Raises:
        ValueError: fewer than 2 rows, ``negatives`` below 1, ``rows`` or ``drawn`` outside the batch, a modality without a
            gate, or tensors that do not fit together.

    Source: Rheude et al. 2026, https://arxiv.org/abs/2604.05834.
    """
    names, tensors = named_batch(representations, gates)
    n = len(tensors[0])
    if n < 2:
        raise ValueError(f"a contrastive loss needs a batch of at least 2 rows, but got {n}")
    queries = range(n) if rows is None else rows
    if queries.step != 1 or not 0 <= queries.start < queries.stop <= n:
        raise ValueError(f"rows={rows}; expected a range of rows within the batch of {n}")
    if negatives is not None and negatives < 1:
        raise ValueError(f"negatives={negatives}; expected at least 1, or None for all other rows")
    flags = as_presence(representations, present)
    if drawn is None and negatives is not None and negatives < n - 1:
        drawn = draw_candidates(n, len(names), negatives, generator, flags)
        drawn = [columns[queries.start : queries.stop] for columns in drawn]
    if drawn is not None and (len(drawn) != len(names) or any(columns.shape[:1] != (len(queries),) for columns in drawn)):
        raise ValueError(f"drawn has shapes {[tuple(x.shape) for x in drawn]}; expected {len(names)} times ({len(queries)}, K)")

    device = tensors[0].device
    with torch.autocast(device.type, enabled=False):
        scale = torch.as_tensor(logit_scale, dtype=tensors[0].dtype, device=device)
        absent = [None] * len(names) if flags is None else flags
        units = {name: to_unit_vectors(r, flag) for name, r, flag in zip(names, tensors, absent, strict=True)}
        complete = torch.ones(n, dtype=torch.bool, device=device) if flags is None else torch.stack(flags).all(dim=0)
        kept = torch.arange(queries.start, queries.stop, device=device)[complete[queries.start : queries.stop]]
        losses = []
        for t, target in enumerate(names):
            query = {name: unit if len(kept) == n else unit[kept] for name, unit in units.items() if name != target}
            logits = scale * scores_of_unit_vectors(gates, target, units[target], query)[0]
            if drawn is None:
                if flags is not None:
                    logits = logits.masked_fill(~flags[t], -torch.inf)
                losses.append(F.cross_entropy(logits, kept, reduction="sum"))
                continue
            columns = drawn[t].to(device)[kept - queries.start]
            # A column that names its own row is a place that could not be filled.
            empty = columns == kept[:, None] if flags is None else (columns == kept[:, None]) | ~flags[t][columns]
            sampled = logits.gather(1, columns).masked_fill(empty, -torch.inf)
            compared = torch.cat([logits.gather(1, kept[:, None]), sampled], dim=1)
            losses.append(F.cross_entropy(compared, torch.zeros_like(kept), reduction="sum"))
        share = n / len(queries)  # 1, or the number of processes
        return torch.stack(losses).mean() * share / complete.sum().clamp_min(1)


def draw_candidates(
    n: int, modalities: int, negatives: int, generator: torch.Generator | None = None, present: Sequence[Tensor] | None = None
) -> list[Tensor]:
    """K different candidates for each row and target, never the row itself.

    Args:
        n: rows of the batch.
        modalities: M.
        negatives: K.
        generator: source of randomness, on the CPU.
        present: (n,) bool per modality; candidates that lack the target are not drawn.

    Returns:
        For each target (n, min(K, n - 1)) int64 on the CPU. Where a row has fewer than K candidates, the rest of its places
        name the row itself, which the loss leaves out.
    """
    own = torch.arange(n)[:, None]
    drawn = []
    for t in range(modalities):
        keys = torch.rand(n, n, generator=generator)
        if present is not None:
            keys[:, ~present[t].cpu()] = -1
        keys.fill_diagonal_(-1)
        best = keys.topk(min(negatives, n - 1), dim=1)
        drawn.append(torch.where(best.values < 0, own, best.indices))
    return drawn


def named_batch(representations: Representations, gates: Gates) -> tuple[list[str], list[Tensor]]:
    """Names and checked tensors of the batch."""
    tensors = as_representations(representations)
    if isinstance(representations, Mapping):
        names = list(representations)
        for name in names:
            gates.position(name)
    elif len(tensors) != len(gates.modalities):
        raise ValueError(f"got {len(tensors)} representations, but the gates are for {list(gates.modalities)}")
    else:
        names = list(gates.modalities)
    d = tensors[0].shape[1]
    if d != gates.embed_dim:
        raise ValueError(f"the representations have d = {d}, but the gates are for d = {gates.embed_dim}")
    return names, tensors


class GatedSymileLoss(nn.Module):
    """``gated_symile_loss`` as a module that owns the gates; called like ``SymileLoss``.

    Its parameters belong into the optimizer, and into the checkpoint: retrieval needs ``gates``.

    Args:
        modalities: their names, or their number.
        embed_dim: d.
        negatives: K candidates per row and target; ``None`` for all other rows of the batch.
        kind: see ``Gates``, as the following.
        neutral: what a closed gate puts in place of a modality.
        key_dim: rows of the query and key matrices.
        temperature: where the gates' temperature starts.
        strength: where the logit of alpha starts.
        generator: for the starting values of the gates.
        gather: take negatives from the other processes too. Every process must call it together, with equally many rows.
        process_group: of ``gather``; ``None`` for all processes.

    Raises:
        ValueError: as ``Gates``, or ``negatives`` is below 1.

    Example:
        >>> loss = GatedSymileLoss(["cxr", "ecg", "labs"], embed_dim=8)
        >>> r = torch.ones(4, 8)
        >>> f"{loss([r, r, r], logit_scale=1.0).item():.4f}"  # nothing to tell 4 candidates apart: log 4
        '1.3863'
    """

    def __init__(
        self,
        modalities: Sequence[str] | int,
        embed_dim: int,
        negatives: int | None = None,
        *,
        kind: GateKind = "sigmoid",
        neutral: Neutral = "random_trainable",
        key_dim: int = 256,
        temperature: float = 0.582,
        strength: float = -0.386,
        generator: torch.Generator | None = None,
        gather: bool = False,
        process_group: ProcessGroup | None = None,
    ) -> None:
        super().__init__()
        if negatives is not None and negatives < 1:
            raise ValueError(f"negatives={negatives}; expected at least 1, or None for all other rows")
        self.negatives, self.gather, self.process_group = negatives, gather, process_group
        self.gates = Gates(
            modalities,
            embed_dim,
            kind=kind,
            neutral=neutral,
            key_dim=key_dim,
            temperature=temperature,
            strength=strength,
            generator=generator,
        )

    def forward(
        self,
        representations: Representations,
        logit_scale: Tensor | float,
        generator: torch.Generator | None = None,
        *,
        present: Presence | None = None,
    ) -> Tensor:
        """Scalar loss of one batch; see ``gated_symile_loss``."""
        if not self.gather:
            k = self.negatives
            return gated_symile_loss(representations, logit_scale, self.gates, k, generator=generator, present=present)
        names, tensors = named_batch(representations, self.gates)
        joined = gather_batch(tensors, self.process_group, present=as_presence(representations, present))
        drawn = None
        if self.negatives is not None:
            every = draw_candidates(len(joined.tensors[0]), len(names), self.negatives, generator, joined.present)
            every = same_on_all_ranks([columns.to(tensors[0].device) for columns in every], self.process_group)
            drawn = [columns[joined.start : joined.stop] for columns in every]
        loss = gated_symile_loss(
            dict(zip(names, joined.tensors, strict=True)),
            logit_scale,
            self.gates,
            present=None if joined.present is None else dict(zip(names, joined.present, strict=True)),
            rows=range(joined.start, joined.stop),
            drawn=drawn,
        )
        return mean_over_ranks(loss, self.process_group)

    def extra_repr(self) -> str:
        """Shown when the module is printed."""
        return f"negatives={self.negatives}, gather={self.gather}"

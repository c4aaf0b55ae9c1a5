"""Is a gate doing its work, or has it shut a modality out for good?

A gate that closes for the wrong candidates and opens for the right one works as intended. One that is closed for practically
every pair, the true ones included, has silently turned a model of three modalities into one of two: accuracy may look
unchanged until the remaining modality fails.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from clinical_symile.contrastive.gated_loss import named_batch
from clinical_symile.contrastive.gated_scores import scores_of_unit_vectors
from clinical_symile.contrastive.gates import Gates
from clinical_symile.contrastive.representations import Presence, Representations, as_presence
from clinical_symile.contrastive.unit_vectors import to_unit_vectors

CLOSED_BELOW = 0.05
"""A gate, or a share, below this lets practically nothing through."""


@dataclass(frozen=True)
class GateStatistics:
    """One query modality as the candidates of one target see it. True pairs: a row's own candidate."""

    target: str
    modality: str
    gate_true: float
    """Mean gate w over true pairs."""
    gate_all: float
    """Mean gate w over all pairs of the batch."""
    share_true: float
    """Mean of 1 - alpha (1 - w) over true pairs: how much of the modality enters the mix, whatever the gate says."""
    closed_true: float
    """Fraction of true pairs whose share is below the threshold."""
    closed_all: float
    """The same of all pairs."""
    cosine_to_neutral: float
    """Mean cosine of the gated vector and the neutral direction over true pairs; NaN without a neutral direction."""


@dataclass(frozen=True)
class GateReport:
    """What the gates did in one batch."""

    statistics: tuple[GateStatistics, ...]
    p_null: dict[str, float]
    """Mean probability of NULL over all pairs, by target."""
    null_wins: dict[str, float]
    """Fraction of all pairs, by target, in which NULL has more than 1 - ``closed_below``."""
    alpha: float
    """How much of the gates is applied at all."""
    closed_below: float
    pairs: int
    """True pairs: rows that have all modalities."""


@torch.no_grad()
def gate_report(
    gates: Gates, representations: Representations, *, present: Presence | None = None, closed_below: float = CLOSED_BELOW
) -> GateReport:
    """Means of the gates, of NULL and of the mix for every target and query modality.

    Args:
        gates: the gates of the loss.
        representations: M >= 2 tensors, each (n, d), as the loss takes them; a validation batch of some hundred rows will do.
        present: (n,) bool per modality; incomplete rows are left out.
        closed_below: shares of a modality below this count as closed.

    Raises:
        ValueError: fewer than 2 complete rows, or tensors that do not fit together or the gates.

    Source: the quantities are those that Rheude et al. 2026 log, https://github.com/TillmannRheude/gated_symile.
    """
    names, tensors = named_batch(representations, gates)
    flags = as_presence(representations, present)
    if flags is not None:
        complete = torch.stack(flags).all(dim=0)
        tensors = [tensor[complete] for tensor in tensors]
    n = len(tensors[0])
    if n < 2:
        raise ValueError(f"{n} rows have all modalities; a report on gates needs at least 2")
    alpha = gates.alpha().item()
    statistics: list[GateStatistics] = []
    p_null: dict[str, float] = {}
    null_wins: dict[str, float] = {}
    with torch.autocast(tensors[0].device.type, enabled=False):
        units = {name: to_unit_vectors(tensor) for name, tensor in zip(names, tensors, strict=True)}
        neutrals = gates.neutrals(tensors[0].dtype)
        for target in names:
            queries = {name: unit for name, unit in units.items() if name != target}
            _, weights, null = scores_of_unit_vectors(gates, target, units[target], queries)
            p_null[target] = null.mean().item()
            null_wins[target] = (null > 1 - closed_below).double().mean().item()
            for (name, unit), gate in zip(queries.items(), weights, strict=True):
                share = 1 - alpha * (1 - gate)
                closed = (share < closed_below).double()
                neutral = None if neutrals is None else neutrals[gates.position(name)]
                statistics.append(
                    GateStatistics(
                        target=target,
                        modality=name,
                        gate_true=gate.diagonal().mean().item(),
                        gate_all=gate.mean().item(),
                        share_true=share.diagonal().mean().item(),
                        closed_true=closed.diagonal().mean().item(),
                        closed_all=closed.mean().item(),
                        cosine_to_neutral=_cosine_to_neutral(unit, share.diagonal(), neutral),
                    )
                )
    return GateReport(tuple(statistics), p_null, null_wins, alpha, closed_below, n)


def collapse_alarm(report: GateReport, *, practically_all: float = 0.99) -> list[str]:
    """Readable findings when gates shut out a modality; an empty list when they do not.

    A modality counts as shut out for a target when its share is below ``report.closed_below`` in at least
    ``practically_all`` of the true pairs and of all pairs. The true pairs are asked by themselves, because a healthy gate is
    closed for most wrong candidates. The share counts, not the gate: with a small alpha a closed gate lets the modality pass.

    Args:
        report: of ``gate_report``.
        practically_all: fraction of pairs.

    Returns:
        One sentence per target whose gates are all closed or whose choice is always NULL, and one per modality that other
        targets ignore.

    Raises:
        ValueError: ``practically_all`` is not in (0, 1].
    """
    if not 0 < practically_all <= 1:
        raise ValueError(f"practically_all={practically_all}; expected a fraction in (0, 1]")
    shut = [s for s in report.statistics if min(s.closed_true, s.closed_all) >= practically_all]
    findings = []
    explained = set()
    for target, null in report.p_null.items():
        seen = [s for s in report.statistics if s.target == target]
        closed = [s for s in shut if s.target == target]
        if len(closed) < len(seen):
            continue
        explained.add(target)
        reason = (
            f"the NULL option wins in {report.null_wins[target]:.0%} of pairs"
            if report.null_wins[target] >= practically_all
            else f"the mean probability of NULL is {null:.2f}"
        )
        findings.append(
            f"Candidates of {target} ignore every query modality ({', '.join(s.modality for s in seen)}): {reason}. "
            f"Their score hardly depends on the query."
        )
    for modality in dict.fromkeys(s.modality for s in shut):
        closed = [s for s in shut if s.modality == modality and s.target not in explained]
        if closed:
            worst = max(s.share_true for s in closed)
            others = [s for s in report.statistics if s.target == closed[0].target and s.modality != modality]
            rest = "".join(f", {s.modality} has {s.share_true:.2f}" for s in others)
            findings.append(
                f"{modality} is ignored when {' and '.join(s.target for s in closed)} is retrieved: its share is below "
                f"{report.closed_below:g} in at least {min(min(s.closed_true, s.closed_all) for s in closed):.1%} of pairs "
                f"(mean for true pairs {worst:.3f}{rest})."
            )
    return findings


def _cosine_to_neutral(unit: Tensor, share: Tensor, neutral: Tensor | None) -> float:
    """Mean cosine of ``share e + (1 - share) nu`` and nu."""
    if neutral is None:
        return float("nan")
    mixed = share[:, None] * unit + (1 - share)[:, None] * neutral
    return (F.normalize(mixed, dim=1) @ neutral).mean().item()

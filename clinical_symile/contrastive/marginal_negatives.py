"""Negatives that are independent draws from the product of the marginals, made from held-out rows.

A bound on the total correlation needs negative tuples whose entries are independent of each other, of the other negatives
and of the positive. Rows of a finite sample give them exactly, and not only in the limit, if no row is used twice for one
positive: every entry of every negative comes from another row. n rows so give at most ``(n - 1) / (M - 1)`` negatives.

Rows of one group (a patient's admissions) are not independent, so each repeat takes one row of every group, at random. The
law in question is then that of a random row of a random group, for positives and negatives alike.

To be fast, the rows that serve as positives together (a fold) share their negatives, which come from the other folds. This
makes their values dependent, which ``fold_values`` answers by saying how much each negative contributed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from clinical_symile.contrastive.mip import product

FOLDS = 8
CHUNK_ELEMENTS = 1 << 20
"""Scores held at a time: 8 MB of float64."""


class Fold(NamedTuple):
    """Rows that are positives together, and the rows of their negatives."""

    positives: Tensor
    """(p,) int64."""
    negatives: Tensor
    """(M - 1, k) int64: column j is one negative tuple, one row per non-anchor modality, no row twice in the table."""


class FoldValues(NamedTuple):
    """What the positives of one fold say about the bound."""

    values: Tensor
    """(p,) float64: one unbiased draw of the bound per positive."""
    weights: Tensor
    """(k,) float64: minus the sum of the positives' derivatives by the logarithm of a negative's weight, centred."""


def most_negatives(units: int, modalities: int) -> int:
    """How many independent negatives each positive can have.

    Args:
        units: independent rows, or groups of rows.
        modalities: M.
    """
    largest_fold = -(-units // min(FOLDS, max(units, 1)))
    return (units - largest_fold) // (modalities - 1)


def draw_folds(unit_of_row: Tensor, modalities: int, negatives: int, repeats: int, generator: torch.Generator) -> Iterator[Fold]:
    """Every unit serves once per repeat as a positive, with negatives from units of other folds.

    Args:
        unit_of_row: (n,) int64, the independent unit of each row, numbered from 0, on the CPU.
        modalities: M.
        negatives: k, at most ``most_negatives``.
        repeats: how often all units are divided anew.
        generator: source of randomness, on the CPU.
    """
    units = int(unit_of_row.max()) + 1
    for _ in range(repeats):
        rows = _one_row_per_unit(unit_of_row, generator)[torch.randperm(units, generator=generator)]
        folds = rows.tensor_split(min(FOLDS, units))
        for position, positives in enumerate(folds):
            pool = torch.cat(folds[:position] + folds[position + 1 :])
            drawn = torch.randperm(len(pool), generator=generator)[: (modalities - 1) * negatives]
            yield Fold(positives, pool[drawn].view(modalities - 1, negatives))


def _one_row_per_unit(unit_of_row: Tensor, generator: torch.Generator) -> Tensor:
    """A random row of each unit, in the order of the units."""
    shuffled = torch.randperm(len(unit_of_row), generator=generator)
    by_unit = shuffled[unit_of_row[shuffled].argsort(stable=True)]
    rows_of_unit = torch.bincount(unit_of_row)
    return by_unit[rows_of_unit.cumsum(0) - rows_of_unit]


def fold_scores(tensors: Sequence[Tensor], anchor: int, fold: Fold) -> Iterator[tuple[Tensor, Tensor]]:
    """The products of the fold, some rows at a time.

    Args:
        tensors: M tensors of one dtype, each (n, d).
        anchor: the modality that each negative shares with its positive.
        fold: rows.

    Yields:
        Positives' products (rows,) and their negatives' (rows, k), float64.
    """
    device = tensors[anchor].device
    others = [tensor for position, tensor in enumerate(tensors) if position != anchor]
    columns = product([other[rows.to(device)] for other, rows in zip(others, fold.negatives, strict=True)])
    for rows in fold.positives.to(device).split(max(1, CHUNK_ELEMENTS // len(columns))):
        anchors = tensors[anchor][rows]
        true = product([other[rows] for other in others])
        yield (anchors * true).sum(dim=1).double(), (anchors @ columns.T).double()


def fold_values(tensors: Sequence[Tensor], anchor: int, fold: Fold, scale: float, hedge: float) -> FoldValues:
    """The bound's draws of one fold, ``log( (1 - hedge) K softmax(positive) + hedge )`` with K tuples.

    Args:
        tensors: M tensors of one dtype, each (n, d).
        anchor: position of the anchor modality.
        fold: rows.
        scale: multiplies the products.
        hedge: weight of the guess that knows nothing, from 0 to 1.
    """
    k = fold.negatives.shape[1]
    values, weights = [], torch.zeros(k, dtype=torch.float64, device=tensors[anchor].device)
    for positive, negative in fold_scores(tensors, anchor, fold):
        logits = scale * (negative - positive.unsqueeze(1))
        shift = logits.amax(dim=1).clamp(min=0)
        exponentials = (logits - shift.unsqueeze(1)).exp_()
        total = (-shift).exp() + exponentials.sum(dim=1)
        # total / K is exactly 1 where all logits are 0, so a scale of 0 certifies exactly 0.
        plain = -(shift + (total / (k + 1)).log())
        value = plain if hedge == 0 else torch.log1p((1 - hedge) * plain.expm1())
        believed = ((1 - hedge) * (plain - value).exp() / total).unsqueeze(1) * exponentials
        values.append(value)
        weights += (believed - believed.mean(dim=1, keepdim=True)).sum(dim=0)
    return FoldValues(torch.cat(values).cpu(), weights.cpu())

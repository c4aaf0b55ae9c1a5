"""The rank of the positive among its candidates, with ties kept open until a metric resolves them exactly.

Scores are signed: a multilinear inner product of -0.2 beats one of -0.5, and no threshold at zero exists. Equal scores
have no order. If ``higher`` candidates score higher than the positive and ``tied`` others score the same, a fair coin
puts the positive on each of the ranks ``higher + 1 ... higher + tied + 1`` with the same probability. Every quantity
here is the exact expectation over that coin, so no result depends on the order of the candidates or on a seed, and a
model that gives every candidate the same score gets exactly what chance gets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clinical_symile.errors import InputError

Counts = NDArray[np.int64]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Ranks:
    """Where the positive of each query stands.

    Attributes:
        higher: (q,) candidates that score higher than the positive.
        tied: (q,) *other* candidates that score exactly the same.
        candidates: (q,) candidates that were compared, the positive included.
    """

    higher: Counts
    tied: Counts
    candidates: Counts

    def __len__(self) -> int:
        return len(self.higher)

    def expected(self) -> Values:
        """Expected rank, ``higher + 1 + tied / 2``. Shape (q,); the best rank is 1."""
        return self.higher + 1.0 + self.tied / 2.0

    def hit(self, k: int) -> Values:
        """Probability that the rank is at most ``k``: ``clip((k - higher) / (tied + 1), 0, 1)``. Shape (q,)."""
        hits: Values = np.clip((k - self.higher) / (self.tied + 1.0), 0.0, 1.0)
        return hits

    def reciprocal(self) -> Values:
        """Expected reciprocal rank, ``(H(higher + tied + 1) - H(higher)) / (tied + 1)``, H the harmonic numbers. Shape (q,)."""
        harmonic = harmonic_numbers(int((self.higher + self.tied).max(initial=0)) + 1)
        mean = (harmonic[self.higher + self.tied + 1] - harmonic[self.higher]) / (self.tied + 1.0)
        # Without ties the difference of two sums is 1 / rank only up to rounding.
        reciprocal: Values = np.where(self.tied == 0, 1.0 / (self.higher + 1.0), mean)
        return reciprocal

    @classmethod
    def concatenate(cls, parts: Sequence[Ranks]) -> Ranks:
        """The ranks of all queries, in order, from those of consecutive blocks of queries."""
        return cls(
            higher=np.concatenate([part.higher for part in parts]),
            tied=np.concatenate([part.tied for part in parts]),
            candidates=np.concatenate([part.candidates for part in parts]),
        )


def rank_positives(
    scores: NDArray[np.floating], positive: NDArray[np.integer], eligible: NDArray[np.bool_] | None = None
) -> Ranks:
    """Ranks by counting: one comparison per candidate, and nothing is sorted.

    Args:
        scores: (q, c) any real numbers, infinities included; larger is better.
        positive: (q,) column of each query's positive.
        eligible: (q, c) which candidates take part; all by default. The positive always takes part.

    Raises:
        InputError: a score is NaN, or the shapes do not fit.

    Example:
        >>> rank_positives(np.array([[-0.2, -0.5, -0.9]]), np.array([0])).expected()
        array([1.])
    """
    if scores.ndim != 2 or positive.shape != scores.shape[:1]:
        raise InputError(f"scores must be (queries, candidates) and positive (queries,), not {scores.shape} and {positive.shape}")
    if ((positive < 0) | (positive >= scores.shape[1])).any():
        raise InputError(f"positive must name columns 0 to {scores.shape[1] - 1} of the scores")
    undefined = int(np.isnan(scores).sum())
    if undefined:
        raise InputError(f"{undefined} of {scores.size} scores are NaN, so there is no ranking; look for a diverged training run")
    columns = positive[:, None]
    own = np.take_along_axis(scores, columns, axis=1)
    higher, same = scores > own, scores == own
    if eligible is None:
        candidates = np.full(len(scores), scores.shape[1], dtype=np.int64)
    else:
        higher, same = higher & eligible, same & eligible
        # The positive counts once, whether or not the mask lets it through.
        np.put_along_axis(same, columns, True, axis=1)
        candidates = eligible.sum(axis=1, dtype=np.int64) + ~np.take_along_axis(eligible, columns, axis=1)[:, 0]
    return Ranks(higher.sum(axis=1, dtype=np.int64), same.sum(axis=1, dtype=np.int64) - 1, candidates)


def harmonic_numbers(n: int) -> Values:
    """``H(0), H(1), ..., H(n)`` with ``H(k) = 1 + 1/2 + ... + 1/k``."""
    return np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, n + 1))])

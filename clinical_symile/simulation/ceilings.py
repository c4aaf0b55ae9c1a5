"""What the best scores can reach on the k-way task, computed by enumeration: predictions with which results are compared.

The population version of the task: a query ``(e, l)`` and its own X-ray are drawn from the law; the negatives are X-rays
of independent admissions. A score adds up over the channels and ties are broken at random, so the chance that the
positive comes out first among ``m - 1`` negatives is exact:

    E[1 / (1 + ties) ; no negative above] = ((F + q)^m - F^m) / (m q),

where ``F`` is the chance that a negative scores lower than the positive and ``q`` that it scores the same.
"""

from __future__ import annotations

from itertools import combinations_with_replacement, product
from math import factorial, prod

import numpy as np

from clinical_symile.simulation.law import CHANNELS, Array, joint, log_posterior_ratio

_DECIMALS = 9
"""Scores that agree to so many decimals are ties; sums of the same logarithms in another order differ in the 15th."""


def oracle_accuracy(synergy: float, candidates: int = 10, channels: int = len(CHANNELS)) -> float:
    """Accuracy of the posterior ``log p(x | e, l) - log p(x)``: nobody can do better.

    Args:
        synergy: s in [0, 1].
        candidates: size of the candidate set, the positive included.
        channels: K.

    Example:
        >>> round(oracle_accuracy(1.0), 3)
        0.87
    """
    return _accuracy(_by_type(log_posterior_ratio(synergy)), synergy, candidates, channels)


def uniform_pairwise_accuracy(synergy: float, candidates: int = 10, channels: int = len(CHANNELS), directions: int = 48) -> float:
    """Accuracy of the best *pairwise* score that treats all channels alike, ``sum_c a(e_c, x_c) + a(l_c, x_c)``.

    A sum of dot products, as pairwise CLIP scores with, cannot hold a term in which e, l and x meet. Up to what does not
    change a ranking, ``a`` has two free numbers, the evidence for ``x = 1`` of a sign that is absent or present, and only
    their ratio matters as long as it is the same ``a`` in every channel: this tries ``directions`` ratios, the diagonals
    among them. A score with an ``a`` for each channel can do better, so this is a mark on the way, not CLIP's ceiling.

    Args:
        synergy: s in [0, 1].
        candidates: size of the candidate set, the positive included.
        channels: K.
        directions: how many ratios to try; a multiple of 8 holds the diagonals.
    """
    best = 0.0
    for angle in np.linspace(0, 2 * np.pi, directions, endpoint=False):
        absent, present = np.round([np.cos(angle), np.sin(angle)], _DECIMALS)
        evidence = np.array([2 * absent, absent + present, 2 * present])
        scores = np.stack([np.zeros(3), evidence], axis=1)
        best = max(best, _accuracy(scores, synergy, candidates, channels))
    return best


def _by_type(table: Array) -> Array:
    """From [e, l, x] to [type, x], where the type is e + l: the law does not tell the ECG's sign from the labs'."""
    return np.stack([table[0, 0], table[0, 1], table[1, 1]])


def _accuracy(scores: Array, synergy: float, candidates: int, channels: int) -> float:
    """Expected accuracy of the score ``sum_c scores[type_c, x_c]``."""
    law = joint(synergy)
    of_type = np.array([law[0, 0].sum(), law[0, 1].sum() + law[1, 0].sum(), law[1, 1].sum()])
    with np.errstate(invalid="ignore"):
        given_type = np.nan_to_num(_by_type(law) / _by_type(law).sum(axis=1, keepdims=True))
    findings = np.array(list(product((0, 1), repeat=channels)))
    total = 0.0
    for types in combinations_with_replacement(range(3), channels):
        arrangements = factorial(channels) / prod(factorial(types.count(t)) for t in range(3))
        weight = arrangements * float(np.prod(of_type[list(types)]))
        if weight == 0:
            continue
        columns = np.array(types)
        score = np.round(scores[columns, findings].sum(axis=1), _DECIMALS)
        positive = given_type[columns, findings].prod(axis=1)
        lower = (score[None, :] < score[:, None]).mean(axis=1)
        equal = (score[None, :] == score[:, None]).mean(axis=1)
        first = ((lower + equal) ** candidates - lower**candidates) / (candidates * equal)
        total += weight * float(positive @ first)
    return total

"""Predictions of accuracy: closed enumeration against a direct simulation of the task."""

from __future__ import annotations

import numpy as np
import pytest

from clinical_symile.simulation.ceilings import oracle_accuracy, uniform_pairwise_accuracy
from clinical_symile.simulation.law import log_posterior_ratio, sample_signs

# python -c "from clinical_symile.simulation import *; print([round(oracle_accuracy(s), 4) for s in (0, .5, .8, 1)])"
GOLDEN_ORACLE = {0.0: 0.8705, 0.5: 0.6768, 0.8: 0.7233, 1.0: 0.8705}


def play(synergy: float, tasks: int, candidates: int, rng: np.random.Generator) -> float:
    """Accuracy of the posterior when the 10-way task is really played, ties broken by a coin."""
    table = log_posterior_ratio(synergy)
    correct = 0
    for _ in range(tasks):
        signs = sample_signs(candidates, synergy, rng)
        scores = [sum(table[e, s, x] for e, s, x in zip(signs.ecg[0], signs.labs[0], row, strict=True)) for row in signs.cxr]
        best = np.flatnonzero(np.isclose(scores, np.max(scores)))
        correct += int(rng.choice(best) == 0)
    return correct / tasks


@pytest.mark.parametrize("synergy", [0.0, 0.5, 1.0])
def test_oracle_accuracy_is_what_one_gets_by_playing(synergy: float) -> None:
    tasks = 1500
    expected = oracle_accuracy(synergy)
    assert play(synergy, tasks, 10, np.random.default_rng(5)) == pytest.approx(expected, abs=4 * np.sqrt(0.25 / tasks))


@pytest.mark.parametrize(("synergy", "value"), GOLDEN_ORACLE.items())
def test_golden(synergy: float, value: float) -> None:
    assert oracle_accuracy(synergy) == pytest.approx(value, abs=1e-4)


def test_deterministic_ties_have_a_closed_form() -> None:
    """At s = 0 and s = 1 the X-ray is known, and only equals compete: E[1/(1 + B)], B ~ Binomial(9, 2^-5)."""
    q = 2.0**-5
    closed = (1 - (1 - q) ** 10) / (10 * q)
    assert oracle_accuracy(0.0) == pytest.approx(closed)
    assert oracle_accuracy(1.0) == pytest.approx(closed)


@pytest.mark.parametrize("synergy", [0.0, 0.1, 0.5, 0.8, 1.0])
def test_chance_then_pairwise_then_oracle(synergy: float) -> None:
    assert 0.1 < uniform_pairwise_accuracy(synergy) <= oracle_accuracy(synergy) + 1e-12


def test_pairwise_score_loses_nothing_without_synergy_and_most_with_it() -> None:
    assert uniform_pairwise_accuracy(0.0) == pytest.approx(oracle_accuracy(0.0))
    gaps = [oracle_accuracy(s) - uniform_pairwise_accuracy(s) for s in (0.0, 0.2, 0.5, 0.8, 1.0)]
    assert gaps == sorted(gaps), "the gap that Symile can win grows with the synergy"


def test_two_candidates_and_one_channel_by_hand() -> None:
    """s = 1, one channel: the negative equals the positive half of the time, then the coin decides: 1/2 + 1/2 * 1/2."""
    assert oracle_accuracy(1.0, candidates=2, channels=1) == pytest.approx(0.75)

"""Metrics and their chance values: closed forms, a constant scorer, and a simulated random one."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import label_ranking_average_precision_score, top_k_accuracy_score

from clinical_symile.evaluation.metrics import (
    chance_values,
    higher_is_better,
    metric_columns,
    metric_label,
    summaries,
)
from clinical_symile.evaluation.ranks import Ranks, rank_positives

RECALL_AT = (1, 5, 10)


def ranked(scores: np.ndarray, eligible: np.ndarray | None = None) -> Ranks:
    """Query i's positive is candidate i."""
    return rank_positives(scores, np.arange(len(scores)), eligible)


def test_known_ranks_give_known_metrics() -> None:
    # Four queries whose own X-ray has rank 1, 2, 3 and 8 of 8, in the sets and in the bank alike.
    ranks = Ranks(higher=np.array([0, 1, 2, 7]), tied=np.zeros(4, int), candidates=np.full(4, 8))
    found = summaries(metric_columns(ranks, ranks, RECALL_AT))
    assert found == pytest.approx(
        {
            "accuracy_8way": 1 / 4,
            "recall_at_1": 1 / 4,
            "recall_at_5": 3 / 4,
            "recall_at_10": 1.0,
            "mrr": (1 + 1 / 2 + 1 / 3 + 1 / 8) / 4,
            "median_rank": 2.5,
        }
    )


def test_chance_in_closed_form() -> None:
    sets = Ranks(np.zeros(2, int), np.zeros(2, int), candidates=np.full(2, 10))
    bank = Ranks(np.zeros(2, int), np.zeros(2, int), candidates=np.array([4, 20]))
    assert chance_values(sets, bank, RECALL_AT) == pytest.approx(
        {
            "accuracy_10way": 0.1,
            "recall_at_1": (1 / 4 + 1 / 20) / 2,
            "recall_at_5": (1 + 5 / 20) / 2,
            "recall_at_10": (1 + 10 / 20) / 2,
            "mrr": (sum(1 / r for r in range(1, 5)) / 4 + sum(1 / r for r in range(1, 21)) / 20) / 2,
            "median_rank": (2.5 + 10.5) / 2,
        }
    )


def test_a_constant_scorer_gets_exactly_chance() -> None:
    rng = np.random.default_rng(0)
    sets = ranked(np.full((12, 12), -3.0))
    bank = ranked(np.full((12, 12), -3.0), rng.random((12, 12)) < 0.7)
    assert summaries(metric_columns(sets, bank, RECALL_AT)) == pytest.approx(chance_values(sets, bank, RECALL_AT))


def test_a_random_scorer_gets_chance_on_average() -> None:
    rng = np.random.default_rng(1)
    trials = []
    for _ in range(400):
        ranks = ranked(rng.normal(size=(30, 30)))
        trials.append(list(summaries(metric_columns(ranks, ranks, RECALL_AT)).values()))
    mean, error = np.mean(trials, axis=0), np.std(trials, axis=0) / np.sqrt(len(trials))
    expected = np.array(list(chance_values(ranks, ranks, RECALL_AT).values()))
    assert (np.abs(mean - expected) < 4 * error).all(), f"simulated {mean}, closed form {expected}, standard error {error}"


def test_scikit_learn_agrees_where_nothing_is_tied() -> None:
    """With one right answer per query, label ranking average precision is the mean reciprocal rank."""
    scores = np.random.default_rng(2).normal(loc=-1.0, size=(40, 40)) + 2 * np.eye(40)
    ranks = ranked(scores)
    found = summaries(metric_columns(ranks, ranks, RECALL_AT))
    assert found["mrr"] == pytest.approx(label_ranking_average_precision_score(np.eye(40), scores))
    for k in RECALL_AT:
        assert found[f"recall_at_{k}"] == pytest.approx(top_k_accuracy_score(np.arange(40), scores, k=k))


def test_names() -> None:
    assert metric_label("accuracy_10way") == "10-way accuracy"
    assert metric_label("recall_at_5") == "Recall at 5"
    assert metric_label("mrr") == "Mean reciprocal rank"
    assert metric_label("something_else") == "something_else"
    assert higher_is_better("mrr")
    assert not higher_is_better("median_rank")

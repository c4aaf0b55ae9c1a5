"""Ranks against a naive oracle that really sorts, once for every order in which ties can fall."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinical_symile.errors import InputError
from clinical_symile.evaluation.ranks import Ranks, harmonic_numbers, rank_positives


def sorted_ranks(scores: list[float], positive: int) -> list[int]:
    """The rank of the positive in each of the orders that ties allow: shuffle in every way, then sort stably."""
    ranks = []
    for order in permutations(range(len(scores))):
        ranking = sorted(order, key=lambda candidate: -scores[candidate])
        ranks.append(ranking.index(positive) + 1)
    return ranks


# Few distinct values, negative ones among them, so that ties are the rule.
tied_scores = st.lists(st.sampled_from([-2.0, -0.5, 0.0, 0.5, float("-inf")]), min_size=1, max_size=6)


@settings(max_examples=150, deadline=None)
@given(scores=tied_scores, data=st.data())
def test_expectations_over_all_orders_of_the_ties(scores: list[float], data: st.DataObject) -> None:
    positive = data.draw(st.integers(0, len(scores) - 1))
    ranks = rank_positives(np.array([scores]), np.array([positive]))
    every_order = np.array(sorted_ranks(scores, positive), dtype=float)
    assert ranks.expected()[0] == pytest.approx(every_order.mean())
    assert ranks.reciprocal()[0] == pytest.approx((1 / every_order).mean())
    for k in range(1, len(scores) + 2):
        assert ranks.hit(k)[0] == pytest.approx((every_order <= k).mean()), f"recall at {k}"


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_mask_is_the_same_as_leaving_the_candidates_out(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(-2, 3, (5, 8)).astype(float)
    positive = rng.integers(0, 8, 5)
    eligible = rng.random((5, 8)) < 0.6
    masked = rank_positives(scores, positive, eligible)
    for row in range(5):
        keep = eligible[row].copy()
        keep[positive[row]] = True
        alone = rank_positives(scores[row, keep][None], np.array([keep[: positive[row]].sum()]))
        assert (masked.higher[row], masked.tied[row], masked.candidates[row]) == (
            alone.higher[0],
            alone.tied[0],
            alone.candidates[0],
        )


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_order_of_candidates_and_scale_of_scores_do_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(-3, 4, (6, 7)).astype(float)
    positive = rng.integers(0, 7, 6)
    order = rng.permutation(7)
    shuffled = rank_positives(scores[:, order], np.argsort(order)[positive])
    stretched = rank_positives(np.exp(scores) - 100.0, positive)
    for other in (shuffled, stretched):
        np.testing.assert_array_equal(rank_positives(scores, positive).expected(), other.expected())


def test_signed_scores_are_ranked_as_they_are() -> None:
    # torchmetrics' RetrievalRecall(top_k=1) gives 0.0 here: it drops every candidate whose score is not above 0.
    ranks = rank_positives(np.array([[-0.2, -0.5, -0.9]]), np.array([0]))
    assert ranks.hit(1)[0] == 1.0
    assert ranks.expected()[0] == 1.0


def test_equal_scores_give_what_chance_gives() -> None:
    ranks = rank_positives(np.zeros((3, 10), dtype=np.float32), np.array([0, 4, 9]))
    np.testing.assert_allclose(ranks.hit(1), 0.1)
    np.testing.assert_allclose(ranks.hit(5), 0.5)
    np.testing.assert_allclose(ranks.expected(), 5.5)
    np.testing.assert_allclose(ranks.reciprocal(), harmonic_numbers(10)[10] / 10)


def test_without_ties_hits_and_reciprocals_are_exact() -> None:
    ranks = rank_positives(np.array([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0]]), np.array([2, 1]))
    np.testing.assert_array_equal(ranks.hit(1), [0.0, 0.0])
    np.testing.assert_array_equal(ranks.hit(2), [1.0, 0.0])
    np.testing.assert_array_equal(ranks.reciprocal(), [1 / 2, 1 / 3])


def test_infinite_scores_have_ranks() -> None:
    # The oracle gives -inf to X-rays that the law rules out.
    ranks = rank_positives(np.array([[-np.inf, -np.inf, 0.0], [np.inf, 0.0, 0.0]]), np.array([0, 0]))
    np.testing.assert_array_equal(ranks.expected(), [2.5, 1.0])


def test_nan_is_refused_and_counted() -> None:
    with pytest.raises(InputError, match=r"2 of 6 scores are NaN"):
        rank_positives(np.array([[0.0, np.nan, 1.0], [np.nan, 0.0, 1.0]]), np.array([0, 2]))


@pytest.mark.parametrize(
    ("scores", "positive", "message"),
    [
        (np.zeros(3), np.zeros(3, int), r"not \(3,\) and \(3,\)"),
        (np.zeros((2, 3)), np.zeros(3, int), r"not \(2, 3\) and \(3,\)"),
        (np.zeros((2, 3)), np.array([0, 3]), "columns 0 to 2"),
        (np.zeros((2, 3)), np.array([-1, 0]), "columns 0 to 2"),
    ],
)
def test_wrong_shapes_are_refused(scores: np.ndarray, positive: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        rank_positives(scores, positive)


def test_blocks_can_be_put_together() -> None:
    rng = np.random.default_rng(0)
    scores, positive = rng.normal(size=(9, 4)), rng.integers(0, 4, 9)
    blocks = [rank_positives(scores[start : start + 4], positive[start : start + 4]) for start in range(0, 9, 4)]
    whole, joined = rank_positives(scores, positive), Ranks.concatenate(blocks)
    assert len(joined) == 9
    np.testing.assert_array_equal(whole.expected(), joined.expected())

"""The exact index against a naive search, and the order of equal scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clinical_symile.contrastive import pairwise_retrieval_scores, retrieval_scores
from clinical_symile.errors import InputError
from clinical_symile.retrieval import ExactIndex, rank


def whole_numbers(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Small whole numbers: products and sums are exact, and equal scores are common."""
    return rng.integers(-2, 3, size=shape).astype(np.float32)


def naive_scores(candidates: np.ndarray, ecg: np.ndarray, labs: np.ndarray, *, pairwise: bool) -> list[list[float]]:
    return [
        [
            sum(float(c) * float(e) + float(c) * float(v) + float(e) * float(v) for c, e, v in zip(x, q, p, strict=True))
            if pairwise
            else sum(float(c) * float(e) * float(v) for c, e, v in zip(x, q, p, strict=True))
            for x in candidates
        ]
        for q, p in zip(ecg, labs, strict=True)
    ]


@pytest.mark.parametrize("chunk_rows", [1, 3, 7, 100])
def test_scores_equal_the_naive_sum_whatever_the_chunks(chunk_rows):
    rng = np.random.default_rng(0)
    candidates, ecg, labs = whole_numbers(rng, 20, 5), whole_numbers(rng, 2, 5), whole_numbers(rng, 2, 5)
    index = ExactIndex(candidates, retrieval_scores, chunk_rows)
    scores = index.scores([torch.from_numpy(ecg), torch.from_numpy(labs)])
    assert scores.tolist() == naive_scores(candidates, ecg, labs, pairwise=False)


def test_pairwise_rule_ranks_like_the_sum_of_dot_products():
    rng = np.random.default_rng(1)
    candidates, ecg, labs = whole_numbers(rng, 20, 5), whole_numbers(rng, 1, 5), whole_numbers(rng, 1, 5)
    scores = ExactIndex(candidates, pairwise_retrieval_scores, 6).scores([torch.from_numpy(ecg), torch.from_numpy(labs)])[0]
    naive = torch.tensor(naive_scores(candidates, ecg, labs, pairwise=True)[0])
    assert torch.equal(rank(scores, 20), rank(naive, 20)), "a part that all candidates share must not change the order"


@settings(max_examples=100, deadline=None)
@given(
    scores=st.lists(st.integers(-3, 3), min_size=1, max_size=30),
    mask_seed=st.integers(0, 2**32 - 1),
    k=st.integers(1, 40),
)
def test_rank_equals_sorting_the_allowed_ones(scores, mask_seed, k):
    mask = np.random.default_rng(mask_seed).random(len(scores)) < 0.5
    naive = sorted((position for position in range(len(scores)) if mask[position]), key=lambda p: (-scores[p], p))[:k]
    found = rank(torch.tensor(scores, dtype=torch.float32), k, torch.from_numpy(mask))
    assert found.tolist() == naive


def test_filter_comes_before_the_choice():
    """The best ten are all forbidden: a filter after the choice would return nothing."""
    scores = torch.arange(100.0)
    assert rank(scores, 10, scores < 20).tolist() == list(range(19, 9, -1))


def test_equal_scores_are_ordered_by_position():
    assert rank(torch.zeros(1000), 1000).tolist() == list(range(1000))


def test_search_returns_the_scores_of_its_positions(tmp_path):
    rng = np.random.default_rng(2)
    np.save(tmp_path / "embeddings.npy", whole_numbers(rng, 50, 4))
    mapped = np.load(tmp_path / "embeddings.npy", mmap_mode="r")
    index = ExactIndex(mapped, retrieval_scores, 8)
    queries = [torch.from_numpy(whole_numbers(rng, 3, 4)) for _ in range(2)]
    positions, scores = index.search(queries, 5)
    assert positions.shape == scores.shape == (3, 5)
    assert torch.equal(index.scores(queries).gather(1, positions), scores)
    assert (scores.diff(dim=1) <= 0).all()


@pytest.mark.parametrize("k", [0, -1])
def test_nothing_cannot_be_asked_for(k):
    with pytest.raises(InputError, match="at least one"):
        rank(torch.zeros(3), k)


@pytest.mark.parametrize("where", [torch.ones(2, dtype=torch.bool), torch.ones(3)])
def test_mask_must_fit(where):
    with pytest.raises(InputError, match="where"):
        rank(torch.zeros(3), 1, where)


def test_other_width_is_refused():
    with pytest.raises(InputError, match="width"):
        ExactIndex(np.zeros((3, 4), dtype=np.float32), retrieval_scores).scores([torch.zeros(1, 5), torch.zeros(1, 5)])


def test_damaged_embedding_is_refused():
    candidates = np.ones((3, 4), dtype=np.float32)
    candidates[1, 2] = np.nan
    with pytest.raises(InputError, match="not finite"):
        ExactIndex(candidates, retrieval_scores).scores([torch.ones(1, 4), torch.ones(1, 4)])

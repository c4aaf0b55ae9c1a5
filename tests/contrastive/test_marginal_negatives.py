"""Negatives from the product of the marginals: who is drawn, and what each row contributes, against loops and autograd."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clinical_symile.contrastive.marginal_negatives import Fold, draw_folds, fold_scores, fold_values, most_negatives


def batch(modalities: int, n: int, d: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, d, generator=generator, dtype=torch.float64) for _ in range(modalities)]


@given(
    sizes=st.lists(st.integers(1, 3), min_size=4, max_size=30),
    modalities=st.integers(2, 4),
    share=st.floats(0, 1),
    repeats=st.integers(1, 3),
    seed=st.integers(0, 999),
)
@settings(deadline=None, max_examples=100)
def test_no_unit_is_used_twice_for_one_positive(sizes, modalities, share, repeats, seed) -> None:
    units = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    units = units[torch.randperm(len(units), generator=torch.Generator().manual_seed(seed))]
    most = most_negatives(len(sizes), modalities)
    if most < 1:
        return
    negatives = 1 + int(share * (most - 1))
    served = []
    for fold in draw_folds(units, modalities, negatives, repeats, torch.Generator().manual_seed(seed)):
        assert fold.negatives.shape == (modalities - 1, negatives)
        used = units[torch.cat([fold.positives, fold.negatives.flatten()])].tolist()
        assert len(used) == len(set(used)), "a positive shares a unit with a negative, or two entries share one"
        served += units[fold.positives].tolist()
    assert sorted(served) == sorted(list(range(len(sizes))) * repeats), "every unit is a positive once per repeat"


def test_rows_are_drawn_evenly() -> None:
    # Two rows of unit 0, one of each other: each of the two is the positive half of the time.
    units = torch.tensor([0, *range(1, 12), 0])
    as_positive, as_negative = torch.zeros(13), torch.zeros(13)
    repeats = 2000
    for fold in draw_folds(units, 3, 2, repeats, torch.Generator().manual_seed(0)):
        as_positive[fold.positives] += 1
        as_negative[fold.negatives.flatten()] += 1
    expected = torch.full((13,), float(repeats))
    expected[[0, 12]] /= 2
    assert (as_positive - expected).abs().max() < 5 * math.sqrt(repeats / 4)
    shares = as_negative / as_negative.sum()
    assert (shares - expected / expected.sum()).abs().max() < 0.01


def test_most_negatives_is_reached_and_not_passed() -> None:
    # 20 rows in 8 folds: the largest has 3, which leaves 17 for two modalities.
    assert most_negatives(20, 3) == 8
    assert most_negatives(1, 2) == 0
    folds = list(draw_folds(torch.arange(20), 3, 8, 1, torch.Generator().manual_seed(0)))
    assert all(fold.negatives.shape == (2, 8) for fold in folds)


@pytest.mark.parametrize("modalities", [2, 3, 4])
@pytest.mark.parametrize("hedge", [0.0, 0.2])
def test_values_are_the_loop_over_tuples(modalities: int, hedge: float) -> None:
    tensors, scale, k = batch(modalities, 12, 3), 0.7, 2
    rows = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    fold = Fold(rows[:4], rows[4 : 4 + (modalities - 1) * k].view(modalities - 1, k))
    for anchor in range(modalities):
        expected = []
        for i in fold.positives.tolist():
            exponentials = []
            for column in range(-1, k):  # -1: the positive tuple
                others = iter(fold.negatives[:, column].tolist() if column >= 0 else [i] * (modalities - 1))
                factors = [tensor[i] if m == anchor else tensor[next(others)] for m, tensor in enumerate(tensors)]
                exponentials.append(math.exp(scale * float(torch.stack(factors).prod(dim=0).sum())))
            share = exponentials[0] / sum(exponentials)
            expected.append(math.log((1 - hedge) * (k + 1) * share + hedge))
        assert fold_values(tensors, anchor, fold, scale, hedge).values.tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("hedge", [0.0, 0.3])
def test_weights_are_derivatives_by_the_weight_of_a_negative(hedge: float) -> None:
    tensors, scale, k = batch(3, 20, 4), 0.9, 5
    rows = torch.randperm(20, generator=torch.Generator().manual_seed(2))
    fold = Fold(rows[:6], rows[6:16].view(2, k))
    logarithms = torch.zeros(k, dtype=torch.float64, requires_grad=True)
    positive, negative = next(fold_scores(tensors, 1, fold))
    share = logarithms.softmax(dim=0)  # the negatives' weights keep their sum: a sample has as many negatives, others
    total = (scale * positive).exp() + k * ((scale * negative).exp() * share).sum(dim=1)
    values = ((1 - hedge) * (k + 1) * (scale * positive).exp() / total + hedge).log()
    (gradient,) = torch.autograd.grad(values.sum(), logarithms)
    result = fold_values(tensors, 1, fold, scale, hedge)
    torch.testing.assert_close(result.values, values.detach())
    torch.testing.assert_close(result.weights, -gradient)


def test_chunks_do_not_change_the_result(monkeypatch) -> None:
    tensors = batch(3, 60, 4)
    fold = next(draw_folds(torch.arange(60), 3, 20, 1, torch.Generator().manual_seed(0)))
    whole = fold_values(tensors, 0, fold, 1.0, 0.01)
    monkeypatch.setattr("clinical_symile.contrastive.marginal_negatives.CHUNK_ELEMENTS", 40)
    assert len(list(fold_scores(tensors, 0, fold))) == 4, "2 rows of 20 negatives at a time"
    parts = fold_values(tensors, 0, fold, 1.0, 0.01)
    torch.testing.assert_close(parts.values, whole.values)
    torch.testing.assert_close(parts.weights, whole.weights)


@given(order=st.permutations(range(4)), anchor=st.integers(0, 3), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=30)
def test_the_order_of_modalities_does_not_matter(order: list[int], anchor: int, seed: int) -> None:
    tensors = batch(4, 20, 3, seed)
    rows = torch.randperm(20, generator=torch.Generator().manual_seed(seed))
    drawn = dict(zip([m for m in range(4) if m != anchor], rows[5:].view(3, 5), strict=True))
    one = fold_values(tensors, anchor, Fold(rows[:5], torch.stack(list(drawn.values()))), 1.0, 0.01)
    moved = Fold(rows[:5], torch.stack([drawn[m] for m in order if m != anchor]))
    other = fold_values([tensors[m] for m in order], order.index(anchor), moved, 1.0, 0.01)
    torch.testing.assert_close(one.values, other.values)
    torch.testing.assert_close(one.weights, other.weights)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e6])
def test_values_stay_finite_and_within_their_limits(scale: float) -> None:
    tensors = batch(3, 40, 8)
    for fold in draw_folds(torch.arange(40), 3, 15, 1, torch.Generator().manual_seed(0)):
        values, weights = fold_values(tensors, 2, fold, scale, 0.01)
        assert values.isfinite().all()
        assert weights.isfinite().all()
        assert values.max() <= math.log(16)
        assert values.min() >= math.log(0.01) - 1e-12

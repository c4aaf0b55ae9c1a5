"""The XOR family: every closed form against enumeration of the joint law, and samples against the law."""

from __future__ import annotations

import doctest
import itertools
import math
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clinical_symile.simulation import xor
from clinical_symile.simulation.xor import (
    all_bit_vectors,
    bit_vector_rows,
    sample_xor,
    xor_bayes_accuracy,
    xor_information,
    xor_total_correlation,
)

EVERY_P = [0.0, 0.05, 0.3, 0.5, 0.7, 0.9, 1.0]


def joint_law(bits: int, p_hat: float) -> np.ndarray:
    """p[a, b, c] by going through all outcomes of a, b and the coin."""
    size = 2**bits
    table = np.zeros((size,) * 3)
    for a, b in itertools.product(range(size), repeat=2):
        table[a, b, a ^ b] += p_hat / size**2
        table[a, b, a] += (1 - p_hat) / size**2
    return table


def entropy(table: np.ndarray, keep: tuple[int, ...]) -> float:
    marginal = table.sum(axis=tuple(axis for axis in range(table.ndim) if axis not in keep))
    positive = marginal[marginal > 0]
    return float(-(positive * np.log(positive)).sum())


@pytest.mark.parametrize("bits", [1, 2, 3])
@pytest.mark.parametrize("p_hat", EVERY_P)
def test_every_information_equals_enumeration(bits: int, p_hat: float) -> None:
    table = joint_law(bits, p_hat)
    h = {keep: entropy(table, keep) for size in (1, 2, 3) for keep in combinations(range(3), size)}
    a, b, c, ab, ac, bc, abc = h[(0,)], h[(1,)], h[(2,)], h[(0, 1)], h[(0, 2)], h[(1, 2)], h[(0, 1, 2)]
    expected = {
        "total_correlation": a + b + c - abc,
        "dual_total_correlation": ab + ac + bc - 2 * abc,
        "i_ab": a + b - ab,
        "i_ac": a + c - ac,
        "i_bc": b + c - bc,
        "i_ab_given_c": ac + bc - abc - c,
        "i_ac_given_b": ab + bc - abc - b,
        "i_bc_given_a": ab + ac - abc - a,
        "i_ab_c": ab + c - abc,
        "i_ac_b": ac + b - abc,
        "i_bc_a": bc + a - abc,
        "synergy": ab + ac + bc - a - b - c - abc,
    }
    information = vars(xor_information(bits, p_hat))
    assert information.keys() - expected.keys() == {"bayes_accuracy", "pairwise_accuracy"}
    for name, value in expected.items():
        assert information[name] == pytest.approx(value, abs=1e-12), name


@pytest.mark.parametrize("bits", [1, 2, 3])
@pytest.mark.parametrize("p_hat", EVERY_P)
def test_every_bayes_accuracy_equals_enumeration(bits: int, p_hat: float) -> None:
    table = joint_law(bits, p_hat)
    for position, target in enumerate(xor.NAMES):
        others = [name for name in xor.NAMES if name != target]
        for size in range(3):
            for known in combinations(others, size):
                unseen = tuple(axis for axis, name in enumerate(xor.NAMES) if name != target and name not in known)
                marginal = table.sum(axis=unseen, keepdims=True)
                expected = marginal.max(axis=position).sum()
                assert xor_bayes_accuracy(bits, p_hat, target, known) == pytest.approx(expected, abs=1e-12), (target, known)
    information = xor_information(bits, p_hat)
    assert information.bayes_accuracy == xor_bayes_accuracy(bits, p_hat) == pytest.approx(2**-bits + p_hat * (1 - 2**-bits))
    assert information.pairwise_accuracy == xor_bayes_accuracy(bits, p_hat, "b", ["a"]) == 2**-bits


@pytest.mark.parametrize(
    ("bits", "p_hat", "total", "i_ac"),
    [
        (5, 0.0, 3.466, 3.466),
        (5, 0.3, 2.874, 1.865),
        (5, 0.5, 2.794, 1.110),
        (5, 0.7, 2.874, 0.509),
        (5, 0.9, 3.151, 0.089),
        (5, 1.0, 3.466, 0.0),
        (1, 0.5, 0.3466, 0.1308),
        (1, 1.0, 0.6931, 0.0),
    ],
)
def test_figures_known_before(bits: int, p_hat: float, total: float, i_ac: float) -> None:
    information = xor_information(bits, p_hat)
    assert information.total_correlation == pytest.approx(total, abs=6e-4)
    assert information.i_ac == pytest.approx(i_ac, abs=6e-4)


@given(bits=st.integers(1, 60), p_hat=st.floats(0, 1))
@settings(deadline=None)
def test_laws_that_hold_for_any_distribution(bits: int, p_hat: float) -> None:
    x = xor_information(bits, p_hat)
    assert x.total_correlation == pytest.approx(x.i_ac + x.i_ac_b, abs=1e-9)
    assert -1e-9 <= x.i_ac <= x.total_correlation + 1e-9, "a part says no more than the whole"
    assert x.total_correlation <= bits * math.log(2) + 1e-9
    assert x.pairwise_accuracy <= x.bayes_accuracy <= 1


def test_no_pair_says_anything_at_p_1_exactly() -> None:
    for bits in (1, 5, 30, 52):
        assert xor_information(bits, 1.0).i_ac == 0.0
        assert xor_information(bits, 1.0).total_correlation == pytest.approx(bits * math.log(2), rel=1e-15)


@pytest.mark.parametrize(("bits", "modalities"), [(1, 4), (2, 4), (1, 6)])
def test_parity_has_one_vector_of_total_correlation(bits: int, modalities: int) -> None:
    size = 2**bits
    table = np.zeros((size,) * modalities)
    for rows in itertools.product(range(size), repeat=modalities - 1):
        parity = 0
        for row in rows:
            parity ^= row
        table[(*rows, parity)] = size ** -(modalities - 1)
    singles = sum(entropy(table, (axis,)) for axis in range(modalities))
    total = singles - entropy(table, tuple(range(modalities)))
    assert xor_total_correlation(bits, 1.0, modalities) == pytest.approx(total, abs=1e-12)
    fewer = entropy(table, tuple(range(modalities - 1)))
    assert fewer == pytest.approx((modalities - 1) * bits * math.log(2), abs=1e-12), "all but one are independent"


@pytest.mark.parametrize("p_hat", [0.0, 0.35, 1.0])
def test_samples_follow_the_law(p_hat: float) -> None:
    n, bits = 40_000, 2
    a, b, c = (bit_vector_rows(x) for x in sample_xor(n, bits, p_hat, torch.Generator().manual_seed(3)))
    seen = torch.bincount((a * 4 + b) * 4 + c, minlength=64).double() / n
    expected = torch.tensor(joint_law(bits, p_hat)).flatten()
    assert (seen - expected).abs().max() < 5 * math.sqrt(0.0625 / n)
    assert torch.all(seen[expected == 0] == 0), "an outcome of probability 0 was drawn"


@pytest.mark.parametrize("modalities", [3, 4, 8])
def test_the_last_modality_is_the_parity_of_the_others(modalities: int) -> None:
    *others, last = sample_xor(50, 3, 1.0, torch.Generator().manual_seed(0), modalities)
    assert len(others) == modalities - 1
    assert torch.equal(torch.stack(others).sum(dim=0) % 2, last)
    assert all(vector.dtype == torch.float32 and vector.shape == (50, 3) for vector in (*others, last))


def test_the_generator_alone_decides_and_coins_are_nested() -> None:
    def draw(p_hat: float, seed: int = 1) -> tuple[torch.Tensor, ...]:
        return sample_xor(2000, 5, p_hat, torch.Generator().manual_seed(seed))

    low, high = draw(0.3), draw(0.6)
    assert all(torch.equal(x, y) for x, y in zip(low, draw(0.3), strict=True))
    assert not torch.equal(low[0], draw(0.3, seed=2)[0])
    assert torch.equal(low[0], high[0])
    assert torch.equal(low[1], high[1])
    xored = [(c != a).any(dim=1) for a, _, c in (low, high)]
    assert torch.all(xored[1][xored[0]])
    assert xored[1].sum() > xored[0].sum()


def test_all_vectors_stand_at_their_rows() -> None:
    vectors = all_bit_vectors(4)
    assert vectors.shape == (16, 4)
    assert torch.equal(bit_vector_rows(vectors), torch.arange(16))
    assert len({tuple(row) for row in vectors.tolist()}) == 16


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sample_xor(3, 0, 1.0), "bits=0"),
        (lambda: sample_xor(-1, 2, 1.0), "n=-1"),
        (lambda: sample_xor(3, 2, 1.5), "p_hat=1.5"),
        (lambda: sample_xor(3, 2, 0.5, modalities=4), "p_hat=0.5 with 4 modalities"),
        (lambda: sample_xor(3, 2, 1.0, modalities=2), "modalities=2"),
        (lambda: xor_total_correlation(2, 0.9, 5), "p_hat=0.9 with 5 modalities"),
        (lambda: xor_information(2, float("nan")), "p_hat=nan"),
        (lambda: all_bit_vectors(21), "bits=21"),
        (lambda: xor_bayes_accuracy(2, 0.5, "d"), "target='d'"),
        (lambda: xor_bayes_accuracy(2, 0.5, "b", ["b"]), r"target='b', given=\['b'\]"),
    ],
)
def test_wrong_input_is_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_examples_in_docstrings() -> None:
    result = doctest.testmod(xor)
    assert result.attempted > 0
    assert result.failed == 0

"""The split into pairs and higher order against closed forms: XOR, copies, and trees found by enumeration."""

from __future__ import annotations

import doctest
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clinical_symile.contrastive import information_split
from clinical_symile.contrastive.information_split import CAVEAT, InformationSplit, best_tree, split_information
from clinical_symile.simulation.xor import bit_vector_rows, sample_xor, xor_information

NAMES = ("a", "b", "c")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def one_hot(rows: torch.Tensor, size: int) -> torch.Tensor:
    return torch.eye(size, dtype=torch.float64)[rows]


def xor_scores(n: int, bits: int, p_hat: float) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Representations whose products are the log density ratios of all three, and of each pair."""
    size = 2**bits
    values = torch.arange(size)
    a, b, c = torch.meshgrid(values, values, values, indexing="ij")
    density = size * (p_hat * (c == a ^ b) + (1 - p_hat) * (c == a)).double()
    rows = [bit_vector_rows(vector) for vector in sample_xor(n, bits, p_hat, seeded(0))]
    pairs = torch.cartesian_prod(values, values)
    triple = [(row.unsqueeze(1) == pairs[:, m]).double() for m, row in enumerate(rows[:2])]
    ratio = density.log().clamp(min=-30)
    everything = dict(zip(NAMES, [*triple, ratio.flatten(0, 1).T[rows[2]]], strict=True))
    pair_ratio = density.mean(dim=1).log().clamp(min=-30)  # of a and c; b is independent of each
    of_pairs = {"a": one_hot(rows[0], size), "b": torch.zeros(n, size, dtype=torch.float64), "c": pair_ratio.T[rows[2]]}
    return everything, of_pairs


def close(interval, truth: float, slack: float = 0.04) -> bool:
    return abs(interval.estimate - truth) < slack


@pytest.mark.parametrize(("bits", "p_hat"), [(1, 0.5), (2, 0.3), (2, 1.0)])
def test_xor_is_split_as_its_closed_form(bits: int, p_hat: float) -> None:
    truth = xor_information(bits, p_hat)
    everything, of_pairs = xor_scores(3000, bits, p_hat)
    split = split_information(everything, 1.0, of_pairs, 1.0, generator=seeded(1))
    assert close(split.total, truth.total_correlation)
    assert close(split.pairs["a", "c"], truth.i_ac)
    assert split.pairs["a", "b"].estimate == split.pairs["b", "c"].estimate == 0
    assert split.tree == ((("a", "c"),) if p_hat < 1 else ())
    assert close(split.pairwise, truth.i_ac)
    assert close(split.higher_order, truth.total_correlation - truth.i_ac)
    assert split.synergy is not None
    assert close(split.synergy, truth.synergy)
    assert close(split.conditional["a", "b"], truth.i_ab_given_c)
    assert close(split.conditional["a", "c"], truth.i_ac_given_b)
    assert close(split.conditional["b", "c"], truth.i_bc_given_a)
    assert split.total.lower <= truth.total_correlation
    assert split.pairs["a", "c"].lower <= truth.i_ac + 1e-9


def copies() -> InformationSplit:
    code = {name: one_hot(torch.randint(0, 4, (1000,), generator=seeded(0)), 4) for name in NAMES}
    return split_information(code, 30.0, code, 30.0, generator=seeded(1))


def test_copies_have_no_higher_order_and_negative_synergy() -> None:
    # a = b = c, uniform on 4: TC = 2 log 4, every pair has log 4, a tree has two pairs.
    split = copies()
    log4 = 2 * torch.log(torch.tensor(2.0)).item()
    assert close(split.total, 2 * log4, 0.05)
    assert len(split.tree) == 2
    assert close(split.higher_order, 0, 0.05)
    assert split.synergy is not None
    assert close(split.synergy, -log4, 0.05)
    assert all(close(interval, 0, 0.05) for interval in split.conditional.values())


def test_differences_are_paired_on_the_same_rows() -> None:
    # The interval of the difference is narrower than independent measurements would have.
    everything, of_pairs = xor_scores(2000, 1, 0.5)
    split = split_information(everything, 1.0, of_pairs, 1.0, generator=seeded(1))
    half_widths = [interval.upper - interval.estimate for interval in (split.total, split.pairs["a", "c"], split.higher_order)]
    assert half_widths[2] < 0.95 * (half_widths[0] ** 2 + half_widths[1] ** 2) ** 0.5
    assert split.higher_order.estimate == pytest.approx(split.total.estimate - split.pairwise.estimate)


def test_the_text_says_what_it_does_not_prove() -> None:
    text = copies().describe()
    assert text.endswith(CAVEAT)
    assert "a–b 1.3" in text


def test_four_modalities_have_a_tree_and_no_synergy() -> None:
    rows = torch.randint(0, 2, (600,), generator=seeded(0))
    other = torch.randint(0, 2, (600,), generator=seeded(1))
    code = [one_hot(rows, 2), one_hot(rows, 2), one_hot(other, 2), one_hot(other, 2)]
    split = split_information(code, 0.5, code, 20.0, generator=seeded(2), negatives=100)
    assert split.tree[:2] == (("0", "1"), ("2", "3")) or split.tree[:2] == (("2", "3"), ("0", "1"))
    assert split.synergy is None
    assert split.conditional == {}
    assert split.total.negatives == split.pairs["0", "1"].negatives == 100


def test_incomplete_rows_are_used_nowhere_and_each_pair_has_its_scale() -> None:
    everything, of_pairs = xor_scores(500, 1, 0.5)
    complete = torch.arange(500) < 400
    present = {"a": complete, "b": torch.ones(500, dtype=torch.bool), "c": torch.ones(500, dtype=torch.bool)}
    scales = {("a", "b"): 3.0, ("a", "c"): 1.0, ("b", "c"): 0.0}
    split = split_information(everything, 1.0, of_pairs, scales, generator=seeded(1), present=present)
    cut = [{name: r[:400] for name, r in reps.items()} for reps in (everything, of_pairs)]
    assert split == split_information(cut[0], 1.0, cut[1], scales, generator=seeded(1))
    assert split.total.rows == split.pairs["b", "c"].rows == 400
    assert split_information(everything, 1.0, of_pairs, 0.0, generator=seeded(1)).pairs["a", "c"].estimate == 0


@given(modalities=st.integers(2, 5), seed=st.integers(0, 9999))
@settings(deadline=None, max_examples=60)
def test_the_best_tree_is_the_best_of_all_forests(modalities: int, seed: int) -> None:
    names = [str(m) for m in range(modalities)]
    pairs = list(combinations(names, 2))
    values = (torch.rand(len(pairs), generator=seeded(seed)) - 0.2).tolist()
    informations = dict(zip(pairs, values, strict=True))

    def loops(edges: tuple[tuple[str, str], ...]) -> bool:
        reached = [{name} for name in names]
        for x, y in edges:
            one, other = (next(part for part in reached if name in part) for name in (x, y))
            if one is other:
                return True
            one |= other
            reached.remove(other)
        return False

    forests = [edges for size in range(modalities) for edges in combinations(pairs, size) if not loops(edges)]
    best = max(sum(informations[pair] for pair in forest) for forest in forests)
    tree = best_tree(informations)
    assert not loops(tree)
    assert sum(informations[pair] for pair in tree) == pytest.approx(best)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"representations": [torch.ones(20, 2)] * 2}, "at least 3 modalities, but got 2"),
        ({"pair_representations": [torch.ones(20, 2)] * 2}, "pair_representations are 2 modalities"),
        ({"pair_representations": [torch.ones(19, 2)] * 3}, "of 19 rows; expected .* of 20 rows"),
        ({"pair_representations": dict.fromkeys("xyz", torch.ones(20, 2))}, r"\['x', 'y', 'z'\]"),
        ({"pair_logit_scale": {("0", "1"): 1.0}}, "pair_logit_scale is of the pairs"),
        ({"confidence": 2.0}, "confidence=2.0"),
    ],
)
def test_wrong_input_is_named(change, message: str) -> None:
    arguments = {
        "representations": [torch.ones(20, 2)] * 3,
        "logit_scale": 1.0,
        "pair_representations": [torch.ones(20, 2)] * 3,
        "pair_logit_scale": 1.0,
    }
    with pytest.raises(ValueError, match=message):
        split_information(**{**arguments, **change}, generator=seeded(0))


def test_examples_in_docstrings() -> None:
    result = doctest.testmod(information_split)
    assert result.attempted > 0
    assert result.failed == 0

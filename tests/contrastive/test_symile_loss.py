"""The Symile loss against a loop written from its definition, closed forms, the authors' package and autograd."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clinical_symile.contrastive import PairwiseCLIPLoss, SymileLoss, pairwise_clip_loss, symile_loss, tuples_per_row
from clinical_symile.contrastive.sampled_tuples import draw_negatives
from clinical_symile.contrastive.tuple_cube import Tiling

TILINGS = [
    Tiling(block_elements=1, columns=2, kept_elements=0),  # slice by slice, computed again in backward
    Tiling(block_elements=1 << 22, columns=512, kept_elements=1 << 22),  # one block, kept
    Tiling(block_elements=30, columns=2, kept_elements=40),  # some slices at a time, the first of them kept
]

GOLDEN = json.loads((Path(__file__).parent / "golden" / "symile_0_1_0.json").read_text())


def batch(modalities: int, n: int, d: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, d, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(modalities)]


def loop_n_squared(representations: list[torch.Tensor], scale: float) -> torch.Tensor:
    """- mean over anchors and rows of log softmax(positive), one tuple at a time."""
    n, terms = len(representations[0]), []
    for position, anchor in enumerate(representations):
        others = representations[:position] + representations[position + 1 :]
        for i in range(n):
            logits = {}
            for rows in itertools.product(range(n), repeat=len(others)):
                factors = torch.stack([anchor[i], *(other[row] for other, row in zip(others, rows, strict=True))])
                logits[rows] = scale * factors.prod(dim=0).sum()
            positive = logits[(i,) * len(others)]
            terms.append(torch.stack(list(logits.values())).logsumexp(dim=0) - positive)
    return torch.stack(terms).mean()


def loss_and_gradients(loss: torch.Tensor, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    return [loss.detach(), *torch.autograd.grad(loss, inputs)]


@pytest.mark.parametrize(("modalities", "n"), [(2, 5), (3, 4), (4, 3), (5, 2)])
@pytest.mark.parametrize("tiling", TILINGS, ids=str)
def test_n_squared_is_the_loop_over_all_tuples(modalities: int, n: int, tiling: Tiling) -> None:
    representations = batch(modalities, n, 3)
    streamed = symile_loss(representations, 0.8, "n_squared", tiling=tiling)
    expected = loss_and_gradients(loop_n_squared(representations, 0.8), representations)
    for ours, theirs in zip(loss_and_gradients(streamed, representations), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("modalities", [2, 3, 4])
@pytest.mark.parametrize("tiling", TILINGS[:2], ids=str)
def test_gradcheck(modalities: int, tiling: Tiling) -> None:
    scale = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)

    def loss(scale: torch.Tensor, *representations: torch.Tensor) -> torch.Tensor:
        return 3 * symile_loss(representations, scale, "n_squared", tiling=tiling)

    assert torch.autograd.gradcheck(loss, (scale, *batch(modalities, 3, 2)))


@pytest.mark.parametrize("golden", GOLDEN["losses"], ids=lambda case: f"{case['negative_sampling']}-{len(case['gradients'])}")
def test_value_and_gradients_equal_the_authors_package(golden: dict) -> None:
    representations = [torch.tensor(r, dtype=torch.float64, requires_grad=True) for r in golden["representations"]]
    scale = torch.tensor(golden["logit_scale"], dtype=torch.float64, requires_grad=True)
    generator = torch.Generator().manual_seed(golden["seed"])
    loss = SymileLoss(golden["negative_sampling"], compatible=True)(representations, scale, generator)
    assert loss.item() == pytest.approx(golden["loss"], abs=1e-12)
    *gradients, scale_gradient = torch.autograd.grad(loss, [*representations, scale])
    torch.testing.assert_close(
        torch.stack(gradients), torch.tensor(golden["gradients"], dtype=torch.float64), rtol=1e-10, atol=1e-12
    )
    assert scale_gradient.item() == pytest.approx(golden["logit_scale_gradient"], abs=1e-12)


@pytest.mark.parametrize("how", ["n", "n_squared"])
@pytest.mark.parametrize("modalities", [2, 3, 4])
def test_nothing_to_tell_apart_costs_the_log_of_the_tuples(modalities: int, how) -> None:
    n = 4
    same = [torch.ones(n, 3, dtype=torch.float64)] * modalities
    assert SymileLoss(how)(same, 1.0).item() == pytest.approx(math.log(tuples_per_row(n, modalities, how)))


def test_a_perfect_code_costs_almost_nothing() -> None:
    # One-hot rows: only the positive tuple has a product that is not 0.
    one_hot = torch.eye(6, dtype=torch.float64)
    expected = math.log(1 + (6**2 - 1) * math.exp(-30.0))
    assert symile_loss([one_hot] * 3, 30.0, "n_squared").item() == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("how", ["n", "n_squared"])
def test_two_modalities_are_clip(how) -> None:
    pair = batch(2, 7, 5)
    ours = loss_and_gradients(symile_loss(pair, 1.3, how), pair)
    clip = loss_and_gradients(pairwise_clip_loss(pair, 1.3), pair)
    for x, y in zip(ours, clip, strict=True):
        torch.testing.assert_close(x, y)


@given(n=st.integers(2, 12), modalities=st.integers(1, 4), seed=st.integers(0, 10_000))
@settings(deadline=None, max_examples=200)
def test_a_positive_tuple_is_never_a_negative(n: int, modalities: int, seed: int) -> None:
    negatives = draw_negatives(n, modalities, torch.Generator().manual_seed(seed))
    assert len(negatives) == modalities
    for permutation in negatives:
        assert sorted(permutation.tolist()) == list(range(n)), "every row serves as a negative exactly once"
    for column, rows in enumerate(zip(*(permutation.tolist() for permutation in negatives), strict=True)):
        owner = rows[0] if len(set(rows)) == 1 else None
        assert owner in (None, column), f"column {column} is the positive tuple of row {owner}"


def test_negatives_are_uniform_over_pairs_of_different_rows() -> None:
    n, draws = 4, 6000
    generator = torch.Generator().manual_seed(0)
    seen = torch.zeros(n, n)
    for _ in range(draws):
        first, second = draw_negatives(n, 2, generator)
        seen[first, second] += 1
    expected = draws * n / (n * (n - 1))
    off_diagonal = seen[~torch.eye(n, dtype=torch.bool)]
    assert seen.diagonal().sum() == 0
    assert (off_diagonal - expected).abs().max() < 5 * math.sqrt(expected), seen


def test_the_generator_alone_decides_the_negatives() -> None:
    representations = batch(3, 8, 4)
    loss = SymileLoss("n")
    values = set()
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        values.add(loss(representations, 1.0, generator=torch.Generator().manual_seed(7)).item())
    assert len(values) == 1
    assert loss(representations, 1.0, generator=torch.Generator().manual_seed(8)).item() not in values


@given(
    n=st.integers(2, 6),
    modalities=st.integers(2, 4),
    scale=st.floats(0.01, 50),
    block=st.integers(1, 400),
    kept=st.integers(0, 400),
    columns=st.integers(1, 4),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=40)
def test_block_size_and_order_of_modalities_do_not_matter(
    n: int, modalities: int, scale: float, block: int, kept: int, columns: int, seed: int
) -> None:
    representations = batch(modalities, n, 3, seed)
    value = symile_loss(representations, scale, "n_squared").item()
    tiling = Tiling(block, columns, kept)
    assert symile_loss(representations, scale, "n_squared", tiling=tiling).item() == pytest.approx(value, rel=1e-12, abs=1e-12)
    assert symile_loss(representations[::-1], scale, "n_squared").item() == pytest.approx(value, rel=1e-12, abs=1e-12)


def test_large_logits_stay_finite() -> None:
    representations = [1e3 * r.detach().float().requires_grad_() for r in batch(3, 5, 4)]
    loss = symile_loss(representations, 10.0, "n_squared")
    assert torch.isfinite(loss)
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(loss, representations))


@pytest.mark.parametrize("modalities", [3, 4])
def test_log_sum_exps_far_apart_are_exact_too(modalities: int) -> None:
    # Rows of very different length: one anchor's log-sum-exp is near 0, another's above 1,000.
    lengths = torch.logspace(-2, 1, 4, dtype=torch.float64)[:, None]
    representations = [(lengths * r.detach()).requires_grad_() for r in batch(modalities, 4, 3)]
    expected = loss_and_gradients(loop_n_squared(representations, 0.8), representations)
    ours = loss_and_gradients(symile_loss(representations, 0.8, "n_squared", tiling=TILINGS[2]), representations)
    for x, y in zip(ours, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("scale", [0.0, -0.5])
def test_a_scale_that_is_not_positive_is_a_number_like_others(scale: float) -> None:
    representations = batch(3, 4, 3)
    s = torch.tensor(scale, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s, *r: symile_loss(r, s, "n_squared"), (s, *representations))


def test_backward_twice_gives_the_same() -> None:
    representations = batch(3, 4, 3)
    loss = symile_loss(representations, 0.8, "n_squared", tiling=TILINGS[1])
    first = torch.autograd.grad(loss, representations, retain_graph=True)
    assert all(torch.equal(x, y) for x, y in zip(first, torch.autograd.grad(loss, representations), strict=True))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 3e-3)])
def test_rounded_operands_of_products_stay_close(dtype: torch.dtype, tolerance: float) -> None:
    representations = [r.detach().float().requires_grad_() for r in batch(3, 16, 64)]
    exact = loss_and_gradients(symile_loss(representations, 0.1, "n_squared"), representations)
    rounded = loss_and_gradients(SymileLoss("n_squared", product_dtype=dtype)(representations, 0.1), representations)
    assert rounded[0].dtype == torch.float32
    for x, y in zip(rounded, exact, strict=True):
        error = (x - y).norm() / y.norm()
        assert 0 < error < tolerance, "rounded, and by no more than the dtype's own error"


def test_the_authors_draw_meets_its_own_positive_and_ours_does_not() -> None:
    # One-hot rows, large scale: a negative scores only if it is the row's own positive tuple, which then costs log 2.
    one_hot = [100 * torch.eye(5, dtype=torch.float64)] * 3
    generator = torch.Generator().manual_seed(0)
    theirs = [symile_loss(one_hot, 1.0, "n", generator=generator, compatible=True).item() for _ in range(200)]
    ours = [symile_loss(one_hot, 1.0, "n", generator=generator).item() for _ in range(200)]
    assert max(ours) < 1e-12
    assert sum(value > 0.01 for value in theirs) > 100


@pytest.mark.parametrize("loss", [SymileLoss("n_squared"), SymileLoss("n"), PairwiseCLIPLoss()])
def test_autocast_does_not_lower_the_precision(loss) -> None:
    representations = [r.detach().float() for r in batch(3, 6, 300)]
    expected = loss(representations, 0.1, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(representations, 0.1, generator=torch.Generator().manual_seed(0))
    assert inside.dtype == torch.float32
    assert inside.item() == expected.item()


def test_a_mapping_is_as_good_as_a_list() -> None:
    a, b, c = batch(3, 4, 3)
    named = symile_loss({"cxr": a, "ecg": b, "labs": c}, 1.0, "n_squared")
    assert named.item() == symile_loss([a, b, c], 1.0, "n_squared").item()


def test_clip_loss_is_the_sum_over_pairs() -> None:
    a, b, c = batch(3, 5, 4)
    n = torch.arange(5)
    pairs = []
    for x, y in [(a, b), (a, c), (b, c)]:
        logits = 0.9 * x @ y.T
        rows = -torch.stack([logits[i].log_softmax(0)[i] for i in n]).mean()
        columns = -torch.stack([logits[:, i].log_softmax(0)[i] for i in n]).mean()
        pairs.append((rows + columns) / 2)
    assert PairwiseCLIPLoss()([a, b, c], 0.9).item() == pytest.approx(sum(pairs).item())
    assert PairwiseCLIPLoss("mean")([a, b, c], 0.9).item() == pytest.approx(sum(pairs).item() / 3)
    assert torch.autograd.gradcheck(lambda *r: pairwise_clip_loss(r, 0.9), (a, b, c))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SymileLoss("all"), "negative_sampling='all'; choose 'n' or 'n_squared'"),
        (lambda: symile_loss([torch.ones(2, 2)] * 2, 1.0, "n2"), "negative_sampling='n2'"),
        (lambda: symile_loss([torch.ones(2, 2)] * 3, 1.0, product_dtype=torch.int8), "product_dtype=torch.int8"),
        (lambda: symile_loss([torch.ones(1, 2)] * 3, 1.0), "at least 2 rows, but got 1"),
        (lambda: symile_loss([torch.ones(2, 2)], 1.0), "at least 2 modalities, but got 1"),
        (lambda: PairwiseCLIPLoss("total"), "reduction='total'"),
        (lambda: pairwise_clip_loss([torch.ones(1, 2)] * 3, 1.0), "at least 2 rows"),
    ],
)
def test_wrong_input_is_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_modules_say_what_they_are() -> None:
    assert repr(SymileLoss("n_squared")) == "SymileLoss(negative_sampling='n_squared')"
    assert repr(PairwiseCLIPLoss()) == "PairwiseCLIPLoss(reduction='sum')"

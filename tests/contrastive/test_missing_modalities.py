"""Samples that lack a modality: tuples count only where they are defined, and an absent part never matters."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clinical_symile.contrastive import (
    MissingRepresentation,
    PairwiseCLIPLoss,
    SymileLoss,
    pairwise_retrieval_scores,
    retrieval_scores,
    symile_loss,
)
from clinical_symile.contrastive.sampled_tuples import draw_present_negatives

LOSSES = {"n": SymileLoss("n"), "n_squared": SymileLoss("n_squared"), "clip": PairwiseCLIPLoss()}


def incomplete(modalities: int, n: int, d: int, seed: int, share: float) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Representations with NaN where a modality is absent, and which are there."""
    generator = torch.Generator().manual_seed(seed)
    present = [torch.rand(n, generator=generator) >= share for _ in range(modalities)]
    representations = [torch.randn(n, d, generator=generator, dtype=torch.float64) for _ in range(modalities)]
    filled = [r.masked_fill(~flag[:, None], torch.nan).requires_grad_() for r, flag in zip(representations, present, strict=True)]
    return filled, present


def loop_n_squared(representations: list[torch.Tensor], present: list[torch.Tensor], scale: float) -> torch.Tensor:
    """Every anchor that has a complete tuple, against every tuple whose parts are all there."""
    n, terms = len(present[0]), []
    complete = [i for i in range(n) if all(flag[i] for flag in present)]
    for position, anchor in enumerate(representations):
        others = [m for m in range(len(representations)) if m != position]
        rows_of = [[i for i in range(n) if present[m][i]] for m in others]
        for i in complete:
            logits = {}
            for rows in itertools.product(*rows_of):
                factors = torch.stack([anchor[i], *(representations[m][row] for m, row in zip(others, rows, strict=True))])
                logits[rows] = scale * factors.prod(dim=0).sum()
            terms.append(torch.stack(list(logits.values())).logsumexp(dim=0) - logits[(i,) * len(others)])
    return torch.stack(terms).mean() if terms else torch.zeros((), dtype=torch.float64)


@given(modalities=st.integers(3, 4), n=st.integers(2, 5), seed=st.integers(0, 999), share=st.sampled_from([0.1, 0.3, 0.6]))
@settings(deadline=None, max_examples=40)
def test_n_squared_is_the_loop_over_the_tuples_that_are_there(modalities: int, n: int, seed: int, share: float) -> None:
    representations, present = incomplete(modalities, n, 3, seed, share)
    loss = symile_loss(representations, 0.7, "n_squared", present=present)
    gradients = torch.autograd.grad(loss, representations)
    known = [r.detach().nan_to_num(7.0).requires_grad_() for r in representations]
    expected = loop_n_squared(known, present, 0.7)
    torch.testing.assert_close(loss, expected)
    if expected.requires_grad:
        for ours, theirs in zip(gradients, torch.autograd.grad(expected, known, allow_unused=True), strict=True):
            torch.testing.assert_close(ours, torch.zeros_like(ours) if theirs is None else theirs)


def test_clip_counts_a_row_in_the_pairs_that_it_has() -> None:
    (a, b, c), present = incomplete(3, 7, 4, seed=3, share=0.35)
    terms = []
    for (x, has_x), (y, has_y) in itertools.combinations(zip((a, b, c), present, strict=True), 2):
        rows = [i for i in range(7) if has_x[i] and has_y[i]]
        for anchor, other, has_other in ((x, y, has_y), (y, x, has_x)):
            columns = [j for j in range(7) if has_other[j]]
            logits = [torch.stack([0.9 * anchor[i] @ other[j] for j in columns]) for i in rows]
            losses = [row.logsumexp(0) - row[columns.index(i)] for i, row in zip(rows, logits, strict=True)]
            terms.append(torch.stack(losses).mean() / 2)
    assert PairwiseCLIPLoss()([a, b, c], 0.9, present=present).item() == pytest.approx(sum(terms).item())


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
def test_nothing_missing_is_the_loss_without_presence(loss) -> None:
    representations, present = incomplete(3, 6, 4, seed=1, share=0.0)
    if loss is LOSSES["n"]:
        # Drawn otherwise, so only the mean over draws agrees.
        generator = torch.Generator().manual_seed(0)
        plain = torch.stack([loss(representations, 0.5, generator).detach() for _ in range(3000)])
        told = torch.stack([loss(representations, 0.5, generator, present=present).detach() for _ in range(3000)])
        assert abs(plain.mean() - told.mean()) < 0.05 * plain.mean()
    else:
        torch.testing.assert_close(loss(representations, 0.5, present=present), loss(representations, 0.5))


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
@pytest.mark.parametrize("absent", [(0,), (1, 2), (0, 1, 2)], ids=str)
def test_a_modality_absent_in_a_whole_batch_gives_no_nan(loss, absent: tuple[int, ...]) -> None:
    representations, present = incomplete(3, 5, 4, seed=2, share=0.2)
    for modality in absent:
        present[modality][:] = False
    scale = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    value = loss(representations, scale, torch.Generator().manual_seed(0), present=present)
    assert torch.isfinite(value)
    if loss is not LOSSES["clip"] or len(absent) > 1:
        assert value == 0
    gradients = torch.autograd.grad(value, [*representations, scale])
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_tuples_without_any_anchor_may_score_anything() -> None:
    # Rows 5, 6 and 7 have one modality each: their tuple is in nobody's softmax, and its logit is 1,000.
    present = [torch.tensor([True] * 5 + [m == 0, m == 1, m == 2]) for m in range(3)]
    representations = [torch.randn(8, 4, generator=torch.Generator().manual_seed(m)) for m in range(3)]
    for m, r in enumerate(representations):
        r[:5, 0] = 0
        r[5 + m] = torch.tensor([10.0, 0, 0, 0])
        r.requires_grad_()
    loss = symile_loss(representations, 1.0, "n_squared", present=present)
    gradients = torch.autograd.grad(loss, representations)
    doubles = [r.detach().double().requires_grad_() for r in representations]
    expected = loop_n_squared(doubles, present, 1.0)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(gradients, torch.autograd.grad(expected, doubles), strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
def test_what_stands_in_an_absent_row_never_matters(loss) -> None:
    representations, present = incomplete(4, 9, 4, seed=5, share=0.15)
    assert not all(flag.all() for flag in present)
    other = [r.detach().nan_to_num(1e9) for r in representations]
    values = {loss(r, 0.5, torch.Generator().manual_seed(0), present=present).item() for r in (representations, other)}
    assert len(values) == 1


@given(n=st.integers(1, 9), seed=st.integers(0, 999))
@settings(deadline=None, max_examples=50)
def test_drawn_negatives_are_rows_that_have_the_modality(n: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    present = [torch.rand(n, generator=generator) < 0.7 for _ in range(3)]
    count = min(int(flag.sum()) for flag in present)
    for rows, flag in zip(draw_present_negatives(present, count, generator), present, strict=True):
        assert len(set(rows.tolist())) == count
        assert flag[rows].all()


def test_no_row_meets_its_own_positive_as_a_negative() -> None:
    # Two complete rows: the drawn columns are (0, 0) and (1, 1), or (0, 1) and (1, 0). One-hot rows with a large scale: only
    # the positive tuple scores, so a row that met it again would pay log 2.
    one_hot = [100 * torch.eye(2, 3, dtype=torch.float64)] * 3
    everything = [torch.ones(2, dtype=torch.bool)] * 3
    generator = torch.Generator().manual_seed(0)
    values = [symile_loss(one_hot, 1.0, "n", generator=generator, present=everything).item() for _ in range(40)]
    assert max(values) < 1e-12


@pytest.mark.parametrize("score", [retrieval_scores, pairwise_retrieval_scores])
def test_a_query_without_a_modality_ranks_as_if_it_had_never_been(score) -> None:
    (candidates, ecg, labs), _ = incomplete(3, 6, 4, seed=4, share=0.0)
    present = [torch.tensor([True, True, False, True, False, True]), torch.tensor([True, False, True, True, True, False])]
    broken = labs.masked_fill(~present[1][:, None], torch.nan)
    scores = score(candidates, [ecg, broken], present)
    for i in range(6):
        parts = [query[i] for query, flag in zip((ecg, labs), present, strict=True) if flag[i]]
        torch.testing.assert_close(scores[i], score(candidates, parts)[0])


def test_learned_vectors_replace_what_is_absent_and_learn() -> None:
    fill = MissingRepresentation(["cxr", "labs"], embed_dim=3)
    labs = torch.full((2, 3), torch.nan)
    labs[0] = 5.0
    inputs = {"cxr": torch.ones(2, 3, requires_grad=True), "labs": labs.requires_grad_()}
    present = {"cxr": torch.tensor([True, True]), "labs": torch.tensor([True, False])}
    filled = fill(inputs, present)
    assert filled["labs"].tolist() == [[5.0] * 3, [1.0] * 3]
    (2 * filled["labs"]).sum().backward()
    assert fill.vectors["labs"].grad.tolist() == [2.0] * 3
    assert inputs["labs"].grad.tolist() == [[2.0] * 3, [0.0] * 3], "an absent row gets no gradient"
    assert fill(inputs, None)["labs"] is inputs["labs"]
    assert MissingRepresentation(3, 2, start=0.0).vectors["2"].tolist() == [0.0, 0.0]


ONES, ALL = torch.ones(2, 2), torch.ones(2, dtype=torch.bool)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: symile_loss([ONES] * 3, 1.0, present=[ALL] * 2), r"describes the modalities \[0, 1\]"),
        (lambda: symile_loss({"a": ONES, "b": ONES}, 1.0, present={"a": ONES[0], "b": ALL}), r"\['a'\] is torch.float32"),
        (lambda: symile_loss([ONES] * 2, 1.0, present=[ALL, torch.ones(3, dtype=torch.bool)]), r"shape \(3,\)"),
        (lambda: SymileLoss(compatible=True)([ONES] * 2, 1.0, present=[ALL] * 2), "leave present out"),
        (lambda: retrieval_scores(ONES, [ONES], [torch.tensor([True, False])]), "1 of 2 query rows have no modality"),
        (lambda: MissingRepresentation([], 3), "at least one of each"),
        (lambda: MissingRepresentation(["a"], 2)({"b": ONES}, None), r"no representation is learned for \['b'\]"),
    ],
)
def test_wrong_input_is_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()

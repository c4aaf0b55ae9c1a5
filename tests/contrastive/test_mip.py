"""The multilinear inner product and the retrieval score, against loops, closed forms and the authors' package."""

from __future__ import annotations

import doctest
import importlib
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clinical_symile.contrastive import multilinear_inner_product, pairwise_retrieval_scores, retrieval_scores

GOLDEN = json.loads((Path(__file__).parent / "golden" / "symile_0_1_0.json").read_text())


def loop_mip(*vectors: torch.Tensor) -> float:
    total = 0.0
    for coordinate in zip(*(vector.tolist() for vector in vectors), strict=True):
        term = 1.0
        for value in coordinate:
            term *= value
        total += term
    return total


def batch(modalities: int, n: int, d: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, d, generator=generator, dtype=torch.float64) for _ in range(modalities)]


@given(modalities=st.integers(1, 5), n=st.integers(1, 4), d=st.integers(1, 6), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_mip_is_the_loop_over_rows_and_coordinates(modalities: int, n: int, d: int, seed: int) -> None:
    representations = batch(modalities, n, d, seed)
    expected = [loop_mip(*(r[i] for r in representations)) for i in range(n)]
    assert multilinear_inner_product(representations).tolist() == pytest.approx(expected, abs=1e-12)


@given(d=st.integers(1, 8), modalities=st.integers(2, 5), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=20)
def test_mip_is_linear_in_each_modality_and_symmetric(d: int, modalities: int, seed: int) -> None:
    first, *others = batch(modalities, 3, d, seed)
    replacement = batch(1, 3, d, seed + 100)[0]
    mixed = multilinear_inner_product([2 * first - 3 * replacement, *others])
    separate = 2 * multilinear_inner_product([first, *others]) - 3 * multilinear_inner_product([replacement, *others])
    torch.testing.assert_close(mixed, separate)
    torch.testing.assert_close(multilinear_inner_product([first, *others]), multilinear_inner_product([*others, first]))


def test_mip_of_two_is_the_dot_product() -> None:
    a, b = batch(2, 4, 7)
    torch.testing.assert_close(multilinear_inner_product({"a": a, "b": b}), torch.linalg.vecdot(a, b))


def test_scores_are_mips_of_every_pair() -> None:
    candidates = batch(1, 5, 3, seed=1)[0]
    ecg, labs = batch(2, 2, 3, seed=2)
    scores = retrieval_scores(candidates, [ecg, labs])
    expected = [[loop_mip(ecg[i], labs[i], candidate) for candidate in candidates] for i in range(2)]
    torch.testing.assert_close(scores, torch.tensor(expected, dtype=torch.float64))


def test_scores_equal_the_authors_package() -> None:
    golden = {key: torch.tensor(value, dtype=torch.float64) for key, value in GOLDEN["retrieval"].items()}
    torch.testing.assert_close(retrieval_scores(golden["candidates"], list(golden["queries"])), golden["scores"])


@pytest.mark.parametrize("score", [retrieval_scores, pairwise_retrieval_scores])
def test_a_single_query_row_goes_with_many(score) -> None:
    candidates, ecg = batch(2, 4, 3)
    labs = batch(1, 1, 3, seed=5)[0]
    repeated = score(candidates, [ecg, labs.repeat(4, 1)])
    torch.testing.assert_close(score(candidates, [ecg, labs]), repeated)
    torch.testing.assert_close(score(candidates, [ecg, labs[0]]), repeated)
    assert score(candidates, [labs[0]]).shape == (1, 4), "one vector is one query"


def test_pairwise_scores_are_sums_of_dot_products() -> None:
    candidates, ecg, labs = batch(3, 4, 3)
    scores = pairwise_retrieval_scores(candidates, [ecg, labs])
    torch.testing.assert_close(scores, ecg @ candidates.T + labs @ candidates.T)


@pytest.mark.parametrize("score", [retrieval_scores, pairwise_retrieval_scores])
def test_scoring_leaves_its_arguments_alone(score) -> None:
    # The authors' code writes into the caller's tensors.
    tensors = batch(3, 3, 4)
    before = [tensor.clone() for tensor in tensors]
    score(tensors[0], tensors[1:])
    assert all(torch.equal(x, y) for x, y in zip(before, tensors, strict=True))


def test_half_precision_adds_up_in_float32() -> None:
    ones = torch.ones(1, 4096, dtype=torch.bfloat16)
    assert multilinear_inner_product([ones, ones, ones]).item() == 4096, "a bfloat16 sum of ones stops at 256"
    assert retrieval_scores(ones, [ones, ones]).dtype == torch.float32


@pytest.mark.parametrize("score", [retrieval_scores, pairwise_retrieval_scores])
def test_autocast_does_not_lower_the_precision_of_scores(score) -> None:
    tensors = [r.float() for r in batch(3, 4, 300)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = score(tensors[0], tensors[1:])
    assert torch.equal(inside, score(tensors[0], tensors[1:]))


def test_mixed_dtypes_are_promoted() -> None:
    r = torch.ones(2, 3)
    assert multilinear_inner_product([r.half(), r.double()]).dtype == torch.float64


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: multilinear_inner_product([]), "at least 1 modalities, but got 0"),
        (lambda: multilinear_inner_product({"ecg": torch.ones(3)}), r"'ecg' has shape \(3,\); expected \(n, d\)"),
        (lambda: multilinear_inner_product([torch.ones(3, 2), torch.ones(2, 2)]), "must have the same shape"),
        (lambda: multilinear_inner_product({"labs": torch.ones(2, 2, dtype=torch.int64)}), "'labs' is torch.int64"),
        (lambda: retrieval_scores(torch.ones(2), [torch.ones(2)]), r"candidates have shape \(2,\)"),
        (lambda: retrieval_scores(torch.ones(2, 3), []), "queries is empty"),
        (lambda: retrieval_scores(torch.ones(2, 3), [torch.ones(2, 4)]), r"query 0 has shape \(2, 4\)"),
        (lambda: retrieval_scores(torch.ones(2, 3), [torch.ones(2, 3), torch.ones(3, 3)]), "query 0 has 2 rows; expected 3"),
    ],
)
def test_wrong_input_is_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("module", ["mip", "symile_loss"])
def test_examples_in_docstrings(module: str) -> None:
    result = doctest.testmod(importlib.import_module(f"clinical_symile.contrastive.{module}"))
    assert result.attempted > 0
    assert result.failed == 0

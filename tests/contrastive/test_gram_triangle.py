"""GRAM and TRIANGLE against loops, determinants and known triangles; vectors that depend on each other; absent modalities."""

from __future__ import annotations

import doctest
import importlib
import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from clinical_symile.contrastive.gram import GramLoss, gram_retrieval_scores, gram_volume, safe_sqrt
from clinical_symile.contrastive.triangle import TriangleLoss, triangle_area, triangle_retrieval_scores


def batch(modalities: int, n: int, d: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, d, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(modalities)]


def unit(x: torch.Tensor) -> torch.Tensor:
    return x / x.square().sum().sqrt()


def leibniz_volume(vectors: list[torch.Tensor]) -> torch.Tensor:
    """The root of the determinant of dot products, as the sum over all permutations."""
    vectors = [unit(vector) for vector in vectors]
    determinant = torch.zeros((), dtype=vectors[0].dtype)
    for permutation in itertools.permutations(range(len(vectors))):
        inversions = sum(a > b for a, b in itertools.combinations(permutation, 2))
        term = torch.ones((), dtype=vectors[0].dtype)
        for row, column in enumerate(permutation):
            term = term * (vectors[row] @ vectors[column])
        determinant = determinant + (-1) ** inversions * term
    return determinant.sqrt()


def heron_area(vectors: list[torch.Tensor]) -> torch.Tensor:
    """The area from the three sides."""
    a, b, c = (unit(vector) for vector in vectors)
    x, y, z = ((p - q).square().sum().sqrt() for p, q in ((a, b), (b, c), (c, a)))
    half = (x + y + z) / 2
    return (half * (half - x) * (half - y) * (half - z)).sqrt()


def loop_loss(score, representations: list[torch.Tensor], scale: float, anchors: list[int], smoothing: float) -> torch.Tensor:
    n, losses = len(representations[0]), []
    for anchor in anchors:
        logits = {}
        for i, j in itertools.product(range(n), repeat=2):
            parts = [r[i] if m == anchor else r[j] for m, r in enumerate(representations)]
            logits[i, j] = scale * score(parts)
        for i in range(n):
            for row in ([logits[i, j] for j in range(n)], [logits[j, i] for j in range(n)]):
                log_softmax = torch.stack(row) - torch.stack(row).logsumexp(dim=0)
                losses.append(-(1 - smoothing) * log_softmax[i] - smoothing * log_softmax.mean())
    return torch.stack(losses).mean()


@pytest.mark.parametrize("modalities", [2, 3, 4, 5, 6])
def test_volumes_are_determinants(modalities: int) -> None:
    representations = batch(modalities, 4, 7)
    expected = torch.stack([leibniz_volume([r[i] for r in representations]) for i in range(4)])
    torch.testing.assert_close(gram_volume(representations), expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("modalities", [2, 3, 4, 5])
def test_scores_of_a_gallery_are_volumes_pair_by_pair(modalities: int) -> None:
    gallery, *queries = batch(modalities, 6, 7)
    queries = [query[:3] for query in queries]
    scores = gram_retrieval_scores(gallery, queries)
    for i, j in itertools.product(range(3), range(6)):
        expected = leibniz_volume([gallery[j], *(query[i] for query in queries)])
        assert -scores[i, j].item() == pytest.approx(expected.item(), rel=1e-9)
    one = gram_retrieval_scores(gallery, [query[0] for query in queries])
    torch.testing.assert_close(one, scores[:1])


def test_areas_are_herons() -> None:
    gallery, *queries = batch(3, 6, 5)
    rows = triangle_area([gallery, *queries], squared=False)
    squared = triangle_retrieval_scores(gallery, queries)
    area = triangle_retrieval_scores(gallery, queries, squared=False)
    for i, j in itertools.product(range(6), repeat=2):
        expected = heron_area([gallery[j], queries[0][i], queries[1][i]]).item()
        assert -area[i, j].item() == pytest.approx(expected, rel=1e-9)
        assert -squared[i, j].item() == pytest.approx(2 * expected**2, rel=1e-9)
    torch.testing.assert_close(rows, -area.diagonal())
    torch.testing.assert_close(triangle_area([gallery, *queries]), -squared.diagonal())


def test_known_shapes() -> None:
    east, north, up = (3.0 * axis[None] for axis in torch.eye(3, dtype=torch.float64))
    assert gram_volume([east, north, up]).item() == pytest.approx(1)
    diagonal = torch.tensor([[1.0, 1.0, 0.0]], dtype=torch.float64)
    assert gram_volume([east, diagonal, up]).item() == pytest.approx(math.sin(math.pi / 4))
    # A right triangle on the great circle: east, north, west: base 2, height 1.
    assert triangle_area([east, north, -east], squared=False).item() == pytest.approx(1)
    assert triangle_area([east, north, -east]).item() == pytest.approx(2)
    assert triangle_area([east, north, up], squared=False).item() == pytest.approx(math.sqrt(3) / 2)


LOSSES = [
    (lambda **o: GramLoss(**o), lambda parts: -leibniz_volume(parts)),
    (lambda **o: TriangleLoss(**o), lambda parts: -2 * heron_area(parts) ** 2),
    (lambda **o: TriangleLoss(squared=False, **o), lambda parts: -heron_area(parts)),
]


@pytest.mark.parametrize(("make", "score"), LOSSES, ids=["gram", "triangle", "triangle with root"])
@pytest.mark.parametrize(("anchor", "anchors"), [(0, [0]), ("labs", [2]), (None, [0, 1, 2])])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_and_gradients_are_the_loop(make, score, anchor, anchors: list[int], smoothing: float) -> None:
    representations = batch(3, 4, 5)
    named = dict(zip(["cxr", "ecg", "labs"], representations, strict=True))
    ours = make(anchor=anchor, label_smoothing=smoothing)(named, 3.0)
    expected = loop_loss(score, representations, 3.0, anchors, smoothing)
    assert ours.item() == pytest.approx(expected.item(), rel=1e-10)
    gradients = [torch.autograd.grad(loss, representations) for loss in (ours, expected)]
    for x, y in zip(*gradients, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(("make", "score"), LOSSES, ids=["gram", "triangle", "triangle with root"])
def test_gradcheck(make, score) -> None:
    scale = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda scale, *r: make(anchor=None)(r, scale), (scale, *batch(3, 3, 4)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("make", [pair[0] for pair in LOSSES], ids=["gram", "triangle", "triangle with root"])
@pytest.mark.parametrize("case", ["identical", "opposite", "zero", "two of three", "one dimension"])
def test_vectors_that_span_nothing_are_finite_with_finite_gradients(make, case: str, dtype: torch.dtype) -> None:
    a, b, c = (r.detach().to(dtype) for r in batch(3, 4, 1 if case == "one dimension" else 5))
    if case == "identical":
        b = c = a
    elif case == "opposite":
        b = -a
    elif case == "zero":
        b = torch.zeros_like(a)
    elif case == "two of three":
        b = 2 * a
    rows = [r.clone().requires_grad_() for r in (a, b, c)]
    loss = make(anchor=None)(rows, 1 / 0.07)
    loss.backward()
    assert torch.isfinite(loss)
    for row in rows:
        assert row.grad.abs().max() < 1e3 * max(1, 1 / row.detach().norm(dim=1).clamp_min(0.01).min())
    volumes, areas = gram_volume(rows), triangle_area(rows, squared=False)
    assert torch.isfinite(volumes).all()
    assert torch.isfinite(areas).all()
    if case != "zero":
        assert volumes.max() < 2e-3, "vectors that depend on each other span nothing"
    if case == "identical":
        assert areas.max() < 2e-3


def test_the_root_is_exact_above_its_threshold_and_smooth_at_it() -> None:
    x = torch.tensor([-1e-3, 0.0, 1e-20, 1e-15, 1e-4, 0.25, 2.0], dtype=torch.float64, requires_grad=True)
    root = safe_sqrt(x)
    assert root[:2].tolist() == [0, 0]
    torch.testing.assert_close(root[3:], x[3:].sqrt(), rtol=1e-14, atol=0)
    (slope,) = torch.autograd.grad(root.sum(), x)
    assert torch.isfinite(slope).all()
    threshold = torch.finfo(torch.float64).eps
    near = torch.tensor([threshold * 0.999, threshold * 1.001], dtype=torch.float64, requires_grad=True)
    (slopes,) = torch.autograd.grad(safe_sqrt(near).sum(), near)
    assert slopes[0].item() == pytest.approx(slopes[1].item(), rel=0.01)
    values = safe_sqrt(torch.linspace(0, 3 * threshold, 200, dtype=torch.float64))
    assert (values.diff() > 0).all(), "a larger volume never scores better"


@pytest.mark.parametrize("make", [pair[0] for pair in LOSSES], ids=["gram", "triangle", "triangle with root"])
def test_incomplete_rows_are_no_positives_and_broken_tuples_no_candidates(make) -> None:
    a, b, c = batch(3, 6, 4)
    flags = {
        "cxr": torch.tensor([1, 1, 1, 1, 1, 0]).bool(),
        "ecg": torch.tensor([1, 1, 1, 0, 1, 1]).bool(),
        "labs": torch.ones(6).bool(),
    }
    spoiled = {name: torch.where(flags[name][:, None], r, torch.nan) for name, r in zip(flags, (a, b, c), strict=True)}
    loss_fn = make(anchor="cxr", label_smoothing=0.1)
    loss = loss_fn(spoiled, 2.0, present=flags)
    scores = loss_fn.scores(F.normalize(a, dim=1), [F.normalize(b, dim=1), F.normalize(c, dim=1)]) * 2.0
    anchors, tuples, positives = [0, 1, 2, 3, 4], [0, 1, 2, 4, 5], [0, 1, 2, 4]
    terms = []
    for i in positives:
        target = torch.tensor([anchors.index(i)])
        terms.append(F.cross_entropy(scores[i, anchors][None], target, label_smoothing=0.1))
        target = torch.tensor([tuples.index(i)])
        terms.append(F.cross_entropy(scores[tuples, i][None], target, label_smoothing=0.1))
    assert loss.item() == pytest.approx(torch.stack(terms).mean().item(), rel=1e-12)
    for flag, gradient in zip(flags.values(), torch.autograd.grad(loss, (a, b, c)), strict=True):
        assert torch.isfinite(gradient).all()
        assert (gradient[~flag] == 0).all()


@pytest.mark.parametrize("make", [pair[0] for pair in LOSSES], ids=["gram", "triangle", "triangle with root"])
def test_a_modality_absent_in_a_whole_batch_costs_nothing(make) -> None:
    rows = batch(3, 5, 4)
    with torch.no_grad():
        rows[1].fill_(torch.nan)
    flags = [torch.ones(5).bool(), torch.zeros(5).bool(), torch.ones(5).bool()]
    loss = make(anchor=None)(rows, torch.tensor(1.0), present=flags)
    loss.backward()
    assert loss.item() == 0
    assert all((row.grad == 0).all() for row in rows)


def test_autocast_does_not_lower_the_precision() -> None:
    representations = [r.detach().float() for r in batch(3, 6, 64)]
    for loss in (GramLoss(), TriangleLoss()):
        expected = loss(representations, 10.0)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = loss(representations, 10.0)
        assert inside.dtype == torch.float32
        assert inside.item() == expected.item()


ONES = [torch.ones(3, 4)] * 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: GramLoss(label_smoothing=1.0), "label_smoothing=1.0"),
        (lambda: GramLoss("text")({"cxr": ONES[0], "ecg": ONES[0]}, 1.0), "anchor='text'; choose one of"),
        (lambda: GramLoss(3)(ONES, 1.0), "anchor=3"),
        (lambda: GramLoss()([torch.ones(1, 4)] * 3, 1.0), "at least 2 rows"),
        (lambda: TriangleLoss()(ONES[:2], 1.0), "three corners, but got 2"),
        (lambda: triangle_area(ONES[:2]), "three corners, but got 2"),
        (lambda: triangle_retrieval_scores(ONES[0], ONES[:1]), "two query modalities beside the candidate, but got 1"),
        (lambda: gram_retrieval_scores(ONES[0], []), "queries is empty"),
    ],
)
def test_wrong_input_is_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_modules_say_what_they_are() -> None:
    assert repr(GramLoss("labs")) == "GramLoss(anchor='labs', label_smoothing=0.1, gather=False)"
    assert repr(TriangleLoss(None)) == "TriangleLoss(anchor=None, label_smoothing=0.1, gather=False, squared=True)"


@pytest.mark.parametrize("module", ["gram", "triangle", "unit_vectors"])
def test_examples_in_docstrings(module: str) -> None:
    result = doctest.testmod(importlib.import_module(f"clinical_symile.contrastive.{module}"))
    assert result.attempted > 0
    assert result.failed == 0

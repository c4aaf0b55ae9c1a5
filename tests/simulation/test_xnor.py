"""The generator of Synthetic-XNOR: its law, its corruption, and what the best guess can reach."""

from __future__ import annotations

import doctest
import math

import pytest
import torch

from clinical_symile.simulation import xnor
from clinical_symile.simulation.xnor import matching_accuracy, sample_xnor


def draw(n: int = 4000, corruption: float = 0.0, seed: int = 0, **options) -> xnor.XnorSample:
    return sample_xnor(n, 16, corruption, torch.Generator().manual_seed(seed), **options)


def test_shapes_and_noise() -> None:
    rows = draw()
    for name, tensor in rows.modalities().items():
        assert tensor.shape == (4000, 128), name
        assert tensor[:, :48].abs().unique().tolist() == [1.0]
        noise = tensor[:, 48:]
        assert noise.mean().abs() < 0.02
        assert noise.std().item() == pytest.approx(3, rel=0.01)
    assert torch.corrcoef(torch.stack([rows.a[:, 60], rows.b[:, 60], rows.c[:, 60]])).fill_diagonal_(0).abs().max() < 0.08


def test_a_clean_row_is_the_product_of_its_parts() -> None:
    rows = draw()
    u, v, uv = rows.a[:, :48].split(16, dim=1)
    assert torch.equal(rows.b[:, :48], torch.cat([u, torch.ones_like(u), u], dim=1))
    assert torch.equal(rows.c[:, :48], torch.cat([torch.ones_like(u), v, v], dim=1))
    assert torch.equal(uv, torch.where(u == v, 1.0, -1.0)), "XNOR"
    assert torch.equal(rows.corrupted, torch.zeros(4000, dtype=torch.int64))
    bits = torch.cat([u, v], dim=1)
    assert bits.mean().abs() < 0.01
    assert torch.corrcoef(bits.T).fill_diagonal_(0).abs().max() < 5 / math.sqrt(4000)


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_exactly_one_modality_is_wrong_with_probability_p(p: float) -> None:
    clean, rows = draw(), draw(corruption=p)
    wrong_b = (rows.b != clean.b).any(dim=1)
    wrong_c = (rows.c != clean.c).any(dim=1)
    assert torch.equal(rows.a, clean.a)
    assert not (wrong_b & wrong_c).any()
    # A donor could have the same 16 bits, with probability 2^-16.
    assert ((rows.corrupted == 1) == wrong_b).float().mean() > 0.999
    assert ((rows.corrupted == 2) == wrong_c).float().mean() > 0.999
    tolerance = 4 * math.sqrt(0.25 / 4000)
    assert wrong_b.float().mean().item() == pytest.approx(p / 2, abs=tolerance)
    assert wrong_c.float().mean().item() == pytest.approx(p / 2, abs=tolerance)
    # The signal is another row's as it was, and the noise is the row's own.
    donors = {tuple(row) for row in clean.b[:, :48].tolist()}
    assert all(tuple(row) in donors for row in rows.b[wrong_b][:20, :48].tolist())
    assert torch.equal(rows.b[:, 48:], clean.b[:, 48:])


def test_more_corruption_keeps_what_is_already_corrupted() -> None:
    some, more = draw(corruption=0.2), draw(corruption=0.6)
    hit = some.corrupted > 0
    assert torch.equal(some.corrupted[hit], more.corrupted[hit])
    assert torch.equal(some.b[hit], more.b[hit])
    assert (more.corrupted > 0).sum() > hit.sum()


def test_the_best_guess_hardly_suffers_from_corruption() -> None:
    for p in (0.0, 0.5, 1.0):
        # Errors: the donor is in the batch of 128 (of 4,000 rows), and then wins half of the ties.
        assert matching_accuracy(draw(3968, p), 128) == pytest.approx(1 - p * 127 / 3967 / 2, abs=0.006)
    # Few bits: 2 x 2 different rows, of which a batch has many.
    rows = sample_xnor(512, 1, 0.0, torch.Generator().manual_seed(0), dimensions=3)
    assert matching_accuracy(rows, 128) == pytest.approx(4 / 128, abs=0.002)


def test_the_generator_decides() -> None:
    assert torch.equal(draw(seed=3, corruption=0.5).b, draw(seed=3, corruption=0.5).b)
    assert not torch.equal(draw(seed=3).b, draw(seed=4).b)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sample_xnor(1, 16, 0.5), "n=1"),
        (lambda: sample_xnor(4, 16, 0.5, dimensions=47), "dimensions=47"),
        (lambda: sample_xnor(4, 16, 1.5), "corruption=1.5"),
        (lambda: matching_accuracy(draw(100), 128), "batch_size=128 is larger than the sample of 100"),
    ],
)
def test_wrong_input_is_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_examples_in_docstrings() -> None:
    result = doctest.testmod(xnor)
    assert result.attempted > 0
    assert result.failed == 0

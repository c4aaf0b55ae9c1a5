r"""Synthetic-XNOR: a law in which one wrong modality spoils a product, and how often it is wrong is known.

``u`` and ``v`` are vectors of d fair bits, written as signs, so that their XNOR is their product. Three modalities carry

    a = [u, v, u v]      b = [u, 1, u]      c = [1, v, v]          so that  b c = a, coordinate by coordinate,

followed by coordinates of pure noise. With probability p a row is corrupted: the signal of exactly one of ``b`` and ``c``, either
with the same chance, is that of another row. It still looks like a valid signal; only its disagreement with ``a`` gives it away.

Either of ``u`` and ``v`` is enough to know the row among a batch, so even at p = 1, where exactly one of b and c is right, the
best guess of ``a`` is almost always right (``matching_accuracy``): what a model loses, it loses by trusting the wrong one.

Source of the generator: Rheude et al. 2026, https://arxiv.org/abs/2604.05834, and its code (d = 16 bits, signs of size 1, noise
of standard deviation 3, 128 dimensions).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

NAMES: Final = ("a", "b", "c")


@dataclass(frozen=True)
class XnorSample:
    """Rows of the law, and which of them are corrupted."""

    a: Tensor
    """(n, dimensions) float32."""
    b: Tensor
    c: Tensor
    corrupted: Tensor
    """(n,) int64: 0 for a clean row, 1 if ``b`` is wrong, 2 if ``c`` is."""
    bits: int

    def modalities(self) -> dict[str, Tensor]:
        """The three under their names."""
        return {"a": self.a, "b": self.b, "c": self.c}


def sample_xnor(
    n: int,
    bits: int,
    corruption: float,
    generator: torch.Generator | None = None,
    *,
    dimensions: int = 128,
    noise: float = 3.0,
) -> XnorSample:
    """Draws rows of the law.

    The same generator gives the same signals and the same noise whatever ``corruption``, and a row that is corrupted at one
    probability is corrupted in the same way at every larger one.

    Args:
        n: rows, at least 2.
        bits: d.
        corruption: p, the probability that a row has one wrong modality.
        generator: source of randomness, on the CPU.
        dimensions: of each modality; the first 3 d carry the signal.
        noise: standard deviation of the other coordinates.

    Raises:
        ValueError: fewer than 2 rows, no bits, ``dimensions`` below 3 d, or ``corruption`` outside [0, 1].

    Example:
        >>> rows = sample_xnor(4, bits=2, corruption=0.0, dimensions=6)
        >>> bool((rows.b * rows.c == rows.a).all())
        True
    """
    if n < 2 or bits < 1 or dimensions < 3 * bits:
        raise ValueError(f"n={n}, bits={bits}, dimensions={dimensions}; expected n >= 2, bits >= 1, dimensions >= 3 bits")
    if not 0 <= corruption <= 1:
        raise ValueError(f"corruption={corruption}; expected a probability in [0, 1]")
    u, v = (2.0 * torch.randint(0, 2, (n, bits), generator=generator) - 1 for _ in range(2))
    one = torch.ones(n, bits)
    signals = [torch.cat(blocks, dim=1) for blocks in ([u, v, u * v], [u, one, u], [one, v, v])]
    others = noise * torch.randn(3, n, dimensions - 3 * bits, generator=generator)
    is_corrupted = torch.rand(n, generator=generator) < corruption
    corrupted = torch.where(is_corrupted, torch.randint(1, 3, (n,), generator=generator), 0)
    shift = torch.randint(1, n, (n,), generator=generator)
    donor = (torch.arange(n) + shift) % n  # any other row, all with the same chance
    b, c = (
        torch.where((corrupted == which)[:, None], signal[donor], signal) for which, signal in enumerate(signals[1:], start=1)
    )
    a, b, c = (torch.cat([signal, noise], dim=1) for signal, noise in zip((signals[0], b, c), others, strict=True))
    return XnorSample(a, b, c, corrupted, bits)


def matching_accuracy(rows: XnorSample, batch_size: int) -> float:
    """How often a guess that knows the law finds ``a`` from ``b`` and ``c`` within its batch.

    The likelihood of a candidate depends only on whether its ``u`` is that of ``b`` and its ``v`` that of ``c``. For d bits and
    p < 1 the order is: both, exactly one, none; ties are counted as a fair draw. It errs only where rows of a batch agree by
    chance, or where the row that gave the wrong signal is in the batch too.

    Args:
        rows: of ``sample_xnor``.
        batch_size: candidates per query; a last batch that is smaller is left out.

    Returns:
        The expected share of queries whose own row is chosen.
    """
    d, expected = rows.bits, []
    for start in range(0, len(rows.a) - batch_size + 1, batch_size):
        a, b, c = (tensor[start : start + batch_size, : 2 * d] for tensor in (rows.a, rows.b, rows.c))
        agreement = ((b[:, None, :d] == a[:, :d]).all(dim=2).int() + (c[:, None, d:] == a[:, d:]).all(dim=2).int()).float()
        best = agreement == agreement.max(dim=1, keepdim=True).values
        expected.append(best.diagonal().float() / best.sum(dim=1))
    if not expected:
        raise ValueError(f"batch_size={batch_size} is larger than the sample of {len(rows.a)} rows")
    return torch.cat(expected).mean().item()

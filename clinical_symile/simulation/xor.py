r"""The XOR family of the Symile paper, with everything there is to know about it in closed form.

**The law.** ``a`` and ``b`` are vectors of ``d`` fair bits, independent of each other; one coin ``i ~ Bernoulli(p)`` serves
the whole row; ``c = a xor b`` where ``i = 1`` and ``c = a`` elsewhere. The coin is not observed. With ``q = 2^-d``,

.. math:: p(a, b, c) = q^2 \bigl( p\,[c = a \oplus b] + (1 - p)\,[c = a] \bigr).

At ``p = 0`` a pair says all there is to say; at ``p = 1`` no pair says anything and the three decide each other.

**Informations** (nats, ``h`` the binary entropy). ``a``, ``b`` and ``c`` are uniform, and ``b`` is independent of ``a``
and of ``c``: I(a; b) = I(b; c) = 0. Given ``a`` and ``b`` the two outcomes for ``c`` coincide if ``b = 0``, which has
probability ``q``, so H(c | a, b) = (1 - q) h(p), and

* TC = H(a) + H(b) + H(c) - H(a, b, c) = H(c) - H(c | a, b) = d log 2 - (1 - q) h(p);
* given ``a``, ``c`` equals it with probability ``s = 1 - p + p q`` and is any other vector with probability ``p q``, so
  I(a; c) = s log(s / q) + (1 - q) p log p;
* TC = I(x; y) + I(x, y; z) for every order of the three: I(a, b; c) = I(b, c; a) = TC and I(a, c; b) = TC - I(a; c);
* I(x; y | z) = I(x; y, z) - I(x; z): I(a; b | c) = I(b; c | a) = TC - I(a; c), and I(a; c | b) = TC;
* the synergy TC - I(a; b) - I(a; c) - I(b; c) is TC - I(a; c);
* the dual total correlation H(a, b, c) - H(a | b, c) - H(b | a, c) - H(c | a, b) is 2 TC - I(a; c).

**Parity.** With M > 3 modalities the last is the exclusive or of all the others (``p = 1`` only). Any M - 1 of them are
independent, so every information among fewer than M is 0, and TC = M d log 2 - (M - 1) d log 2 = d log 2.

Source of the generator: Saporta et al. 2024, https://arxiv.org/abs/2411.01053, figure 3, whose informations their script
finds by enumeration (about 1.5 hours at d = 5, by its authors' note).
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

NAMES: Final = ("a", "b", "c")
_MOST_BITS_LISTED: Final = 20
"""2^20 vectors of 20 float32 are 84 MB."""


@dataclass(frozen=True)
class XorInformation:
    """What the modalities of the three-way family say about each other, in nats, and how often a guess can be right."""

    total_correlation: float
    dual_total_correlation: float
    """H(a, b, c) - H(a | b, c) - H(b | a, c) - H(c | a, b)."""
    i_ab: float
    i_ac: float
    i_bc: float
    i_ab_given_c: float
    i_ac_given_b: float
    i_bc_given_a: float
    i_ab_c: float
    """I(a, b; c): what ``a`` and ``b`` together say about ``c``."""
    i_ac_b: float
    """I(a, c; b)."""
    i_bc_a: float
    """I(b, c; a)."""
    synergy: float
    """TC - I(a; b) - I(a; c) - I(b; c): what no pair tells. The interaction information of McGill has the same value."""
    bayes_accuracy: float
    """The best that can be done in guessing ``b`` from ``a`` and ``c``."""
    pairwise_accuracy: float
    """The best for ``b`` from ``a`` alone or from ``c`` alone: chance."""


def sample_xor(
    n: int, bits: int, p_hat: float, generator: torch.Generator | None = None, modalities: int = 3
) -> tuple[Tensor, ...]:
    """Draws rows of the family.

    The bits of all modalities but the last are drawn first, one modality after the other, then the coins: the same
    generator gives the same ``a`` and ``b`` whatever ``p_hat``, and a coin that fell at one ``p_hat`` has fallen at every
    larger one.

    Args:
        n: rows.
        bits: d, bits of each vector.
        p_hat: probability of the exclusive or, one coin per row.
        generator: source of randomness; the tensors are on its device.
        modalities: M >= 3; more than 3 need ``p_hat = 1``.

    Returns:
        M tensors (n, bits), float32, of 0 and 1: ``a, b, c``, or for M > 3 all independent ones and then their parity.

    Raises:
        ValueError: an argument out of range, or more than 3 modalities with ``p_hat < 1``.

    Example:
        >>> a, b, c = sample_xor(100, 5, 1.0, torch.Generator().manual_seed(0))
        >>> torch.equal(c, (a != b).float())
        True
    """
    _check(bits, p_hat, modalities)
    if n < 0:
        raise ValueError(f"n={n}; expected a number of rows, at least 0")
    device = generator.device if generator is not None else torch.device("cpu")
    drawn = [torch.randint(0, 2, (n, bits), generator=generator, device=device) for _ in range(modalities - 1)]
    coins = torch.rand(n, 1, generator=generator, device=device, dtype=torch.float64) < p_hat
    parity = drawn[0]
    for vector in drawn[1:]:
        parity = parity ^ vector
    last = torch.where(coins, parity, drawn[0])
    return tuple(vector.float() for vector in (*drawn, last))


def all_bit_vectors(bits: int, device: torch.device | str | None = None) -> Tensor:
    """Every vector of ``bits`` bits, the first bit being the most significant: row k is k in binary.

    Args:
        bits: at most 20.
        device: where the tensor is made.

    Returns:
        (2^bits, bits), float32 of 0 and 1.

    Raises:
        ValueError: ``bits`` is out of range.

    Example:
        >>> all_bit_vectors(2).tolist()
        [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
    """
    if not 1 <= bits <= _MOST_BITS_LISTED:
        raise ValueError(f"bits={bits}; expected 1 to {_MOST_BITS_LISTED}: there are 2^bits vectors")
    places = torch.arange(bits - 1, -1, -1, device=device)
    return (torch.arange(2**bits, device=device).unsqueeze(1) >> places & 1).float()


def bit_vector_rows(vectors: Tensor) -> Tensor:
    """The row of ``all_bit_vectors`` at which each vector stands.

    Args:
        vectors: (n, bits) of 0 and 1.

    Returns:
        (n,) int64.

    Example:
        >>> bit_vector_rows(torch.tensor([[1.0, 0.0], [0.0, 1.0]])).tolist()
        [2, 1]
    """
    places = torch.arange(vectors.shape[1] - 1, -1, -1, device=vectors.device)
    return (vectors.long() << places).sum(dim=1)


def xor_information(bits: int, p_hat: float) -> XorInformation:
    """All informations of the three-way family in closed form; the module's text derives them.

    Args:
        bits: d.
        p_hat: p.

    Raises:
        ValueError: an argument out of range.

    Example:
        >>> information = xor_information(1, 1.0)
        >>> round(information.total_correlation, 4), information.i_ac
        (0.6931, 0.0)
    """
    total = xor_total_correlation(bits, p_hat)
    q = 2.0**-bits
    same = 1 - p_hat + p_hat * q
    # log(s / q) written as log((1 - p) / q + p): exactly 0 at p = 1, where s = q.
    pair = same * math.log((1 - p_hat) / q + p_hat) + (1 - q) * _x_log_x(p_hat)
    return XorInformation(
        total_correlation=total,
        dual_total_correlation=2 * total - pair,
        i_ab=0.0,
        i_ac=pair,
        i_bc=0.0,
        i_ab_given_c=total - pair,
        i_ac_given_b=total,
        i_bc_given_a=total - pair,
        i_ab_c=total,
        i_ac_b=total - pair,
        i_bc_a=total,
        synergy=total - pair,
        bayes_accuracy=xor_bayes_accuracy(bits, p_hat),
        pairwise_accuracy=q,
    )


def xor_total_correlation(bits: int, p_hat: float, modalities: int = 3) -> float:
    """Total correlation in nats: ``d log 2 - (1 - 2^-d) h(p)``; for parity, whatever M, ``d log 2``.

    Args:
        bits: d.
        p_hat: p; 1 for more than 3 modalities.
        modalities: M >= 3.

    Raises:
        ValueError: an argument out of range, or more than 3 modalities with ``p_hat < 1``.
    """
    _check(bits, p_hat, modalities)
    return bits * math.log(2) + (1 - 2.0**-bits) * (_x_log_x(p_hat) + _x_log_x(1 - p_hat))


def xor_bayes_accuracy(bits: int, p_hat: float, target: str = "b", given: Collection[str] = ("a", "c")) -> float:
    """How often the best possible guess of one modality from others is right, every vector being a candidate.

    With ``q = 2^-d``:

    * ``b`` from ``a`` and ``c``: certain where ``c`` differs from ``a``, which has probability ``p (1 - q)``; where it does
      not, ``b = 0`` is the best guess and right with joint probability ``q``: in all ``q + p (1 - q)``;
    * ``c`` from ``a`` and ``b``, and ``a`` from ``b`` and ``c``: certain where ``b = 0``, else the likelier side of the
      coin: ``q + (1 - q) max(p, 1 - p)``;
    * ``a`` from ``c``, and ``c`` from ``a``: the same vector, ``1 - p + p q``;
    * everything else: chance, ``q``.

    Of a parity of M > 3 (``p = 1``), any modality is certain given all the others, and at chance given fewer.

    Args:
        bits: d.
        p_hat: p.
        target: ``"a"``, ``"b"`` or ``"c"``.
        given: those known; may be empty.

    Raises:
        ValueError: an argument out of range, an unknown name, or a target that is among the given.
    """
    _check(bits, p_hat, modalities=3)
    known = set(given)
    if target not in NAMES or not known <= set(NAMES) - {target}:
        raise ValueError(f"target={target!r}, given={sorted(known)}; choose one of {NAMES} and any of the others")
    q = 2.0**-bits
    if len(known) == 2:
        return q + (1 - q) * (p_hat if target == "b" else max(p_hat, 1 - p_hat))
    return 1 - p_hat + p_hat * q if {target} | known == {"a", "c"} else q


def _check(bits: int, p_hat: float, modalities: int) -> None:
    if bits < 1:
        raise ValueError(f"bits={bits}; expected at least 1")
    if not 0 <= p_hat <= 1:
        raise ValueError(f"p_hat={p_hat}; expected a probability from 0 to 1")
    if modalities < 3:
        raise ValueError(f"modalities={modalities}; expected at least 3")
    if modalities > 3 and p_hat != 1:
        raise ValueError(f"p_hat={p_hat} with {modalities} modalities; more than 3 are defined as a parity, with p_hat = 1")


def _x_log_x(x: float) -> float:
    return x * math.log(x) if x > 0 else 0.0

"""Scores of Gated Symile for every query and every candidate, without a vector per pair.

A gated vector is a mix of the query's vector e_i and a fixed direction nu, with a share a_ij that depends on the pair:

    g_ij = (a_ij e_i + b_ij nu) / |a_ij e_i + b_ij nu|        a = 1 - alpha (1 - w),  b = alpha (1 - w)
    |a e + b nu|^2 = a^2 |e|^2 + b^2 + 2 a b (e . nu)

so the product of k gated vectors with a candidate c_j opens into 2^k matrix products, one per subset U of the query modalities,

    score_ij = sum_U  A_ij(U) < c_j , prod_{m in U} e_i^m prod_{m not in U} nu^m >
    A_ij(U)  = prod_{m in U} a_ij^m / |.|  prod_{m not in U} b_ij^m / |.|

and nothing larger than (n, d), (g, d) and (n, g) is ever held.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product as combinations

import torch
from torch import Tensor

from clinical_symile.contrastive.gates import Gates
from clinical_symile.contrastive.mip import check_query, product, retrieval_scores
from clinical_symile.contrastive.representations import Presence, as_presence
from clinical_symile.contrastive.unit_vectors import to_unit_vectors

SMALLEST_SQUARED_NORM = 1e-12
"""A query vector that points exactly against its neutral direction can be mixed to nothing."""


def gated_retrieval_scores(
    gates: Gates,
    target: str,
    candidates: Tensor,
    queries: Mapping[str, Tensor],
    *,
    present: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """The gated score of every candidate with every query: ``d^(k/2) < c_j , prod_m g_m[i, j] >`` for k query modalities.

    The query may have any subset of the other modalities; a modality that is left out, or absent in a row, is neither a
    factor nor counted in the power of d, as if it had never been. A row that has none of them scores 0 everywhere. All
    tensors are normalised here. The logit scale is left out: it does not change a ranking.

    Args:
        gates: the gates of the loss, ``GatedSymileLoss.gates``.
        target: the modality of the candidates.
        candidates: (g, d).
        queries: (n, d), (1, d) or (d,) under the name of each query modality.
        present: (n,) bool under the same keys, False where a query lacks the modality.

    Returns:
        (n, g), float32 or float64.

    Raises:
        ValueError: no query, a modality without a gate, or shapes, dtypes or devices that do not match.

    Example:
        >>> gates = Gates(["cxr", "ecg", "labs"], 8)
        >>> gated_retrieval_scores(gates, "cxr", torch.eye(8), {"ecg": torch.ones(8)}).shape
        torch.Size([1, 8])

    Source: Rheude et al. 2026, https://arxiv.org/abs/2604.05834.
    """
    gallery, parts, flags = _unit_query(gates, candidates, queries, present)
    with torch.autocast(gallery.device.type, enabled=False):
        return scores_of_unit_vectors(gates, target, gallery, parts, flags)[0]


def scores_of_unit_vectors(
    gates: Gates, target: str, candidates: Tensor, queries: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """``gated_retrieval_scores`` of vectors that are already checked and normalised, with the gates it used.

    Returns:
        Scores (n, g), gates (k, n, g), probability of NULL (n, g).
    """
    weights, p_null = gates.weights(target, candidates, queries, present)
    every = gates.neutrals(candidates.dtype)
    neutrals = None if every is None else [every[gates.position(name)] for name in queries]
    flags = None if present is None else [present[name] for name in queries]
    alpha = gates.alpha().to(candidates.dtype)
    return gated_products(candidates, list(queries.values()), weights, neutrals, alpha, flags), weights, p_null


def gated_products(
    candidates: Tensor,
    queries: Sequence[Tensor],
    weights: Tensor,
    neutrals: Sequence[Tensor] | None,
    alpha: Tensor,
    present: Sequence[Tensor] | None = None,
) -> Tensor:
    """The sum over subsets of the module's text, times d^(k/2).

    Args:
        candidates: (g, d) unit vectors.
        queries: k tensors (n, d) of unit vectors, finite also where absent.
        weights: (k, n, g) gates.
        neutrals: k unit vectors (d,), or ``None``: the gated vector is then a e, not normalised.
        alpha: scalar, how much of the gates is applied.
        present: k tensors (n,) bool, or ``None``.

    Returns:
        (n, g).
    """
    shares = 1 - alpha * (1 - weights)
    if present is not None:
        # The neutral element of the product, fully open: an absent factor is as if it had never been.
        queries = [torch.where(flag[:, None], query, 1) for query, flag in zip(queries, present, strict=True)]
        shares = torch.where(torch.stack(list(present))[:, :, None], shares, 1)
    d = candidates.shape[1]
    if neutrals is None:
        scores = product(list(shares)) * (product(queries) @ candidates.T)
    else:
        coefficients = [
            _coefficients(share, query, neutral) if present is None else _coefficients_where(share, query, neutral, present[m])
            for m, (share, query, neutral) in enumerate(zip(shares, queries, neutrals, strict=True))
        ]
        scores = torch.zeros_like(shares[0])
        for subset in combinations((0, 1), repeat=len(queries)):  # 0: the query's own vector, 1: the neutral one
            factors = [(query, neutral[None])[side] for side, query, neutral in zip(subset, queries, neutrals, strict=True)]
            share = product([pair[side] for side, pair in zip(subset, coefficients, strict=True)])
            scores = scores + share * (product(factors) @ candidates.T)
    if present is None:
        return scores * math.pow(d, len(queries) / 2)
    counts = torch.stack(list(present)).sum(dim=0)[:, None]
    return (scores * torch.pow(float(d), counts.to(scores.dtype) / 2)).masked_fill(counts == 0, 0)


def rerank(
    gates: Gates,
    target: str,
    candidates: Tensor,
    queries: Mapping[str, Tensor],
    k: int,
    *,
    present: Mapping[str, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """The best k candidates by MIP, in the order of their gated scores.

    The first pass is one matrix product, which an index can serve; only its k best get gates. It is the MIP of unit vectors,
    that is the gated score with every gate open.

    Args:
        gates: the gates of the loss.
        target: the modality of the candidates.
        candidates: (g, d).
        queries: (n, d), (1, d) or (d,) under the name of each query modality.
        k: how many to keep, at most g.
        present: (n,) bool under the same keys, False where a query lacks the modality.

    Returns:
        Rows of the candidates (n, k), best first, and their gated scores (n, k).

    Raises:
        ValueError: ``k`` is not in 1 … g, or as ``gated_retrieval_scores``.
    """
    gallery, parts, flags = _unit_query(gates, candidates, queries, present)
    if not 1 <= k <= len(gallery):
        raise ValueError(f"k={k}; expected 1 to {len(gallery)}, the number of candidates")
    factors = list(parts.values())
    if flags is not None:
        factors = [torch.where(flags[name][:, None], part, 1) for name, part in parts.items()]
    with torch.autocast(gallery.device.type, enabled=False):
        shortlist = retrieval_scores(gallery, factors).topk(k, dim=1).indices
        rows, scores = [], []
        for i, found in enumerate(shortlist):
            here = {name: part[i : i + 1] for name, part in parts.items()}
            flag = None if flags is None else {name: part[i : i + 1] for name, part in flags.items()}
            gated, order = scores_of_unit_vectors(gates, target, gallery[found], here, flag)[0][0].sort(descending=True)
            rows.append(found[order])
            scores.append(gated)
        return torch.stack(rows), torch.stack(scores)


def _unit_query(
    gates: Gates, candidates: Tensor, queries: Mapping[str, Tensor], present: Presence | None
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor] | None]:
    """Checked and normalised: candidates (g, d), queries (n, d), presence (n,)."""
    gallery, *parts = check_query(candidates, list(queries.values()))
    if gallery.shape[1] != gates.embed_dim:
        raise ValueError(f"candidates have shape {tuple(gallery.shape)}, but the gates are for d = {gates.embed_dim}")
    named = dict(zip(queries, parts, strict=True))
    flags = as_presence(named, present)
    observed = None if flags is None else dict(zip(queries, flags, strict=True))
    units = {name: to_unit_vectors(part, None if observed is None else observed[name]) for name, part in named.items()}
    return to_unit_vectors(gallery), units, observed


def _coefficients(share: Tensor, query: Tensor, neutral: Tensor) -> tuple[Tensor, Tensor]:
    """``a / |a e + b nu|`` and ``b / |a e + b nu|``, each (n, g)."""
    rest = 1 - share
    # |e| is 1, or 0 for a zero vector.
    squared = share**2 * query.pow(2).sum(dim=1, keepdim=True) + rest**2 + 2 * share * rest * (query @ neutral)[:, None]
    inverse = squared.clamp_min(SMALLEST_SQUARED_NORM).rsqrt()
    return share * inverse, rest * inverse


def _coefficients_where(share: Tensor, query: Tensor, neutral: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """``_coefficients``, and 1 and 0 for rows that lack the modality."""
    own, other = _coefficients(share, query, neutral)
    return torch.where(present[:, None], own, 1), torch.where(present[:, None], other, 0)

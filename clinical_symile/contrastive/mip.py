"""The multilinear inner product and the retrieval score built on it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from clinical_symile.contrastive.representations import Representations, as_presence, as_representations, to_common_dtype


def multilinear_inner_product(representations: Representations) -> Tensor:
    """How well the rows of all modalities fit together: ``MIP(r_1, …, r_M)[i] = sum_d prod_m r_m[i, d]``.

    For M = 2 it is the dot product.

    Args:
        representations: M >= 1 tensors, each (n, d).

    Returns:
        (n,), float32 or float64.

    Raises:
        ValueError: shapes, dtypes or devices do not match.

    Example:
        >>> a, b, c = (torch.tensor([[1.0, 2.0]]) for _ in range(3))
        >>> multilinear_inner_product([a, b, c])
        tensor([9.])

    Source: Saporta et al. 2024, https://arxiv.org/abs/2411.01053, section 3.
    """
    return product(as_representations(representations, at_least=1)).sum(dim=1)


def retrieval_scores(candidates: Tensor, queries: Sequence[Tensor], present: Sequence[Tensor] | None = None) -> Tensor:
    """The MIP of every candidate with every query: ``scores[i, j] = MIP(q_1[i], …, q_k[i], candidates[j])``.

    The candidates of one modality are ranked by it, whatever subset of the other modalities the query has. Query tensors
    of one row are repeated to the length of the others.

    Args:
        candidates: (g, d).
        queries: one tensor per query modality, (n, d), (1, d) or (d,).
        present: which rows of each query tensor are there, (n,) bool each; a row that lacks a modality is scored as if its
            query never had it, whatever stands there. ``None`` if nothing is missing.

    Returns:
        (n, g), float32 or float64.

    Raises:
        ValueError: no query, a query row without any modality, or shapes, dtypes or devices that do not match.

    Example:
        >>> ecg, labs = torch.tensor([1.0, 2.0]), torch.tensor([3.0, -1.0])
        >>> retrieval_scores(torch.eye(2), [ecg, labs])
        tensor([[ 3., -2.]])

    Source: Saporta et al. 2024, zero-shot prediction.
    """
    gallery, *parts = check_query(candidates, queries, present, absent_as=1.0)
    with torch.autocast(gallery.device.type, enabled=False):
        return product(parts) @ gallery.T


def check_query(
    candidates: Tensor, queries: Sequence[Tensor], present: Sequence[Tensor] | None = None, *, absent_as: float = 1.0
) -> list[Tensor]:
    """``[candidates, query, …]`` in one dtype, each query (n, d), with ``absent_as`` in the rows that are absent.

    Raises:
        ValueError: names the tensor that does not fit.
    """
    if candidates.dim() != 2:
        raise ValueError(f"candidates have shape {tuple(candidates.shape)}; expected (g, d)")
    if not queries:
        raise ValueError("a query needs at least one modality, but queries is empty")
    rows = [query.unsqueeze(0) if query.dim() == 1 else query for query in queries]
    n = max(len(query) for query in rows)
    for position, query in enumerate(rows):
        if query.dim() != 2 or query.shape[1] != candidates.shape[1]:
            raise ValueError(
                f"query {position} has shape {tuple(queries[position].shape)}, but the candidates are {tuple(candidates.shape)}; "
                "expected (n, d) with the same d"
            )
        if len(query) not in (1, n):
            raise ValueError(f"query {position} has {len(query)} rows; expected {n} as the longest query, or 1")
    gallery, *parts = to_common_dtype({"candidates": candidates, **{f"query {i}": row for i, row in enumerate(rows)}})
    parts = [part.expand(n, -1) for part in parts]
    flags = as_presence(parts, present)
    if flags is not None:
        empty = int((~torch.stack(flags).any(dim=0)).sum())
        if empty:
            raise ValueError(f"{empty} of {n} query rows have no modality at all; leave them out")
        parts = [torch.where(flag[:, None], part, absent_as) for part, flag in zip(parts, flags, strict=True)]
    return [gallery, *parts]


def product(tensors: Sequence[Tensor]) -> Tensor:
    """The elementwise product of tensors that broadcast; none of them is written to."""
    result = tensors[0]
    for tensor in tensors[1:]:
        result = torch.mul(result, tensor)
    return result

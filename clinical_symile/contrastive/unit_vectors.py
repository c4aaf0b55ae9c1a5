"""Rows of length 1, safe for zero vectors and for rows that are absent."""

from __future__ import annotations

import torch
from torch import Tensor


def to_unit_vectors(tensor: Tensor, present: Tensor | None = None) -> Tensor:
    """Divides every row by its length.

    ``F.normalize`` divides a zero vector's gradient by 1e-12; here a zero vector stays as it is, and so does its gradient.

    Args:
        tensor: (n, d).
        present: (n,) bool, or ``None``. Where False, the row becomes a constant, whatever it held, and gets no gradient.

    Returns:
        (n, d).

    Example:
        >>> to_unit_vectors(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).tolist()
        [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    if present is not None:
        tensor = torch.where(present[:, None], tensor, 1)
    length: Tensor = torch.linalg.vector_norm(tensor, dim=1, keepdim=True)
    return tensor / length.masked_fill(length == 0, 1)

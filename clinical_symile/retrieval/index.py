"""Exact search: every candidate is scored, none is guessed away.

Approximate indexes lost 4 to 50 % of the true top 10 in our measurements, because a product of two embeddings lies outside
the gallery's own distribution. A most consistent X-ray that is missed is a clinical error, and exact search over 20,000
embeddings takes tens of milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clinical_symile.errors import InputError

ScoringRule = Callable[[Tensor, Sequence[Tensor]], Tensor]
"""candidates (g, d), [query embeddings (n, d), ...] -> scores (n, g)."""

_CHUNK_BYTES = 64 * 1024 * 1024


class ExactIndex:
    """Scores queries against all rows of an array that may be larger than memory.

    Args:
        embeddings: (g, d) float32, usually a read-only memory map.
        rule: how candidates are scored, for example ``contrastive.retrieval_scores``.
        chunk_rows: rows read at a time; by default about 64 MiB of them.
    """

    def __init__(self, embeddings: NDArray[np.float32], rule: ScoringRule, chunk_rows: int | None = None) -> None:
        self.embeddings = embeddings
        self.rule = rule
        self.chunk_rows = chunk_rows or max(1, _CHUNK_BYTES // (4 * embeddings.shape[1]))

    def __len__(self) -> int:
        return len(self.embeddings)

    def scores(self, queries: Sequence[Tensor]) -> Tensor:
        """The score of every candidate.

        Args:
            queries: embeddings of each query modality, each (n, d).

        Returns:
            (n, g) float32.

        Raises:
            InputError: the embeddings' widths differ, or a score is not finite.
        """
        width = self.embeddings.shape[1]
        if any(query.shape[1] != width for query in queries):
            raise InputError(
                f"the query's embeddings have another width than the gallery's ({width}); use the model that made it"
            )
        parts = [self.rule(self.rows(start, start + self.chunk_rows), queries) for start in range(0, len(self), self.chunk_rows)]
        scores = torch.cat(parts, dim=1)
        if not torch.isfinite(scores).all():
            raise InputError("some scores are not finite numbers: an embedding of the query or of the gallery is damaged")
        return scores

    def search(self, queries: Sequence[Tensor], k: int, where: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The best candidates of each query.

        Args:
            queries: embeddings of each query modality, each (n, d).
            k: how many candidates to return.
            where: (g,) bool, which candidates may be returned.

        Returns:
            positions (n, min(k, allowed)) int64 and their scores, best first.
        """
        scores = self.scores(queries)
        positions = torch.stack([rank(row, k, where) for row in scores])
        return positions, scores.gather(1, positions)

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows of the array as a tensor of their own."""
        return torch.from_numpy(np.array(self.embeddings[start:stop], dtype=np.float32))


def rank(scores: Tensor, k: int, where: Tensor | None = None) -> Tensor:
    """Positions of the best candidates, best first; equal scores in order of position.

    The mask is applied before the best are chosen, so that a filter never shortens the list.

    Args:
        scores: (g,) of one query.
        k: at least 1.
        where: (g,) bool, which candidates may be returned.

    Returns:
        (min(k, allowed),) int64.

    Raises:
        InputError: k is below 1, or the mask does not fit.
    """
    if k < 1:
        raise InputError(f"k: at least one X-ray must be asked for, not {k}")
    if where is None:
        allowed = torch.arange(len(scores))
    elif where.shape == scores.shape and where.dtype == torch.bool:
        allowed = torch.nonzero(where).flatten()
    else:
        raise InputError(f"where: must be {len(scores)} booleans, one for each X-ray of the gallery")
    order = torch.argsort(scores[allowed], descending=True, stable=True)
    return allowed[order[:k]]

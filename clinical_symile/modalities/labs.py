"""Laboratory values: raw results become percentiles among the training admissions, with indicators of what was measured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clinical_symile.errors import InputError
from clinical_symile.types import LAB_ITEM_IDS

FORMAT_VERSION = 1


@dataclass(frozen=True, eq=False)
class LabStatistics:
    """The empirical distribution of each laboratory item among the training admissions.

    percentile_k(v) = #{training values of item k that are <= v} / #{training values of item k}

    is the right-continuous ECDF, so equal values share the upper step. Values are compared as float32, the precision in
    which they are stored: a stored value that is encoded again never falls on the other side of a tie.

    Attributes:
        item_ids: the items, in tensor order.
        values: for each item, its distinct training values in ascending order, float32.
        counts: for each item, how many training values are at most ``values``, int64; the last is the item's number.
        mean_percentiles: (k,) float64, the mean percentile of each item's training values: what stands in for a missing
            one. 0.5 for an item that was never measured in training.
    """

    item_ids: tuple[str, ...]
    values: tuple[NDArray[np.float32], ...]
    counts: tuple[NDArray[np.int64], ...]
    mean_percentiles: NDArray[np.float64]

    @classmethod
    def fit(cls, values: ArrayLike, item_ids: Sequence[str] = LAB_ITEM_IDS) -> LabStatistics:
        """Fits the distributions on training rows only.

        Args:
            values: (n, k) raw values, NaN where not measured.
            item_ids: names of the k columns.

        Raises:
            InputError: the shape does not fit, or a value is infinite.
        """
        matrix = _as_matrix(values, len(item_ids))
        distinct, counts, means = [], [], []
        for column in matrix.T:
            observed = column[~np.isnan(column)]
            levels, times = np.unique(observed, return_counts=True)
            upto = np.cumsum(times, dtype=np.int64)
            distinct.append(levels)
            counts.append(upto)
            means.append(float((times * (upto / len(observed))).sum() / len(observed)) if len(observed) else 0.5)
        return cls(tuple(item_ids), tuple(distinct), tuple(counts), np.array(means, dtype=np.float64))

    def transform(self, values: ArrayLike) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Percentiles and indicators.

        A value of an item that was never measured in training has no distribution to be placed in: its percentile is
        0.5, as for a missing one, but it counts as observed.

        Args:
            values: (n, k) raw values, NaN where not measured.

        Returns:
            percentiles (n, k) float32 in [0, 1], the mean training percentile where not measured, and observed (n, k)
            uint8, 1 where measured.

        Raises:
            InputError: the shape does not fit, or a value is infinite.
        """
        matrix = _as_matrix(values, len(self.item_ids))
        observed = ~np.isnan(matrix)
        percentiles = np.broadcast_to(self.mean_percentiles, matrix.shape).copy()
        for k, (levels, upto) in enumerate(zip(self.values, self.counts, strict=True)):
            measured = observed[:, k]
            if len(levels):
                steps = np.concatenate([[0], upto])
                position = np.searchsorted(levels, matrix[measured, k], side="right")
                percentiles[measured, k] = steps[position] / steps[-1]
        return percentiles.astype(np.float32), observed.astype(np.uint8)

    def to_json(self) -> dict[str, Any]:
        """Plain data for ``labs_statistics.json``; ``from_json`` gives back the same statistics bit for bit."""
        return {
            "format": FORMAT_VERSION,
            "percentile": "right-continuous ECDF of the training values",
            "items": [
                {"itemid": itemid, "mean_percentile": float(mean), "values": levels.tolist(), "counts": upto.tolist()}
                for itemid, mean, levels, upto in zip(self.item_ids, self.mean_percentiles, self.values, self.counts, strict=True)
            ],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any] | str) -> LabStatistics:
        """Reads what ``to_json`` gave, as a dictionary or as JSON text.

        Raises:
            InputError: it is not that, or its numbers cannot be a distribution.
        """
        try:
            tree = json.loads(data) if isinstance(data, str) else data
            if tree["format"] != FORMAT_VERSION:
                raise InputError(
                    f"laboratory statistics: format {tree['format']!r} is not {FORMAT_VERSION}, which this version reads"
                )
            items = tree["items"]
            statistics = cls(
                tuple(str(item["itemid"]) for item in items),
                tuple(np.array(item["values"], dtype=np.float32) for item in items),
                tuple(np.array(item["counts"], dtype=np.int64) for item in items),
                np.array([item["mean_percentile"] for item in items], dtype=np.float64),
            )
        except InputError:
            raise
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(f"laboratory statistics: not what 'prepare' writes ({type(error).__name__}: {error})") from None
        statistics._check()
        return statistics

    def _check(self) -> None:
        for itemid, levels, upto in zip(self.item_ids, self.values, self.counts, strict=True):
            ascending = levels.ndim == upto.ndim == 1 and levels.shape == upto.shape and np.isfinite(levels).all()
            if not (ascending and (np.diff(levels) > 0).all() and (np.diff(upto, prepend=0) > 0).all()):
                raise InputError(f"laboratory statistics: the distribution of item {itemid} is damaged")
        if not ((self.mean_percentiles >= 0) & (self.mean_percentiles <= 1)).all():
            raise InputError("laboratory statistics: a mean percentile lies outside 0…1")


def encode(percentiles: NDArray[np.float32], observed: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the laboratory encoder sees: the percentiles, then the indicators.

    Args:
        percentiles: (…, k) in [0, 1].
        observed: (…, k), 1 where measured.

    Returns:
        (…, 2 k) float32.

    Raises:
        InputError: the shapes differ.
    """
    if percentiles.shape != observed.shape:
        raise InputError(f"percentiles {percentiles.shape} and indicators {observed.shape} must have the same shape")
    return np.concatenate([percentiles, observed], axis=-1, dtype=np.float32)


def _as_matrix(values: ArrayLike, n_items: int) -> NDArray[np.float32]:
    try:
        matrix = np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"laboratory values must be numbers ({error})") from None
    if matrix.ndim != 2 or matrix.shape[1] != n_items:
        raise InputError(f"laboratory values must have the shape (n, {n_items}), not {matrix.shape}")
    if np.isinf(matrix).any():
        raise InputError("laboratory values must be finite; a value that was not measured is NaN")
    return matrix

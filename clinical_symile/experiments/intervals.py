"""Intervals over the repeats of an experiment."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

HALF_WIDTH = "_half_width"
"""How the name of an interval's half-width ends."""


def mean_with_half_width(name: str, values: Sequence[float], confidence: float = 0.95) -> dict[str, float]:
    """The mean under ``name`` and, where there are repeats, half of its interval under ``<name>_half_width``."""
    metrics = {name: fmean(values)}
    if len(values) > 1:
        metrics[f"{name}{HALF_WIDTH}"] = half_width(values, confidence)
    return metrics


def half_width(values: Sequence[float], confidence: float = 0.95) -> float:
    """Half of the interval of a mean of at least 2 values, by Student's t."""
    from scipy.stats import t

    return float(t.ppf((1 + confidence) / 2, len(values) - 1)) * stdev(values) / math.sqrt(len(values))

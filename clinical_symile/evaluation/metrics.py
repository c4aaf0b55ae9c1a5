"""Retrieval metrics as means or medians of one number per query, and what chance gets on each, in closed form.

=================  ===========================  ==========================================
metric             value                        chance, with m_i candidates for query i
=================  ===========================  ==========================================
accuracy_{c}way    mean P(rank = 1), c per set  mean 1 / m_i
recall_at_{k}      mean P(rank <= k), bank      mean min(k / m_i, 1)
mrr                mean E[1 / rank], bank       mean H(m_i) / m_i, H the harmonic numbers
median_rank        median of E[rank], bank      median of (m_i + 1) / 2
=================  ===========================  ==========================================

Probabilities and expectations are over the order of tied candidates (see ``ranks``). Chance is what a model gets that
scores all candidates alike. The *bank* of a query holds all X-rays of the split except those of the patient's other
admissions: they show the same heart and the same lungs, so they are neither right nor wrong.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from clinical_symile.evaluation.ranks import Ranks, Values, harmonic_numbers

MEDIAN_RANK: Final = "median_rank"


@dataclass(frozen=True)
class Column:
    """One number per query and how the metric summarises them."""

    values: Values
    statistic: Literal["mean", "median"] = "mean"

    def summary(self) -> float:
        """The metric's value."""
        return float(np.mean(self.values) if self.statistic == "mean" else np.median(self.values))


def accuracy_key(candidates: int) -> str:
    """The name of the accuracy on candidate sets of a size; the paper's is ``accuracy_10way``."""
    return f"accuracy_{candidates}way"


def metric_columns(sets: Ranks, bank: Ranks, recall_at: Sequence[int]) -> dict[str, Column]:
    """All metrics of one model, per query.

    Args:
        sets: ranks within the candidate sets, all of one size.
        bank: ranks of the same queries within the bank.
        recall_at: the k of recall at k.
    """
    return {
        accuracy_key(int(sets.candidates[0])): Column(sets.hit(1)),
        **{f"recall_at_{k}": Column(bank.hit(k)) for k in recall_at},
        "mrr": Column(bank.reciprocal()),
        MEDIAN_RANK: Column(bank.expected(), "median"),
    }


def chance_values(sets: Ranks, bank: Ranks, recall_at: Sequence[int]) -> dict[str, float]:
    """What chance gets on the same queries, in closed form; only the numbers of candidates are used."""
    m = bank.candidates
    return {
        accuracy_key(int(sets.candidates[0])): float(np.mean(1.0 / sets.candidates)),
        **{f"recall_at_{k}": float(np.mean(np.minimum(k / m, 1.0))) for k in recall_at},
        "mrr": float(np.mean(harmonic_numbers(int(m.max()))[m] / m)),
        MEDIAN_RANK: float(np.median((m + 1.0) / 2.0)),
    }


def summaries(columns: Mapping[str, Column]) -> dict[str, float]:
    """The value of each metric."""
    return {name: column.summary() for name, column in columns.items()}


def metric_label(key: str) -> str:
    """A metric's name for people.

    Example:
        >>> metric_label("accuracy_10way"), metric_label("recall_at_5")
        ('10-way accuracy', 'Recall at 5')
    """
    if match := re.fullmatch(r"accuracy_(\d+)way", key):
        return f"{match[1]}-way accuracy"
    if match := re.fullmatch(r"recall_at_(\d+)", key):
        return f"Recall at {match[1]}"
    return {"mrr": "Mean reciprocal rank", MEDIAN_RANK: "Median rank"}.get(key, key)


def higher_is_better(key: str) -> bool:
    """Whether a larger value of the metric is the better one."""
    return key != MEDIAN_RANK

"""Patient-clustered bootstrap: percentile intervals of means and medians, and of paired differences.

The unit that repeats is the patient: two admissions of one patient resemble each other, and resampling admissions as if
they did not makes intervals too narrow. Each resample draws U patients with replacement from the U of the split and
takes all queries of a patient as often as the patient was drawn. With the patients' weights w ~ Multinomial(U, 1/U), the
patients' sums S and numbers of queries N,

    mean of resample b = (w_b . S) / (w_b . N).

All models are judged on the same resamples, so the interval of a difference is that of the paired difference. Intervals
run from the (1 - confidence)/2 to the (1 + confidence)/2 quantile of the resamples (Efron & Tibshirani 1993, ch. 13).
They speak of the choice of patients only, not of the training run. Where every query has the same value (all hits, say)
all resamples agree and the interval has no width: it is then no bound.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from clinical_symile.errors import InputError
from clinical_symile.evaluation.metrics import Column
from clinical_symile.evaluation.ranks import Values

_BLOCK = 4_000_000
"""Numbers held at a time (32 MB); it bounds the memory, whatever the numbers of queries and resamples."""


class PatientBootstrap:
    """Resamples of the patients of a set of queries.

    Args:
        subjects: (q,) the patient of each query.
        resamples: B.
        generator: source of randomness; the same state gives the same resamples.

    Raises:
        InputError: there are fewer than two patients.
    """

    def __init__(self, subjects: NDArray[np.integer], resamples: int, generator: np.random.Generator) -> None:
        patients, self.patient_of_query = np.unique(subjects, return_inverse=True)
        self.patients = len(patients)
        if self.patients < 2:
            raise InputError(f"an interval needs the queries of at least two patients, but this split has {self.patients}")
        self.queries_per_patient = np.bincount(self.patient_of_query).astype(np.float64)
        # One row at a time: the stream of numbers, and so the result, cannot depend on a block size.
        self.weights = np.empty((resamples, self.patients), dtype=np.uint16 if self.patients < 2**16 else np.uint32)
        for row in self.weights:
            row[:] = np.bincount(generator.integers(0, self.patients, self.patients), minlength=self.patients)

    def means(self, values: Values) -> Values:
        """The mean of each resample.

        Args:
            values: (q, m), one column for each metric.

        Returns:
            (B, m).
        """
        sums = np.stack([np.bincount(self.patient_of_query, column, self.patients) for column in values.T], axis=1)
        totals = np.column_stack([sums, self.queries_per_patient])
        drawn = np.concatenate([block.astype(np.float64) @ totals for block in self._blocks()])
        means: Values = drawn[:, :-1] / drawn[:, -1:]
        return means

    def medians(self, values: Values) -> Values:
        """The median of each resample: of an even number of queries, the mean of the middle two.

        Args:
            values: (q,).

        Returns:
            (B,).
        """
        order = np.argsort(values, kind="stable")
        ordered, patients = values[order], self.patient_of_query[order]
        medians = []
        for block in self._blocks():
            # Queries up to and including each value, in ascending order: the i-th smallest is where this first exceeds i.
            cumulative = np.cumsum(block[:, patients], axis=1, dtype=np.int64)
            total = cumulative[:, -1:]
            lower = np.argmax(cumulative > (total - 1) // 2, axis=1)
            upper = np.argmax(cumulative > total // 2, axis=1)
            medians.append((ordered[lower] + ordered[upper]) / 2.0)
        return np.concatenate(medians)

    def replicates(self, columns: Mapping[str, Column]) -> dict[str, Values]:
        """Every metric of one model on every resample, each (B,)."""
        return {
            name: self.medians(column.values) if column.statistic == "median" else self.means(column.values[:, None])[:, 0]
            for name, column in columns.items()
        }

    def _blocks(self) -> list[NDArray[np.unsignedinteger]]:
        rows = max(1, _BLOCK // max(self.patients, len(self.patient_of_query)))
        return [self.weights[start : start + rows] for start in range(0, len(self.weights), rows)]


def percentile_interval(replicates: Values, confidence: float) -> tuple[float, float]:
    """The central ``confidence`` share of the resamples.

    Args:
        replicates: (B,).
        confidence: such as 0.95.

    Returns:
        (low, high).
    """
    low, high = np.quantile(replicates, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)

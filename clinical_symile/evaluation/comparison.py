"""Two runs, query by query: what a registry shows before somebody decides which model is served."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clinical_symile.errors import InputError
from clinical_symile.evaluation.bootstrap import PatientBootstrap
from clinical_symile.evaluation.findings import Finding
from clinical_symile.evaluation.ranks import Values
from clinical_symile.evaluation.ranks_table import read_ranks
from clinical_symile.evaluation.schema import Estimate


@dataclass(frozen=True)
class Comparison:
    """Two runs on the same queries.

    Attributes:
        runs: their names.
        first: metric -> estimate.
        second: metric -> estimate.
        difference: metric -> estimate of first minus second on the same resamples.
        hadm_ids: (q,) the queries.
        first_ranks: (q,) expected rank in the bank.
        second_ranks: (q,).
    """

    runs: tuple[str, str]
    first: dict[str, Estimate]
    second: dict[str, Estimate]
    difference: dict[str, Estimate]
    hadm_ids: NDArray[np.int64]
    first_ranks: Values
    second_ranks: Values


def compare(
    first: Path,
    second: Path,
    *,
    recall_at: Sequence[int] = (1, 5, 10),
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compares the runs of two evaluations query by query.

    Args:
        first: ``reports/<run>/ranks.parquet``.
        second: that of the other run.
        recall_at: the k of recall at k.
        resamples: of the patients.
        confidence: of the intervals.
        seed: of the resamples.

    Raises:
        IncompleteStage: a file is missing.
        InputError: a file cannot be read, or the two were not evaluated on the same queries of the same data.
    """
    one, two = read_ranks(first), read_ranks(second)
    for what, ours, theirs in (("data set", one.dataset_digest, two.dataset_digest), ("split", one.split, two.split)):
        if ours != theirs:
            raise InputError(
                f"'{one.run}' and '{two.run}' were evaluated on different {what}s ({ours[:12]} and {theirs[:12]}), so their "
                "difference means nothing; evaluate both on the same one"
            )
    asked = ((one.hadm_ids, two.hadm_ids), (one.sets.candidates, two.sets.candidates), (one.bank.candidates, two.bank.candidates))
    if not all(np.array_equal(mine, other) for mine, other in asked):
        raise InputError(f"'{one.run}' and '{two.run}' were not asked the same queries; evaluate both again")
    bootstrap = PatientBootstrap(one.subjects, resamples, np.random.default_rng(seed))
    left, right = (Finding.of(ranks.sets, ranks.bank, recall_at, bootstrap) for ranks in (one, two))
    return Comparison(
        runs=(one.run, two.run),
        first=left.estimates(confidence),
        second=right.estimates(confidence),
        difference=left.estimates(confidence, minus=right),
        hadm_ids=one.hadm_ids,
        first_ranks=one.bank.expected(),
        second_ranks=two.bank.expected(),
    )

"""The oracle's line of a report: what somebody who knows the law of a simulated hospital would reach on the same queries."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from clinical_symile.evaluation.task import RetrievalTask, ScoreRows

logger = logging.getLogger(__name__)

_DECIMALS = 9
"""The same logarithms summed in another order differ in the 15th decimal; such scores are ties."""


class Oracle(Protocol):
    """Whoever knows the law that drew the data; ``clinical_symile.simulation.Oracle`` is one."""

    def log_scores(self, query_hadm_ids: NDArray[np.int64], candidate_hadm_ids: NDArray[np.int64], /) -> NDArray[np.float64]:
        """``log p(cxr_c | ecg_q, labs_q) - log p(cxr_c)`` of queries (q,) and candidates (q, c), in nats. Shape (q, c)."""


def find_oracle(hospital: Mapping[str, Any], root: Path) -> Oracle | None:
    """The oracle of the simulated hospital that a dataset came from.

    Args:
        hospital: the facts of the dataset's manifest; ``simulated_truth`` is a folder, or a file in it, or null.
        root: what a relative path is relative to: the workspace.

    Returns:
        None for a hospital that was not simulated, or whose folder is no longer there.

    Raises:
        InputError: the folder is there, but its truth cannot be read.
    """
    truth = hospital.get("simulated_truth")
    if not truth:
        return None
    folder = root / truth if (root / truth).is_dir() else (root / truth).parent
    if not folder.is_dir():
        logger.warning("the simulated hospital of this dataset is gone, so the report will have no oracle")
        return None
    from clinical_symile.simulation import Oracle as SimulationOracle

    loaded: Oracle = SimulationOracle.load(folder)
    return loaded


def oracle_rows(oracle: Oracle, task: RetrievalTask) -> ScoreRows:
    """The oracle's scores of queries against the whole bank."""

    def rows(block: slice) -> NDArray[np.floating]:
        asked = task.hadm_ids[task.queries[block]]
        scores = oracle.log_scores(asked, np.broadcast_to(task.hadm_ids, (len(asked), len(task.hadm_ids))))
        return np.round(scores, _DECIMALS)

    return rows


def oracle_digest(oracle: Oracle, task: RetrievalTask) -> str:
    """What identifies an oracle for a task: SHA-256 of its scores of the candidate sets."""
    scores = oracle.log_scores(task.hadm_ids[task.queries], task.hadm_ids[task.candidates])
    # Adding zero makes -0.0 and 0.0 the same bytes.
    return hashlib.sha256((np.round(scores, _DECIMALS) + 0.0).astype("<f8").tobytes()).hexdigest()

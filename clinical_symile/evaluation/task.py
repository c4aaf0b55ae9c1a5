"""The retrieval task of one split: whose ECG and labs ask, which X-rays may answer, and which answer is right.

One pass over blocks of queries scores each block against the whole bank and reads the candidate sets out of the same
numbers, so a model is never asked the same question twice and memory is bounded by one block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clinical_symile.dataset import ArrayStore
from clinical_symile.errors import InputError
from clinical_symile.evaluation.ranks import Ranks, rank_positives

Positions = NDArray[np.int64]
ScoreRows = Callable[[slice], NDArray[np.floating]]
"""Scores (b, g) of the queries in a slice against the whole bank."""

BLOCK = 256


@dataclass(frozen=True)
class RetrievalTask:
    """Queries, candidate sets and bank of one split. Positions count admissions within the split.

    Attributes:
        split: its name.
        rows: (g,) rows of the dataset.
        hadm_ids: (g,).
        subjects: (g,) patient of each admission.
        queries: (q,) positions.
        candidates: (q, c) positions of each set's X-rays.
        positive: (q,) column of the query's own X-ray in its set.
    """

    split: str
    rows: Positions
    hadm_ids: Positions
    subjects: Positions
    queries: Positions
    candidates: Positions
    positive: Positions

    @classmethod
    def of(cls, store: ArrayStore, split: str) -> RetrievalTask:
        """Reads the task of a split.

        Raises:
            InputError: the split has no candidate sets, or a set names another split's X-ray or misses its own.
        """
        rows = np.sort(np.asarray(store.rows(split), dtype=np.int64))
        queries, candidates, positive = (np.asarray(part, dtype=np.int64) for part in store.candidates(split))
        if not len(queries):
            raise InputError(f"split '{split}' has no candidate sets; build a larger cohort, or change evaluate.split")
        task = cls(
            split=split,
            rows=rows,
            hadm_ids=store.table["hadm_id"].to_numpy(dtype=np.int64)[rows],
            subjects=store.table["subject_id"].to_numpy(dtype=np.int64)[rows],
            queries=_positions(rows, queries, split),
            candidates=_positions(rows, candidates, split),
            positive=positive,
        )
        own = np.take_along_axis(task.candidates, positive[:, None], axis=1)[:, 0]
        wrong = int((own != task.queries).sum())
        if wrong:
            raise InputError(f"split '{split}': {wrong} candidate sets have the X-ray of another admission as their positive")
        return task

    def __len__(self) -> int:
        return len(self.queries)

    @property
    def query_subjects(self) -> Positions:
        """(q,) patient of each query."""
        return self.subjects[self.queries]

    @property
    def sets_with_same_patient(self) -> int:
        """Candidate sets in which a negative is another X-ray of the query's own patient."""
        same = self.subjects[self.candidates] == self.query_subjects[:, None]
        return int((same.sum(axis=1) > 1).sum())

    def rank(self, score_rows: ScoreRows) -> tuple[Ranks, Ranks]:
        """Ranks of all queries under one scoring rule.

        Args:
            score_rows: gives the scores of a slice of the queries against the bank.

        Returns:
            The ranks within the candidate sets and within the bank, where the patient's other admissions do not take part.

        Raises:
            InputError: a score is NaN.
        """
        sets, bank = [], []
        for start in range(0, len(self), BLOCK):
            block = slice(start, start + BLOCK)
            # The positive's score comes out of the same product as its rivals': computed apart, it could differ from an
            # equal rival's in the last bit.
            scores = score_rows(block)
            sets.append(rank_positives(np.take_along_axis(scores, self.candidates[block], axis=1), self.positive[block]))
            other_patient = self.subjects[None, :] != self.query_subjects[block, None]
            bank.append(rank_positives(scores, self.queries[block], other_patient))
        return Ranks.concatenate(sets), Ranks.concatenate(bank)


def _positions(rows: Positions, wanted: Positions, split: str) -> Positions:
    positions = np.minimum(np.searchsorted(rows, wanted), len(rows) - 1)
    foreign = int((rows[positions] != wanted).sum())
    if foreign:
        raise InputError(f"split '{split}': {foreign} entries of the candidate sets are admissions of no or another split")
    return positions

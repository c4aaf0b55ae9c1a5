"""The order of training: a new permutation for each epoch, a function of the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from clinical_symile.errors import InputError


class EpochSampler:
    """Batches of rows for one epoch.

    Resuming is exact because nothing is remembered: epoch e of seed s has the same order whoever asks, and whenever.

    Args:
        rows: (n,) rows to draw from.
        batch_size: rows per batch. A last batch that is not full is dropped, as the authors do, so that each loss has the
            same number of negatives; fewer rows than one batch are one batch.
        seed: of the run.
        epoch: counted from 0.

    Raises:
        InputError: there are no rows.
    """

    def __init__(self, rows: NDArray[np.integer], batch_size: int, seed: int, epoch: int) -> None:
        if not len(rows):
            raise InputError("the training split has no admissions")
        self.rows = np.asarray(rows)
        self.batch_size = min(batch_size, len(rows))
        self.seed = seed
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.rows) // self.batch_size

    def __iter__(self) -> Iterator[NDArray[np.integer]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.rows))
        for number in range(len(self)):
            yield self.rows[order[number * self.batch_size : (number + 1) * self.batch_size]]

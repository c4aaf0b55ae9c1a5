"""What training needs of a dataset: rows, batches, candidate sets; and whether there is enough of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clinical_symile.config import TrainConfig
from clinical_symile.dataset import ArrayStore, EpochSampler, make_batch
from clinical_symile.errors import ConfigError, InputError
from clinical_symile.training.randomness import Purpose, generator

Rows = NDArray[np.integer]


class MakeBatch(Protocol):
    """Reads rows of a dataset as the model's input."""

    def __call__(self, rows: Rows, crops: torch.Generator | None) -> dict[str, Tensor]:
        """Random crops from the generator, or the centre without one."""


@dataclass(frozen=True)
class CandidateSets:
    """Queries, each with its own candidates, as rows of the dataset.

    Attributes:
        queries: (q,).
        candidates: (q, c); one of them is the query's own.
        positives: (q,) position of that one.
    """

    queries: Rows
    candidates: Rows
    positives: Rows


@dataclass(frozen=True)
class TrainingData:
    """The training and validation splits.

    Attributes:
        train: rows of the training split.
        val: rows of the validation split.
        sets: candidate sets of the validation split; there may be none.
        make_batch: reads rows.
    """

    train: Rows
    val: Rows
    sets: CandidateSets
    make_batch: MakeBatch

    @classmethod
    def of(cls, store: ArrayStore) -> TrainingData:
        """The splits of an array store."""

        def read(rows: Rows, crops: torch.Generator | None) -> dict[str, Tensor]:
            return make_batch(store, rows, crops)

        return cls(store.rows("train"), store.rows("val"), CandidateSets(*store.candidates("val")), read)

    def check(self, config: TrainConfig) -> None:
        """Refuses splits that cannot be trained or validated on.

        Raises:
            InputError: a split has fewer than two admissions.
            ConfigError: validation cannot measure what the epoch is selected by.
        """
        for split, rows in (("train", self.train), ("val", self.val)):
            if len(rows) < 2:
                raise InputError(
                    f"dataset: the {split} split has {len(rows)} admissions, but contrasting needs at least 2; "
                    f"build a larger cohort, or change cohort.val_fraction and cohort.test_fraction"
                )
        if config.select_by == "accuracy_10way" and len(self.sets.queries) == 0:
            raise ConfigError(
                "train.select_by = 'accuracy_10way': the val split has no candidate sets; lower cohort.candidates, enlarge "
                "cohort.val_fraction, or select by 'loss'"
            )


class EpochBatches:
    """The training batches of one epoch after the other; each ``iter`` gives the batches of ``epoch``.

    Args:
        data: the dataset.
        batch_size: admissions per batch; a rest smaller than that is left out, as the authors do, but a training split that
            is smaller than one batch is one batch.
        seed: of the run; order and crops depend on it and on the epoch alone.
    """

    def __init__(self, data: TrainingData, batch_size: int, seed: int) -> None:
        self.data = data
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self._sampler())

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        first_step = self.epoch * len(self)
        for number, rows in enumerate(self._sampler()):
            yield self.data.make_batch(rows, generator(self.seed, Purpose.CROPS, first_step + number))

    def _sampler(self) -> EpochSampler:
        return EpochSampler(self.data.train, self.batch_size, self.seed, self.epoch)

"""What training needs of a dataset: rows, batches, candidate sets; and whether there is enough of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clinical_symile.config import AugmentConfig, TrainConfig
from clinical_symile.dataset import ArrayStore, EpochSampler, make_batch
from clinical_symile.errors import ConfigError, InputError
from clinical_symile.modalities.labs import LabStatistics
from clinical_symile.training.augmentation import augment
from clinical_symile.training.randomness import Purpose, generator
from clinical_symile.types import LAB_ITEM_IDS

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
        missing_labs: (50,) the percentile that stands for "not measured".
    """

    train: Rows
    val: Rows
    sets: CandidateSets
    make_batch: MakeBatch
    missing_labs: Tensor = field(default_factory=lambda: torch.full((len(LAB_ITEM_IDS),), 0.5))

    @classmethod
    def of(cls, store: ArrayStore) -> TrainingData:
        """The splits of an array store."""

        def read(rows: Rows, crops: torch.Generator | None) -> dict[str, Tensor]:
            return make_batch(store, rows, crops)

        statistics = LabStatistics.from_json((store.folder / "labs_statistics.json").read_text(encoding="utf-8"))
        missing = torch.tensor(statistics.mean_percentiles, dtype=torch.float32)
        return cls(store.rows("train"), store.rows("val"), CandidateSets(*store.candidates("val")), read, missing)

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
        seed: of the run; order, crops and changes depend on it and on the epoch alone.
        changes: how the inputs are augmented.
    """

    def __init__(self, data: TrainingData, batch_size: int, seed: int, changes: AugmentConfig | None = None) -> None:
        self.data = data
        self.batch_size = batch_size
        self.seed = seed
        self.changes = changes or AugmentConfig()
        self.epoch = 0

    def __len__(self) -> int:
        return len(self._sampler())

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        first_step = self.epoch * len(self)
        for number, rows in enumerate(self._sampler()):
            step = first_step + number
            batch = self.data.make_batch(rows, generator(self.seed, Purpose.CROPS, step))
            draws = generator(self.seed, Purpose.AUGMENTATION, step)
            yield augment(batch, self.changes, self.data.missing_labs, draws)

    def _sampler(self) -> EpochSampler:
        return EpochSampler(self.data.train, self.batch_size, self.seed, self.epoch)

"""The trained models that take part in an evaluation: found, read and encoded, each admission once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clinical_symile.dataset import ArrayStore, make_batch
from clinical_symile.errors import ConfigError
from clinical_symile.evaluation.task import RetrievalTask, ScoreRows
from clinical_symile.models import embed, load_model, read_metadata, score
from clinical_symile.models.storage import CHECKSUMS
from clinical_symile.stage import RunOptions, Workspace, atomic_path, digest_file, require_complete, track
from clinical_symile.types import MODALITIES, Modality

RESERVED = ("chance", "oracle")
"""Names of the other lines of a report, which no run may have."""


@dataclass(frozen=True)
class Contender:
    """One finished run.

    Attributes:
        name: the run's name.
        folder: its saved model.
        digest: SHA-256 of the model's list of checksums.
        loss: ``symile`` or ``clip``; it decides how embeddings are scored.
        trained_on: digest of the dataset it was trained on; None for an imported model.
        config: what it was trained with.
    """

    name: str
    folder: Path
    digest: str
    loss: str
    trained_on: str | None
    config: dict[str, Any]

    @classmethod
    def of(cls, workspace: Workspace, name: str) -> Contender:
        """Reads a run of the workspace.

        Raises:
            ConfigError: the name is not one of a run.
            IncompleteStage: the run is missing or unfinished.
            InputError: the run holds no saved model, or a file of it was changed.
        """
        if Path(name).name != name or name in RESERVED:
            raise ConfigError(f"{name!r} cannot be the name of a run; use the name of a folder in {workspace.root / 'runs'}")
        manifest = require_complete(workspace.run(name), "train")
        folder = workspace.run(name) / "model"
        metadata = read_metadata(folder)
        return cls(
            name=name,
            folder=folder,
            digest=digest_file(folder / CHECKSUMS),
            loss=str(metadata["loss"]),
            trained_on=metadata.get("dataset"),
            config=manifest.get("config", {}),
        )

    def score_rows(self, task: RetrievalTask, embeddings: dict[Modality, Tensor]) -> ScoreRows:
        """This model's scores of queries against the whole bank, in double precision."""
        candidates = embeddings["cxr"].double()
        ecg, labs = embeddings["ecg"].double(), embeddings["labs"].double()

        def rows(block: slice) -> NDArray[np.floating]:
            asked = torch.from_numpy(task.queries[block])
            scores: NDArray[np.floating] = score(self.loss, candidates, [ecg[asked], labs[asked]]).numpy()
            return scores

        return rows


def encode(
    contender: Contender, store: ArrayStore, rows: NDArray[np.int64], batch_size: int, partial: Path, options: RunOptions
) -> dict[Modality, Tensor]:
    """Embeds the three modalities of each admission once, or takes what an interrupted evaluation has embedded already.

    Args:
        contender: the run whose model embeds.
        store: the dataset.
        rows: (n,) rows of the dataset.
        batch_size: admissions at a time.
        partial: the file that keeps them until the evaluation is finished.
        options: how to run.

    Returns:
        Modality -> (n, d) float32.
    """
    if not partial.is_file():
        model = load_model(contender.folder)

        def batches() -> Iterator[dict[str, Tensor]]:
            starts = range(0, len(rows), batch_size)
            for start in track(starts, len(starts), f"encoding with '{contender.name}'", options):
                yield make_batch(store, rows[start : start + batch_size], None)

        embedded = embed(model, batches(), MODALITIES)
        with atomic_path(partial) as temporary, temporary.open("wb") as handle:
            np.save(handle, np.stack([embedded[modality].numpy() for modality in MODALITIES]), allow_pickle=False)
    stacked = torch.from_numpy(np.load(partial, allow_pickle=False))
    return dict(zip(MODALITIES, stacked, strict=True))

"""The stage ``index``: embeds the gallery's X-rays once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clinical_symile.config import ExperimentConfig
from clinical_symile.dataset import ArrayStore, make_batch
from clinical_symile.errors import InputError
from clinical_symile.models import SymileModel, embed, load_model, read_metadata
from clinical_symile.retrieval.gallery import EMBEDDINGS, MEANS, QUERY_MODALITIES, TABLE, model_digest
from clinical_symile.stage import RunOptions, Stage, Workspace, atomic_path, require_complete, track
from clinical_symile.types import MODALITIES

_SECONDS_PER_ADMISSION = 0.15
"""The released architecture on one CPU core; only for the estimate of ``--dry-run``."""


def build_index(config: ExperimentConfig, workspace: Workspace, options: RunOptions, run: str) -> dict[str, Any]:
    """Embeds the X-rays of ``config.index.splits`` with a run's model.

    The ECGs and laboratory panels of the same admissions are embedded too, but only their means are kept: they stand in for
    a modality that a query lacks.

    Args:
        config: section ``index`` says which splits, and how many admissions are embedded at a time.
        workspace: holds ``dataset/`` and ``runs/<run>/model/``; ``gallery/<run>/`` is written.
        options: how to run.
        run: the name of the training run.

    Returns:
        The manifest; empty for a dry run.

    Raises:
        IncompleteStage: the dataset or the run is not finished.
        InputError: no admission is in the chosen splits, or the run was trained on another dataset.
    """
    require_complete(workspace.dataset, "prepare")
    require_complete(workspace.run(run), "train")
    store = ArrayStore.open(workspace.dataset)
    model_folder = workspace.run(run) / "model"
    metadata = read_metadata(model_folder)
    if metadata.get("dataset", store.digest) != store.digest:
        # Its laboratory percentiles are those of the data it was trained on.
        raise InputError(f"{model_folder}: was trained on another dataset than {workspace.dataset}; train the run again")
    inputs = {"model": model_digest(model_folder), "dataset": store.digest}
    stage = Stage("index", workspace.gallery(run), inputs=inputs, config=config.index, options=options)
    rows = gallery_rows(store, config.index.splits)
    if options.dry_run:
        stage.announce({"X-rays": len(rows), "minutes, roughly": round(len(rows) * _SECONDS_PER_ADMISSION / 60, 1)})
        return {}
    if stage.should_skip():
        return stage.manifest()
    with stage.writing() as writing:
        embedder = _Embedder(load_model(model_folder), store, writing.output / ".partial")
        batches = [rows[start : start + config.index.batch_size] for start in range(0, len(rows), config.index.batch_size)]
        shards = [embedder.shard(number, batch) for number, batch in enumerate(track(batches, len(batches), "index", options))]
        _write(writing.output, shards, len(rows))
        _write_table(writing.output, store, rows)
        writing.counts.update(xrays=len(rows), subjects=int(store.table["subject_id"].iloc[rows].nunique()))
        writing.facts.update(access=store.access, loss=metadata["loss"], run=run)
    return stage.manifest()


def gallery_rows(store: ArrayStore, splits: tuple[str, ...]) -> NDArray[np.int64]:
    """Rows of the dataset whose X-rays make up the gallery, ascending.

    An X-ray that serves two admissions of one subject is held once, with the earlier row.

    Raises:
        InputError: there are none.
    """
    rows = np.flatnonzero(store.table["split"].isin(splits).to_numpy(dtype=np.bool_))
    if not len(rows):
        raise InputError(f"index.splits = {', '.join(splits)}: the dataset has no admission in them")
    images = store.table.iloc[rows][["subject_id", "cxr_sha256"]]
    first = ~images.duplicated().to_numpy(dtype=np.bool_)
    return np.asarray(rows[first], dtype=np.int64)


class _Embedder:
    """Embeds batches of admissions; each finished batch is a file, so that an interrupted run goes on where it was."""

    def __init__(self, model: SymileModel, store: ArrayStore, folder: Path) -> None:
        self.model = model
        self.store = store
        self.folder = folder

    def shard(self, number: int, rows: NDArray[np.int64]) -> Path:
        file = self.folder / f"{number:06d}.npz"
        if not file.exists():
            embedded = embed(self.model, [make_batch(self.store, rows, None)], MODALITIES)
            sums = np.stack([embedded[modality].double().sum(dim=0).numpy() for modality in QUERY_MODALITIES])
            with atomic_path(file) as temporary, temporary.open("wb") as handle:
                np.savez(handle, cxr=embedded["cxr"].float().numpy(), sums=sums)
        return file


def _write(folder: Path, shards: list[Path], total: int) -> None:
    """Joins the shards: the X-rays' embeddings (g, d), and the means of the ECG and labs embeddings (2, d)."""
    sums = np.sum([_read_shard(shard)[1] for shard in shards], axis=0)
    width = sums.shape[1]
    with atomic_path(folder / MEANS) as temporary, temporary.open("wb") as handle:
        np.save(handle, (sums / total).astype(np.float32))
    with atomic_path(folder / EMBEDDINGS) as temporary:
        embeddings = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=(total, width))
        start = 0
        for cxr, _ in map(_read_shard, shards):
            embeddings[start : start + len(cxr)] = cxr
            start += len(cxr)
        embeddings.flush()


def _read_shard(file: Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    with np.load(file, allow_pickle=False) as arrays:
        return arrays["cxr"], arrays["sums"]


def _write_table(folder: Path, store: ArrayStore, rows: NDArray[np.int64]) -> None:
    columns = ["hadm_id", "subject_id", "cxr_dicom_id", "cxr_view", "split"]
    table = store.table.iloc[rows].reindex(columns=columns).reset_index(drop=True)  # a hospital may not know the view
    table.insert(0, "position", pd.RangeIndex(len(rows)).astype("int64"))
    table.insert(1, "row", rows)
    with atomic_path(folder / TABLE) as temporary:
        table.to_parquet(temporary, index=False)

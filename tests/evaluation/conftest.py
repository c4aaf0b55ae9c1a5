"""A small dataset and two trained runs that quack like the real ones, with embeddings that are planted rather than learnt."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from clinical_symile.evaluation import contenders, evaluating
from clinical_symile.stage import Workspace
from clinical_symile.types import SPLITS

DIMENSION = 32


class FakeStore:
    """What ``evaluate`` asks of ``ArrayStore``: 12 train, 8 val and 40 test admissions; some test patients come twice."""

    access = "synthetic"
    digest = "d" * 64

    def __init__(self, candidates: int = 5) -> None:
        splits = ["train"] * 12 + ["val"] * 8 + ["test"] * 40
        # Patients of a split are disjoint from the others'; every fourth admission is another one of the patient before.
        subjects = [1000 * (1 + SPLITS.index(split)) + row - (row % 4 == 3) for row, split in enumerate(splits)]
        self.table = pd.DataFrame(
            {
                "row": np.arange(60),
                "hadm_id": 20_000_000 + np.arange(60) * 7,
                "subject_id": subjects,
                "split": splits,
            }
        )
        self.size = candidates

    def rows(self, split: str) -> np.ndarray:
        return self.table.index[self.table["split"] == split].to_numpy()

    def candidates(self, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Sets of the query's own X-ray and others of the split, never of the same patient; the positive moves about."""
        rng = np.random.default_rng(5)
        queries, sets, positive = self.rows(split), [], []
        subjects = self.table["subject_id"].to_numpy()
        for query in queries:
            others = [row for row in queries if subjects[row] != subjects[query]]
            place = int(rng.integers(0, self.size))
            negatives = rng.choice(others, self.size - 1, replace=False).tolist()
            sets.append([*negatives[:place], query, *negatives[place:]])
            positive.append(place)
        return queries, np.array(sets), np.array(positive)


@dataclass
class World:
    """A workspace with a dataset and the runs ``symile`` and ``clip``, and a record of what was encoded."""

    workspace: Workspace
    store: FakeStore
    encoded: list[tuple[str, int]] = field(default_factory=list)
    planted: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)

    def write_run(self, name: str, loss: str, trained_on: str | None = FakeStore.digest) -> None:
        """A finished training run."""
        model = self.workspace.run(name) / "model"
        model.mkdir(parents=True)
        (model / "model.json").write_text(json.dumps({"loss": loss, "dataset": trained_on}))
        (model / "SHA256SUMS").write_text(f"{hashlib.sha256(name.encode()).hexdigest()}  model.safetensors\n")
        manifest = {"stage": "train", "config": {"train": {"loss": loss, "epochs": 3}}, "outputs": {}}
        (self.workspace.run(name) / "manifest.json").write_text(json.dumps(manifest))
        lines = [
            {"epoch": epoch, "train_loss": 3 / epoch, "val_loss": 3.5 / epoch, "accuracy_10way": 0.2 * epoch}
            for epoch in (1, 2, 3)
        ]
        (self.workspace.run(name) / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def write_dataset(self, **hospital: Any) -> None:
        """A finished dataset."""
        self.workspace.dataset.mkdir(parents=True, exist_ok=True)
        manifest = {"hospital": {"kind": "mimic", "simulated_truth": None, **hospital}, "outputs": {}}
        (self.workspace.dataset / "manifest.json").write_text(json.dumps(manifest))


def plant(seed: int, n: int, informative: bool) -> dict[str, torch.Tensor]:
    """Embeddings whose X-ray is told by the product of ECG and labs (``informative``), or by nothing."""
    generator = torch.Generator().manual_seed(seed)
    cxr, noise = torch.randn(2, n, DIMENSION, generator=generator)
    signs = torch.randint(0, 2, (n, DIMENSION), generator=generator).float() * 2 - 1
    target = cxr + 2 * noise if informative else noise
    return {"cxr": cxr, "ecg": signs, "labs": signs * target}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """The fake dataset and models, in a workspace on disk."""
    store = FakeStore()
    made = World(Workspace(tmp_path / "ws"), store)
    made.planted = {"symile": plant(0, 60, informative=True), "clip": plant(1, 60, informative=False)}
    made.write_dataset()
    for name in made.planted:
        made.write_run(name, name)

    def embed(model: str, batches: Iterable[Mapping[str, Any]], modalities: Sequence[str]) -> dict[str, torch.Tensor]:
        rows = [int(row) for batch in batches for row in batch["rows"]]
        made.encoded += [(model, row) for row in rows]
        return {modality: made.planted[model][modality][rows] for modality in modalities}

    monkeypatch.setattr(evaluating, "ArrayStore", SimpleNamespace(open=lambda folder: store))
    monkeypatch.setattr(contenders, "make_batch", lambda store, rows, generator: {"rows": rows})
    monkeypatch.setattr(contenders, "load_model", lambda folder: folder.parent.name)
    monkeypatch.setattr(contenders, "read_metadata", lambda folder: json.loads((folder / "model.json").read_text()))
    monkeypatch.setattr(contenders, "embed", embed)
    return made


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small products are quicker in one thread, and the machine is shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)

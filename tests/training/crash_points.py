"""Trains a tiny model, killed with SIGKILL at one moment after the other, and resumed; prints the digests as JSON.

    python tests/training/crash_points.py FOLDER EVERY

A moment is just before or just after a file is replaced, or the reading of a batch. Each attempt is a forked child, so that
torch and Lightning are imported once; this process runs nothing in parallel, so forking it is safe.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from clinical_symile.config import ModelConfig, TrainConfig
from clinical_symile.stage import RunOptions
from clinical_symile.training.data import CandidateSets, TrainingData
from clinical_symile.training.fit import fit
from clinical_symile.training.tracker import NullTracker

MODEL = ModelConfig(cxr_encoder="small", ecg_encoder="small", labs_hidden=(8,), embed_dim=8, logit_scale_init=-1.0)
TRAIN = TrainConfig(
    epochs=3, batch_size=8, lr=1e-2, schedule="cosine", negative_sampling="n", accelerator="cpu", select_by="accuracy_10way"
)
SHAPES = {"cxr": (3, 320, 320), "ecg": (1, 5000, 12), "labs": (100,)}


def tiny_data(on_read: Callable[[], None] = lambda: None, train: int = 20, val: int = 12) -> TrainingData:
    """Random admissions; the crop generator changes them, so that a wrong crop would show."""
    source = torch.Generator().manual_seed(0)
    tensors = {name: torch.rand(train + val, *shape, generator=source) for name, shape in SHAPES.items()}

    def read(rows: np.ndarray, crops: torch.Generator | None) -> dict[str, torch.Tensor]:
        on_read()
        batch = {name: tensor[torch.from_numpy(rows)] for name, tensor in tensors.items()}
        if crops is not None:
            batch["cxr"] = batch["cxr"] + torch.rand(len(rows), 3, 1, 1, generator=crops)
        return batch

    rows = np.arange(train + val)
    queries = rows[train:]
    candidates = np.stack([np.roll(queries, -shift) for shift in range(len(queries))])[:, :5]
    sets = CandidateSets(queries, candidates, np.zeros(len(queries), dtype=np.int64))
    return TrainingData(rows[:train], queries, sets, read)


class Killer:
    """Kills this process at the n-th moment; 0 never does."""

    def __init__(self, moment: int) -> None:
        self.moment = moment
        self.seen = 0

    def __call__(self) -> None:
        self.seen += 1
        if self.seen == self.moment:
            os.kill(os.getpid(), signal.SIGKILL)


def attempt(folder: Path, moment: int) -> int:
    """One run in a child; the number of moments it saw is left in ``moments``. Returns the child's status."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    killer, replace = Killer(moment), os.replace

    def watched_replace(source: str, target: str) -> None:
        killer()
        replace(source, target)
        killer()

    os.replace = watched_replace
    model, _ = fit(MODEL, TRAIN, tiny_data(killer), folder, RunOptions(quiet=True), NullTracker())
    digest = hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values())).hexdigest()
    (folder / "digest").write_text(digest)
    (folder / "moments").write_text(str(killer.seen))
    os._exit(0)


def main(root: Path, every: int) -> None:
    """Undisturbed once, then killed at every so many moments."""
    torch.set_num_threads(1)
    if attempt(root / "undisturbed", 0) != 0:
        raise SystemExit("the undisturbed run failed")
    digests = {}
    for moment in range(1, int((root / "undisturbed" / "moments").read_text()) + 1, every):
        folder = root / f"killed-{moment}"
        killed = attempt(folder, moment)
        if not os.WIFSIGNALED(killed):
            raise SystemExit(f"moment {moment}: the run was not killed")
        if attempt(folder, 0) != 0:
            raise SystemExit(f"moment {moment}: the run could not be resumed")
        digests[moment] = (folder / "digest").read_text()
    print(json.dumps({"undisturbed": (root / "undisturbed" / "digest").read_text(), "resumed": digests}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))

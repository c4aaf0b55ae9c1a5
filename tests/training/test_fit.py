"""What a fit does besides being resumable: it learns, it is repeatable, it keeps the best epoch, it stops on nonsense."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from clinical_symile.errors import ClinicalSymileError, ConfigError, InputError
from clinical_symile.stage import RunOptions
from clinical_symile.training import NullTracker
from clinical_symile.training.data import CandidateSets, TrainingData
from clinical_symile.training.fit import fit

QUIET = RunOptions(quiet=True)


def metrics(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights(model: torch.nn.Module) -> bytes:
    return b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values())


def tied_data(train: int, val: int) -> TrainingData:
    """Admissions of four kinds that every modality shows plainly: brightness, frequency, one raised laboratory value."""
    n = train + val
    kind = torch.arange(n) % 4
    noise = torch.Generator().manual_seed(1)
    time = torch.arange(5000) / 500
    waves = torch.stack([torch.sin(2 * torch.pi * (k + 1) * time) for k in range(4)])
    tensors = {
        "cxr": kind.view(n, 1, 1, 1) - 1.5 + 0.1 * torch.randn(n, 3, 320, 320, generator=noise),
        "ecg": waves[kind].view(n, 1, 5000, 1) + 0.1 * torch.randn(n, 1, 5000, 12, generator=noise),
        "labs": torch.eye(100)[kind] + 0.1 * torch.randn(n, 100, generator=noise),
    }
    queries = np.arange(train, n)
    # Each query's own X-ray and three of the other kinds.
    candidates = np.stack([train + (queries - train + shift) % val for shift in range(4)], axis=1)
    sets = CandidateSets(queries, candidates, np.zeros(val, dtype=np.int64))
    return TrainingData(
        np.arange(train),
        queries,
        sets,
        lambda rows, crops: {name: tensor[torch.from_numpy(rows)] for name, tensor in tensors.items()},
    )


@pytest.mark.parametrize("loss", ["symile", "clip"])
def test_a_model_learns_what_ties_the_modalities(tmp_path: Path, tiny, loss: str) -> None:
    config = tiny.TRAIN.model_copy(update={"loss": loss, "epochs": 20, "batch_size": 16})
    _, progress = fit(tiny.MODEL, config, tied_data(32, 16), tmp_path, QUIET, NullTracker())
    assert progress.best["accuracy_10way"] > 0.9, "chance is 0.25"
    lines = metrics(tmp_path)
    assert lines[-1]["train_loss"] < 0.75 * lines[0]["train_loss"], "of 16 admissions, 4 are of one kind: log 16 -> log 4 = 0.5"


def test_the_seed_decides_everything_and_the_global_generator_nothing(tmp_path: Path, tiny) -> None:
    results = []
    for name, global_seed, seed in (("a", 1, 0), ("b", 2, 0), ("c", 1, 5)):
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        config = tiny.TRAIN.model_copy(update={"seed": seed, "epochs": 1})
        model, _ = fit(tiny.MODEL, config, tiny.tiny_data(), tmp_path / name, QUIET, NullTracker())
        assert torch.equal(torch.get_rng_state(), before), "training drew from the global generator"
        results.append(weights(model))
    assert results[0] == results[1] != results[2]


@pytest.mark.parametrize(
    ("select_by", "losses", "accuracies", "best"),
    [
        ("loss", [3.0, 1.0, 2.0], [0.9, 0.1, 0.5], 2),
        ("accuracy_10way", [3.0, 1.0, 2.0], [0.5, 0.1, 0.4], 1),
        ("accuracy_10way", [3.0, 2.0, 1.0], [0.5, 0.5, 0.5], 3),
    ],
    ids=["smallest loss", "largest accuracy", "equal accuracies: smallest loss"],
)
def test_the_epoch_that_validation_prefers_is_kept(
    tmp_path: Path, tiny, monkeypatch: pytest.MonkeyPatch, select_by: str, losses: list[float], accuracies: list[float], best: int
) -> None:
    after_epoch: list[bytes] = []

    def validate(model: torch.nn.Module, *arguments: object) -> dict[str, float]:
        epoch = len(after_epoch)
        after_epoch.append(weights(model))
        return {"val_loss": losses[epoch], "accuracy_10way": accuracies[epoch]}

    monkeypatch.setattr("clinical_symile.training.epochs.validate", validate)
    config = tiny.TRAIN.model_copy(update={"select_by": select_by})
    model, progress = fit(tiny.MODEL, config, tiny.tiny_data(), tmp_path, QUIET, NullTracker())
    assert progress.best_epoch == best
    assert weights(model) == after_epoch[best - 1]
    assert len(set(after_epoch)) == 3
    assert not model.training
    assert [file.name for file in tmp_path.rglob("best-*")] == [f"best-{best:05d}.safetensors"], "one epoch is kept"


def test_each_epoch_has_its_line_and_reaches_the_tracker(tmp_path: Path, tiny) -> None:
    seen: list[tuple[int, dict[str, float]]] = []

    class Recorder(NullTracker):
        def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
            seen.append((step, dict(metrics)))

    fit(tiny.MODEL, tiny.TRAIN, tiny.tiny_data(), tmp_path, QUIET, Recorder())
    lines = metrics(tmp_path)
    assert [line["epoch"] for line in lines] == [step for step, _ in seen] == [1, 2, 3]
    assert [line["step"] for line in lines] == [2, 4, 6], "20 admissions are 2 whole batches of 8"
    names = {"train_loss", "val_loss", "accuracy_10way", "logit_scale", "lr", "seconds"}
    assert all(set(record) == names for _, record in seen)
    assert seen[-1][1]["val_loss"] == lines[-1]["val_loss"]


def test_the_scale_can_be_frozen_or_limited(tmp_path: Path, tiny) -> None:
    frozen = tiny.TRAIN.model_copy(update={"freeze_logit_scale": True})
    fit(tiny.MODEL, frozen, tiny.tiny_data(), tmp_path / "frozen", QUIET, NullTracker())
    assert {line["logit_scale"] for line in metrics(tmp_path / "frozen")} == {-1.0}
    limited = tiny.TRAIN.model_copy(update={"max_logit_scale": -1.2})
    fit(tiny.MODEL, limited, tiny.tiny_data(), tmp_path / "limited", QUIET, NullTracker())
    assert max(line["logit_scale"] for line in metrics(tmp_path / "limited")) <= -1.2 + 1e-6


def test_weight_decay_reaches_every_parameter_as_in_the_authors_code(tmp_path: Path, tiny) -> None:
    # With no gradient left to speak of (lr tiny, decay huge), one step multiplies by 1 - lr * decay.
    config = tiny.TRAIN.model_copy(
        update={"lr": 1e-6, "weight_decay": 1e5, "epochs": 1, "batch_size": 20, "schedule": "constant"}
    )
    fit(tiny.MODEL, config, tiny.tiny_data(), tmp_path, QUIET, NullTracker())
    assert metrics(tmp_path)[0]["logit_scale"] == pytest.approx(-0.9, abs=1e-4)


def test_a_loss_that_is_not_finite_stops_with_the_remedy(tmp_path: Path, tiny) -> None:
    data = tiny.tiny_data()

    def broken(rows: np.ndarray, crops: torch.Generator | None) -> dict[str, torch.Tensor]:
        batch = data.make_batch(rows, crops)
        return {**batch, "labs": batch["labs"] * float("nan")}

    with pytest.raises(ClinicalSymileError, match=r"loss of step 1 is nan .* lower train\.lr"):
        fit(tiny.MODEL, tiny.TRAIN, replace(data, make_batch=broken), tmp_path, QUIET, NullTracker())
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_training_split_smaller_than_a_batch_is_one_batch(tmp_path: Path, tiny) -> None:
    config = tiny.TRAIN.model_copy(update={"batch_size": 280, "epochs": 1})
    _, progress = fit(tiny.MODEL, config, tiny.tiny_data(train=5), tmp_path, QUIET, NullTracker())
    assert progress.step == 1


@pytest.mark.parametrize(("train", "val", "split"), [(20, 0, "val"), (1, 8, "train")])
def test_a_split_that_is_too_small_is_an_error(tmp_path: Path, tiny, train: int, val: int, split: str) -> None:
    rows = np.arange(train + val)
    none = CandidateSets(rows[:0], rows[:0, None], rows[:0])
    data = TrainingData(rows[:train], rows[train:], none, tiny.tiny_data().make_batch)
    with pytest.raises(InputError, match=f"the {split} split has {min(train, val)} admissions"):
        fit(tiny.MODEL, tiny.TRAIN, data, tmp_path, QUIET, NullTracker())


def test_without_candidate_sets_the_loss_must_select(tmp_path: Path, tiny) -> None:
    data = tiny.tiny_data()
    none = CandidateSets(data.val[:0], data.val[:0, None], data.val[:0])
    data = replace(data, sets=none)
    with pytest.raises(ConfigError, match="no candidate sets"):
        fit(tiny.MODEL, tiny.TRAIN, data, tmp_path, QUIET, NullTracker())
    by_loss = tiny.TRAIN.model_copy(update={"select_by": "loss", "epochs": 1})
    fit(tiny.MODEL, by_loss, data, tmp_path, QUIET, NullTracker())
    assert "accuracy_10way" not in metrics(tmp_path)[0]


def test_lightning_is_silent_and_leaves_nothing_behind(
    tmp_path: Path, tiny, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*arguments: object, **options: object) -> None:
        raise AssertionError("training opened a network connection")

    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setenv("SLURM_NTASKS", "4")  # as in a SLURM job
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    loggers = {name: logging.getLogger(name).level for name in ("lightning.pytorch", "lightning.fabric")}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(tiny.MODEL, tiny.TRAIN, tiny.tiny_data(), tmp_path / "run", QUIET, NullTracker())
    assert capfd.readouterr() == ("", "")
    assert os.listdir(tmp_path / "cwd") == []
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["checkpoints", "metrics.jsonl"]
    assert {number: signal.getsignal(number) for number in handlers} == handlers
    assert {name: logging.getLogger(name).level for name in loggers} == loggers


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_interruptions_look_like_interruptions(
    tmp_path: Path, tiny, number: signal.Signals, expected: type[BaseException]
) -> None:
    # A shell that starts the tests in the background lets them ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Lightning would end both with sys.exit, SIGTERM even with status 0.
    reads = 0

    def interrupt() -> None:
        nonlocal reads
        reads += 1
        if reads == 2:
            os.kill(os.getpid(), number)

    with pytest.raises(expected) as caught:
        fit(tiny.MODEL, tiny.TRAIN, tiny.tiny_data(interrupt), tmp_path, QUIET, NullTracker())
    if expected is SystemExit:
        assert caught.value.code == 143


def test_progress_is_logged_with_an_eta(tmp_path: Path, tiny, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="clinical_symile")
    fit(tiny.MODEL, tiny.TRAIN, tiny.tiny_data(), tmp_path, RunOptions(), NullTracker())
    assert "train symile: 6/6" in caplog.text
    assert "s left" in caplog.text
    assert "epoch 3: train_loss" in caplog.text

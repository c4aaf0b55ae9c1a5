"""The small parts of training, each against a closed form or a loop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from clinical_symile.contrastive import PairwiseCLIPLoss, symile_loss
from clinical_symile.errors import InputError
from clinical_symile.training.checkpoint import Progress, load_checkpoint, restore_optimizer, save_checkpoint
from clinical_symile.training.data import CandidateSets, EpochBatches
from clinical_symile.training.randomness import Purpose, generator, seeded_initialisation
from clinical_symile.training.schedule import learning_rate
from clinical_symile.training.validation import batched_loss, candidate_accuracy


def test_cosine_warms_up_peaks_and_falls() -> None:
    rates = [learning_rate(step, 200, 2.0, "cosine") for step in range(200)]
    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert max(rates) == rates[9] == 2.0
    assert np.all(np.diff(rates[9:]) < 0)
    assert rates[10 + 95 - 1] == pytest.approx(1.0, abs=0.02), "half the peak in the middle of the fall"
    assert 0 < rates[-1] < 1e-3


@pytest.mark.parametrize("total", [1, 2, 3, 10])
def test_short_runs_have_a_learning_rate_too(total: int) -> None:
    assert all(0 < learning_rate(step, total, 1.0, "cosine") <= 1 for step in range(total))
    assert {learning_rate(step, total, 1.0, "constant") for step in range(total)} == {1.0}


def test_generators_depend_on_seed_purpose_and_position() -> None:
    draws = {
        torch.rand(1, generator=generator(seed, purpose, position)).item()
        for seed in (0, 1)
        for purpose in Purpose
        for position in (0, 1)
    }
    assert len(draws) == 2 * len(Purpose) * 2
    again = torch.rand(1, generator=generator(1, Purpose.CROPS, 1)).item()
    assert again in draws


def test_initialisation_is_seeded_and_leaves_no_trace() -> None:
    before = torch.get_rng_state()
    made = []
    for seed in (3, 3, 4):
        with seeded_initialisation(seed):
            made.append(torch.nn.Linear(3, 2).weight)
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_every_epoch_shuffles_anew_and_a_rest_is_left_out(tiny) -> None:
    seen: list[list[int]] = []
    data = replace(tiny.tiny_data(train=11), make_batch=lambda rows, crops: seen.append(rows.tolist()) or {})
    batches = EpochBatches(data, 4, seed=0)
    for epoch in (0, 1, 0):
        batches.epoch = epoch
        list(batches)
    assert len(batches) == 2
    assert [len(rows) for rows in seen] == [4] * 6
    assert seen[:2] == seen[4:], "the same epoch has the same order"
    assert seen[:2] != seen[2:4]
    assert len({row for rows in seen[:2] for row in rows}) == 8, "no admission twice in an epoch"


def test_crops_differ_between_steps_and_epochs(tiny) -> None:
    draws: list[float] = []
    data = replace(tiny.tiny_data(), make_batch=lambda rows, crops: draws.append(torch.rand(1, generator=crops).item()) or {})
    batches = EpochBatches(data, 8, seed=0)
    for epoch in (0, 1, 2):
        batches.epoch = epoch
        list(batches)
    assert len(set(draws)) == 6


def test_accuracy_is_the_share_of_sets_whose_own_xray_scores_highest() -> None:
    # Rows 10, 20, 30 are one-hot; the fourth is the same as the first, which makes a tie.
    rows = np.array([10, 20, 30, 40])
    one_hot = torch.eye(4)[[0, 1, 2, 0]]
    embedded = {"cxr": one_hot, "ecg": one_hot, "labs": torch.ones(4, 4)}
    sets = CandidateSets(
        queries=np.array([10, 20, 30]),
        candidates=np.array([[10, 20, 30], [10, 20, 30], [30, 20, 10]]),
        positives=np.array([0, 0, 0]),  # right, wrong, right
    )
    assert candidate_accuracy("symile", embedded, rows, sets) == pytest.approx(2 / 3)
    tied = CandidateSets(np.array([10]), np.array([[40, 10, 20]]), np.array([1]))
    assert candidate_accuracy("symile", embedded, rows, tied) == 0.5


def test_accuracy_follows_the_loss() -> None:
    # The product of query parts points to the second candidate, their sum to the first.
    embedded = {
        "cxr": torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
        "ecg": torch.tensor([[3.0, 1.0], [0.0, 0.0]]),
        "labs": torch.tensor([[0.0, 1.0], [0.0, 0.0]]),
    }
    sets = CandidateSets(np.array([0]), np.array([[0, 1]]), np.array([0]))
    assert candidate_accuracy("clip", embedded, np.arange(2), sets) == 1.0
    assert candidate_accuracy("symile", embedded, np.arange(2), sets) == 0.0


@pytest.mark.parametrize(("n", "sizes"), [(12, [6, 6]), (11, [6, 5]), (7, [7]), (3, [3])])
def test_validation_batches_are_nearly_equal(n: int, sizes: list[int]) -> None:
    source = torch.Generator().manual_seed(0)
    embedded = {name: torch.randn(n, 4, generator=source) for name in ("cxr", "ecg", "labs")}
    seen: list[int] = []

    def loss(rows: dict[str, torch.Tensor], scale: torch.Tensor, negatives: torch.Generator) -> torch.Tensor:
        seen.append(len(rows["cxr"]))
        return symile_loss(rows, scale, "n_squared")

    value = batched_loss(loss, embedded, torch.tensor(1.0), 5, torch.Generator())
    assert seen == sizes
    starts = np.cumsum([0, *sizes])
    parts = [
        size * symile_loss({name: tensor[start : start + size] for name, tensor in embedded.items()}, 1.0, "n_squared").item()
        for start, size in zip(starts, sizes, strict=False)
    ]
    assert value == pytest.approx(sum(parts) / n)


def test_the_optimizer_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    def train(model: torch.nn.Linear, optimizer: torch.optim.Optimizer, steps: range) -> None:
        for step in steps:
            optimizer.zero_grad()
            x = torch.full((4, 3), float(step))
            PairwiseCLIPLoss()([model(x + torch.eye(4, 3)), torch.eye(4, 2)], 1.0).backward()
            optimizer.step()

    def fresh() -> tuple[torch.nn.Linear, torch.optim.Optimizer]:
        with seeded_initialisation(0):
            model = torch.nn.Linear(3, 2)
        model.bias.requires_grad_(False)  # like a frozen logit_scale: it has no moments
        return model, torch.optim.AdamW(model.parameters(), 0.1)

    whole, optimizer = fresh()
    train(whole, optimizer, range(6))

    half, optimizer = fresh()
    train(half, optimizer, range(3))
    progress = Progress(epoch=1, step=3, best_epoch=1, best={"val_loss": 0.1 + 0.2})
    save_checkpoint(tmp_path, half, optimizer, progress)
    resumed, optimizer = fresh()
    checkpoint = load_checkpoint(tmp_path)
    assert checkpoint is not None
    assert checkpoint.progress == progress
    resumed.load_state_dict(checkpoint.weights)
    restore_optimizer(optimizer, resumed, checkpoint.moments)
    train(resumed, optimizer, range(3, 6))
    assert torch.equal(resumed.weight, whole.weight)


def test_a_checkpoint_that_cannot_be_read_says_what_to_do(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path) is None
    (tmp_path / "last.safetensors").write_bytes(b"torn")
    with pytest.raises(InputError, match="train again with --overwrite"):
        load_checkpoint(tmp_path)

"""k processes give the loss and the gradients of one process with the joined batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from clinical_symile.contrastive import LogitScale, PairwiseCLIPLoss, SymileLoss, symile_loss
from clinical_symile.contrastive.tuple_cube import Tiling

ROWS, INPUTS, EMBEDDING = 4, 3, 5
CASES = [
    (k, case, modalities, missing)
    for k in (2, 3)
    for case in ("n", "n compatible", "n_squared", "clip")
    for modalities in (2, 3, 4)
    for missing in (0.0, 0.25)
    # The authors' package knows no missing modalities; three processes are as two with an odd number.
    if not (missing and case == "n compatible") and (k == 2 or modalities == 3)
]


class Encoders(torch.nn.Module):
    """A linear encoder per modality and the scale: what DistributedDataParallel wraps."""

    def __init__(self, modalities: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoders = torch.nn.ModuleList(torch.nn.Linear(INPUTS, EMBEDDING) for _ in range(modalities))
        self.scale = LogitScale(0.1)
        self.double()

    def forward(self, inputs: list[torch.Tensor]) -> tuple[list[torch.Tensor], torch.Tensor]:
        return [encoder(x) for encoder, x in zip(self.encoders, inputs, strict=True)], self.scale()


def data(modalities: int, n: int, missing: float) -> tuple[list[torch.Tensor], list[torch.Tensor] | None]:
    generator = torch.Generator().manual_seed(1)
    inputs = [torch.randn(n, INPUTS, generator=generator, dtype=torch.float64) for _ in range(modalities)]
    present = [torch.rand(n, generator=generator) >= missing for _ in range(modalities)]
    return inputs, present if missing else None


def make_loss(case: str, gather: bool) -> torch.nn.Module:
    if case == "clip":
        return PairwiseCLIPLoss(gather=gather)
    return SymileLoss("n" if case != "n_squared" else case, compatible="compatible" in case, gather=gather)


def step(model: torch.nn.Module, loss: torch.nn.Module, inputs, present, seed: int) -> dict[str, Any]:
    """Loss and gradients of one step."""
    representations, scale = model(inputs)
    value = loss(representations, scale, torch.Generator().manual_seed(seed), present=present)
    value.backward()
    return {"loss": value.item(), "gradients": [parameter.grad for parameter in model.parameters()]}


def one_rank(case: str, modalities: int, missing: float) -> dict[str, Any]:
    rank, k = dist.get_rank(), dist.get_world_size()
    inputs, present = data(modalities, k * ROWS, missing)
    mine = slice(rank * ROWS, (rank + 1) * ROWS)
    local = None if present is None else [flag[mine] for flag in present]
    model = DistributedDataParallel(Encoders(modalities))
    # Only the first rank's generator counts.
    return step(model, make_loss(case, gather=True), [x[mine] for x in inputs], local, seed=7 + 100 * rank)


@pytest.mark.parametrize(("k", "case", "modalities", "missing"), CASES)
def test_ranks_equal_one_process(ranks, k: int, case: str, modalities: int, missing: float) -> None:
    inputs, present = data(modalities, k * ROWS, missing)
    expected = step(Encoders(modalities), make_loss(case, gather=False), inputs, present, seed=7)
    assert expected["loss"] > 0
    for outcome in ranks.run(k, one_rank, case, modalities, missing):
        assert outcome["loss"] == pytest.approx(expected["loss"], abs=1e-12)
        for ours, theirs in zip(outcome["gradients"], expected["gradients"], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def split_work() -> int:
    """How many slices of the cube this rank computed; 7 rows on 2 ranks do not divide evenly."""
    rank = dist.get_rank()
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(7, 3, generator=generator, dtype=torch.float64)[rank * 3 : rank * 3 + 3] for _ in range(3)]
    seen: list[int] = []
    original = torch.Tensor.addmm_
    torch.Tensor.addmm_ = lambda total, left, right, **how: seen.append(len(left)) or original(total, left, right, **how)
    try:
        with torch.no_grad():
            symile_loss(tensors, 1.0, "n_squared", gather=True, tiling=Tiling(1, 3, 0))
    finally:
        torch.Tensor.addmm_ = original
    return len(seen)


def test_the_work_is_split(ranks) -> None:
    assert ranks.run(2, split_work) == [3, 3], "6 joined rows, one slice each"


def nothing_on_the_second_rank() -> dict[str, Any]:
    inputs, present = data(3, 2 * ROWS, missing=0.2)
    for flag in present:
        flag[ROWS:] = False
    mine = slice(dist.get_rank() * ROWS, (dist.get_rank() + 1) * ROWS)
    model = DistributedDataParallel(Encoders(3))
    loss = make_loss("n_squared", gather=True)
    return step(model, loss, [x[mine] for x in inputs], [flag[mine] for flag in present], seed=0)


def test_a_rank_without_any_complete_row_does_not_disturb(ranks) -> None:
    inputs, present = data(3, 2 * ROWS, missing=0.2)
    for flag in present:
        flag[ROWS:] = False
    expected = step(Encoders(3), make_loss("n_squared", gather=False), inputs, present, seed=0)
    for outcome in ranks.run(2, nothing_on_the_second_rank):
        assert outcome["loss"] == pytest.approx(expected["loss"], abs=1e-12)
        for ours, theirs in zip(outcome["gradients"], expected["gradients"], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def uneven() -> str:
    tensors = [torch.zeros(3 + dist.get_rank(), 2)] * 3
    try:
        SymileLoss("n_squared", gather=True)(tensors, 1.0)
    except ValueError as error:
        return str(error)
    return "no error"


def test_uneven_batches_are_an_error_on_every_rank(ranks) -> None:
    for message in ranks.run(2, uneven):
        assert "3" in message
        assert "4" in message
        assert "drop_last" in message

"""Gated Symile, GRAM and TRIANGLE on two processes equal one process on the joined batch, gradients included."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from clinical_symile.contrastive.gated_loss import GatedSymileLoss
from clinical_symile.contrastive.gram import GramLoss
from clinical_symile.contrastive.triangle import TriangleLoss

RANKS, ROWS, D = 2, 5, 4
NAMES = ["cxr", "ecg", "labs"]


def make(which: str, gather: bool) -> nn.Module:
    if which.startswith("gated"):
        generator = torch.Generator().manual_seed(1)
        k = 3 if which == "gated, drawn" else None
        return GatedSymileLoss(NAMES, D, k, key_dim=5, generator=generator, gather=gather).double()
    return GramLoss("ecg", gather=gather) if which == "gram" else TriangleLoss(None, gather=gather)


def batch(missing: bool) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor] | None]:
    generator = torch.Generator().manual_seed(0)
    rows = {name: torch.randn(RANKS * ROWS, D, generator=generator, dtype=torch.float64) for name in NAMES}
    if not missing:
        return rows, None
    present = {name: torch.ones(RANKS * ROWS).bool() for name in NAMES}
    present["ecg"][:3] = False  # the ranks have different numbers of positives
    present["labs"][7] = False
    return rows, present


def loss_and_gradients(loss: nn.Module, rows: dict[str, torch.Tensor], present: Any, seed: int) -> dict[str, torch.Tensor]:
    inputs = {name: row.clone().requires_grad_() for name, row in rows.items()}
    scale = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    value = loss(inputs, scale, torch.Generator().manual_seed(seed), present=present)
    value.backward()
    parameters = {name: parameter.grad for name, parameter in loss.named_parameters()}
    return {"value": value.detach(), "scale": scale.grad, **{name: row.grad for name, row in inputs.items()}, **parameters}


def on_a_rank(which: str, missing: bool) -> dict[str, torch.Tensor]:
    """What one rank finds, with the mean over ranks that DistributedDataParallel takes of parameters' gradients."""
    rank = dist.get_rank()
    mine = slice(rank * ROWS, (rank + 1) * ROWS)
    rows, present = batch(missing)
    local = None if present is None else {name: flag[mine] for name, flag in present.items()}
    # Ranks draw from different generators: the first one's draw must count.
    found = loss_and_gradients(make(which, gather=True), {name: row[mine] for name, row in rows.items()}, local, seed=rank)
    for name, gradient in found.items():
        if name not in {"value", *NAMES}:
            dist.all_reduce(gradient)
            gradient /= RANKS
    return found


@pytest.mark.parametrize("which", ["gated", "gated, drawn", "gram", "triangle"])
@pytest.mark.parametrize("missing", [False, True], ids=["complete", "missing"])
def test_two_processes_equal_one(run_ranks, which: str, missing: bool) -> None:
    rows, present = batch(missing)
    expected = loss_and_gradients(make(which, gather=False), rows, present, seed=0)
    for rank, found in enumerate(run_ranks(RANKS, on_a_rank, which, missing)):
        for name, value in expected.items():
            if name in NAMES:  # k times the gradient of the joined batch, which the mean over ranks takes back
                value = RANKS * value[rank * ROWS : (rank + 1) * ROWS]
            torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-13, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("which", ["gated, drawn", "gram", "triangle"])
def test_gather_without_a_process_group_changes_nothing(which: str) -> None:
    rows, present = batch(missing=True)
    ours, plain = (loss_and_gradients(make(which, gather), rows, present, seed=3) for gather in (True, False))
    for name, value in plain.items():
        torch.testing.assert_close(ours[name], value)

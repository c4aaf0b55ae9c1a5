"""The helper itself: order, failures, processes that end or hang."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import pytest
import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Found:
    rank: int
    total: torch.Tensor


def summed(factor: float) -> Found:
    total = torch.tensor(factor * (dist.get_rank() + 1))
    dist.all_reduce(total)
    return Found(dist.get_rank(), total)


def misbehave(how: str) -> int:
    if dist.get_rank() == 1:
        if how == "raises":
            raise ValueError("wrong on purpose")
        if how == "ends":
            os._exit(7)
        time.sleep(60)
    return os.getpid()


def test_results_come_in_rank_order(run_ranks) -> None:
    found = run_ranks(3, summed, 2.0)
    assert [one.rank for one in found] == [0, 1, 2]
    assert [one.total.item() for one in found] == [12.0] * 3


@pytest.mark.parametrize(
    ("how", "error"), [("raises", "ValueError: wrong on purpose"), ("ends", "exit code 7"), ("hangs", "time limit")]
)
def test_a_rank_that_fails_fails_the_test_and_is_replaced(ranks, how: str, error: str) -> None:
    with pytest.raises(AssertionError, match=rf"misbehave failed\n--- rank 1 of 2: {error}"):
        ranks.run(2, misbehave, how, limit=1.0)
    assert len(ranks.run(2, summed, 1.0)) == 2


def test_processes_are_kept(ranks) -> None:
    first = [outcome.value for outcome in ranks.outcomes(1, misbehave, "")]
    assert first == ranks.run(1, misbehave, "")

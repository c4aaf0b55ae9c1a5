"""Gathering across processes: k ranks equal one process on the joined batch; what cannot work is an error on every rank."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from clinical_symile.contrastive import gather, meeting
from clinical_symile.contrastive.gather import gather_batch, mean_over_ranks, same_on_all_ranks

SHORT = timedelta(seconds=1)
ROWS, INPUTS, EMBEDDING = 3, 4, 5


def inputs(k: int, modalities: int = 2, n: int = ROWS) -> list[Tensor]:
    """One tensor (k n, INPUTS) per modality, the same in every process."""
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(k * n, INPUTS, generator=generator, dtype=torch.float64) for _ in range(modalities)]


def mine(tensor: Tensor) -> Tensor:
    """This rank's rows of the joined batch."""
    return tensor.chunk(dist.get_world_size())[dist.get_rank()]


def encoder() -> nn.Linear:
    torch.manual_seed(3)
    return nn.Linear(INPUTS, EMBEDDING).double()


def info_nce(a: Tensor, b: Tensor, anchors: slice) -> Tensor:
    """CLIP's loss of the anchors among all rows of the other modality."""
    labels = torch.arange(len(a))[anchors]
    return (F.cross_entropy(a[anchors] @ b.T, labels) + F.cross_entropy(b[anchors] @ a.T, labels)) / 2


def draw(generator: torch.Generator) -> list[Tensor]:
    rows = [torch.randperm(n, generator=generator) for n in (6, 4)]
    return [rows[0], torch.rand(2, 2, generator=generator), rows[1], rows[0] > 2]


def own_rows(batch: gather.GatheredBatch) -> slice:
    return slice(batch.start, batch.stop)


# What runs on every rank; each of these is called in a process of its own.


def joined_values() -> dict[str, Any]:
    k = dist.get_world_size()
    tensors = inputs(k, modalities=3)
    present = [torch.arange(k * ROWS) % (m + 2) > 0 for m in range(3)]
    batch = gather_batch([mine(tensor) for tensor in tensors], present=[mine(flags) for flags in present])
    return {
        "tensors": all(torch.equal(*pair) for pair in zip(batch.tensors, tensors, strict=True)),
        "present": all(torch.equal(*pair) for pair in zip(batch.present, present, strict=True)),
        "place": (batch.start, batch.stop, batch.rank, batch.ranks),
        "graph": [tensor.requires_grad for tensor in batch.tensors],
    }


def row_gradients() -> list[Tensor]:
    rows = [mine(tensor).requires_grad_() for tensor in inputs(dist.get_world_size())]
    batch = gather_batch(rows)
    info_nce(*batch.tensors, own_rows(batch)).backward()
    return [tensor.grad for tensor in rows]


def ddp_step() -> tuple[Tensor, list[Tensor]]:
    model = DistributedDataParallel(encoder())
    a, b = (model(mine(tensor)) for tensor in inputs(dist.get_world_size()))
    batch = gather_batch([a, b])
    loss = mean_over_ranks(info_nce(*batch.tensors, own_rows(batch)))
    loss.backward()
    return loss.detach(), [parameter.grad for parameter in model.parameters()]


def odd_inputs() -> dict[str, Any]:
    """Tensors that are transposed, of other dtypes, used twice in one graph, or without gradients."""
    k, rank = dist.get_world_size(), dist.get_rank()
    found: dict[str, Any] = {}
    transposed = torch.arange(6.0).reshape(3, 2).T.add(rank)
    found["transposed"] = gather_batch([transposed]).tensors[0]
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        rows = torch.full((2, 3), rank + 1, dtype=dtype, requires_grad=True)
        joined = gather_batch([rows]).tensors[0]
        (joined * joined).sum().backward()
        found[str(dtype)] = joined.detach(), rows.grad
    rows = torch.full((2, 3), float(rank), requires_grad=True)
    twice = gather_batch([rows]).tensors[0] * gather_batch([rows * 2, rows]).tensors[0]
    twice.sum().backward(retain_graph=True)
    once = rows.grad.clone()
    twice.sum().backward()
    found["twice"] = once, rows.grad
    joined = gather_batch([torch.ones(2, 3)]).tensors[0]
    joined += 1  # the result is not part of a buffer that others use
    found["no gradient"] = joined.requires_grad, joined
    with torch.no_grad():
        found["no_grad"] = gather_batch([rows]).tensors[0].requires_grad
    found["ranks"] = k
    return found


def some_ranks_are_frozen() -> tuple[bool, Tensor | None]:
    """Rank 0 has a frozen encoder, and its loss uses one modality only; the others' gradients need its backward all the same."""
    rank = dist.get_rank()
    rows = [torch.full((2, 2), float(rank + 1), requires_grad=rank > 0) for _ in range(2)]
    a, b = gather_batch(rows).tensors
    loss = (a * a).sum() if rank == 0 else (a * b).sum()
    loss.backward()
    return loss.requires_grad, rows[0].grad


def presence_on_one_rank() -> list[Tensor] | None:
    flags = [torch.tensor([True, False])] if dist.get_rank() == 1 else None
    return gather_batch([torch.zeros(2, 2)], present=flags).present


def averaged() -> tuple[Tensor, Tensor, Tensor]:
    local = torch.tensor(float(dist.get_rank() ** 2), requires_grad=True)
    mean = mean_over_ranks(local)
    (3 * mean).backward()
    half = mean_over_ranks(torch.tensor(1 / (1 + dist.get_rank()), dtype=torch.bfloat16))
    return mean.detach(), local.grad, half


def shared_draw() -> list[Tensor]:
    generator = torch.Generator().manual_seed(dist.get_rank())
    return same_on_all_ranks(draw(generator))


def nccl_path() -> tuple[Tensor, Tensor]:
    """gloo knows NCCL's reduce_scatter too, so that branch runs without a GPU."""
    rows = [mine(tensor).requires_grad_() for tensor in inputs(dist.get_world_size())]
    batch = gather_batch(rows)
    loss = info_nce(*batch.tensors, own_rows(batch))
    first = torch.autograd.grad(loss, rows, retain_graph=True)
    original = gather._backends
    gather._backends = lambda group: {"cpu": "nccl"}
    try:
        second = torch.autograd.grad(loss, rows)
    finally:
        gather._backends = original
    return torch.stack(first), torch.stack(second)


def subgroup() -> Any:
    """Ranks 0 and 2 gather without rank 1."""
    group = dist.new_group([0, 2])
    rank = dist.get_rank()
    if rank == 1:
        with pytest.raises(ValueError, match="rank 1 is not in the process group"):
            gather_batch([torch.ones(2, 2)], group)
        return None
    batch = gather_batch([torch.full((2, 2), float(rank))], group)
    with pytest.raises(ValueError, match=r"1 on rank 0; 3 on rank 2"):
        gather_batch([torch.ones(rank + 1, 2)], group)
    (shared,) = same_on_all_ranks([torch.tensor(rank)], group)
    mean = mean_over_ranks(torch.tensor(float(rank)), group)
    if rank == 0:
        assert "rank 2 did not arrive" in text_of(TimeoutError, lambda: same_on_all_ranks([shared], group, timeout=SHORT))
    return batch.tensors[0][:, 0], batch.start, mean, shared


def group_of_one() -> bool:
    rows = torch.ones(2, 2)
    return gather_batch([rows]).tensors[0] is rows and mean_over_ranks(rows) is rows


def kept_keys(calls: int) -> int:
    """How many keys the meetings have left in the store."""
    for _ in range(calls):
        gather_batch([torch.ones(2, 2)])
    dist.barrier()
    meetings = meeting.meetings_of(dist.group.WORLD)
    names = [str(rank) for rank in range(dist.get_world_size())] + ["arrived", "verdict", "read"]
    return sum(meetings.store.check([f"clinical_symile/{number}/{name}"]) for number in range(calls) for name in names)


def disagree(kind: str) -> str:
    """A call that cannot work; returns the error's text after a call that works again."""
    rank = dist.get_rank()
    ones = torch.ones(2, 3, requires_grad=True)
    calls: dict[str, Callable[[], Any]] = {
        "rows": lambda: gather_batch([torch.ones(4 - rank // 2, 3)] * 2),
        "embedding": lambda: gather_batch([torch.ones(4, 3 + rank)]),
        "modalities": lambda: gather_batch([torch.ones(4, 3)] * (2 + rank % 2)),
        "dtype": lambda: gather_batch([ones.double() if rank else ones]),
        "no_grad": lambda: gather_batch([ones]) if rank else torch.no_grad()(gather_batch)([ones]),
        "call": lambda: mean_over_ranks(torch.ones(())) if rank else gather_batch([ones]),
        "shape": lambda: mean_over_ranks(torch.ones(rank + 1)),
        "draw": lambda: same_on_all_ranks([torch.randperm(5 + rank)]),
        "local": lambda: gather_batch([ones, ones if rank != 1 else ones[:1]]),
        "presence": lambda: gather_batch([ones], present=[torch.ones(2 + rank, dtype=torch.bool)]),
        "device": lambda: gather_batch([ones if rank else ones.to("meta")]),
        "empty": lambda: gather_batch([]),
    }
    message = text_of(ValueError, calls[kind])
    gather_batch([ones])
    return message


def backward_in_another_order() -> str:
    rows = torch.ones(2, 2, requires_grad=True)
    first, second = gather_batch([rows]).tensors[0].sum(), gather_batch([rows]).tensors[0].sum()
    return text_of(ValueError, (second if dist.get_rank() else first).backward)


def one_rank_leaves(how: str) -> str:
    rows = torch.ones(2, 2, requires_grad=True)
    gather_batch([rows])
    if dist.get_rank() == 1:
        if how == "ends":
            os._exit(3)
        if how == "fails":
            raise KeyError("a broken file")
        time.sleep(3 * SHORT.total_seconds())  # comes late, and must not go on alone
    message = text_of(TimeoutError, lambda: gather_batch([rows], timeout=SHORT))
    dist.destroy_process_group()
    return message


def one_rank_skips_backward() -> str:
    rows = torch.ones(2, 2, requires_grad=True)
    batch = gather_batch([rows], timeout=SHORT)
    if dist.get_rank() == 0:
        return ""
    return text_of(TimeoutError, batch.tensors[0].sum().backward)


class SlowStore:
    """A store that is read half a second late, as by a busy process."""

    def __init__(self, store: Any) -> None:
        self.store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def get(self, key: str) -> bytes:
        time.sleep(0.5)
        return self.store.get(key)


def store_of_rank_0(folder: str, case: str) -> str:
    """The store lives in rank 0, as with ``init_method="tcp://…"``, and ends with it."""
    rank = dist.get_rank()
    dist.destroy_process_group()
    port = Path(folder) / "port"
    if rank == 0:
        store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        port.with_suffix(".part").write_text(str(store.port))
        port.with_suffix(".part").rename(port)
    else:
        while not port.exists():
            time.sleep(0.01)
        store = dist.TCPStore("127.0.0.1", int(port.read_text()), is_master=False)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    gather_batch([torch.ones(2, 2)])
    if case == "uneven":
        if rank == 1:
            meetings = meeting.meetings_of(dist.group.WORLD)
            meetings.store = SlowStore(meetings.store)
        message = text_of(ValueError, lambda: gather_batch([torch.ones(2 + rank, 2)]))
        if rank == 0:
            os._exit(0)
        return message
    if rank == 0:
        os._exit(0)
    return text_of(ConnectionError, lambda: gather_batch([torch.ones(2, 2)]))


def text_of(error: type[Exception], call: Callable[[], Any]) -> str:
    with pytest.raises(error) as caught:
        call()
    return str(caught.value)


def half_precision_sums(weights: list[float]) -> Tensor:
    """Every rank's loss weighs all rows by its own weight."""
    rows = torch.ones(1, 8, dtype=torch.bfloat16, requires_grad=True)
    (gather_batch([rows]).tensors[0] * weights[dist.get_rank()]).sum().backward()
    return rows.grad


@pytest.mark.parametrize("k", [2, 3])
def test_the_joined_batch_is_in_rank_order(run_ranks, k: int) -> None:
    for rank, found in enumerate(run_ranks(k, joined_values)):
        assert found == {
            "tensors": True,
            "present": True,
            "place": (rank * ROWS, (rank + 1) * ROWS, rank, k),
            "graph": [False] * 3,
        }


@pytest.mark.parametrize("k", [2, 3])
def test_rows_get_the_gradient_of_all_ranks_losses(run_ranks, k: int) -> None:
    joined = [tensor.requires_grad_() for tensor in inputs(k)]
    info_nce(*joined, slice(None)).backward()
    found = run_ranks(k, row_gradients)
    for position, tensor in enumerate(joined):
        gathered = torch.cat([gradients[position] for gradients in found])
        torch.testing.assert_close(gathered, k * tensor.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("k", [2, 3])
def test_ddp_over_k_ranks_is_one_process_on_the_joined_batch(run_ranks, k: int) -> None:
    model = encoder()
    expected = info_nce(*(model(tensor) for tensor in inputs(k)), slice(None))
    expected.backward()
    for loss, gradients in run_ranks(k, ddp_step):
        assert loss.item() == pytest.approx(expected.item(), abs=1e-12)
        for gradient, parameter in zip(gradients, model.parameters(), strict=True):
            torch.testing.assert_close(gradient, parameter.grad, rtol=0, atol=1e-12)


def test_odd_inputs(run_ranks) -> None:
    for rank, found in enumerate(run_ranks(2, odd_inputs)):
        transposed = torch.arange(6.0).reshape(3, 2).T
        assert torch.equal(found["transposed"], torch.cat([transposed, transposed + 1]))
        for dtype in (torch.float64, torch.bfloat16, torch.float16):
            joined, gradient = found[str(dtype)]
            assert joined.dtype == gradient.dtype == dtype
            assert joined[:, 0].tolist() == [1, 1, 2, 2]
            assert torch.equal(gradient, torch.full((2, 3), 4 * (rank + 1), dtype=dtype))
        once, again = found["twice"]
        assert torch.equal(once, torch.full((2, 3), 8.0 * rank))  # two ranks, d(2 x^2) = 4 x
        assert torch.equal(again, 2 * once)
        needs, joined = found["no gradient"]
        assert not needs
        assert torch.equal(joined, torch.full((4, 3), 2.0))
        assert found["no_grad"] is False


def test_half_precision_gradients_add_up_in_float32(run_ranks) -> None:
    # In bfloat16, 256 + 1 = 256.
    for gradient in run_ranks(3, half_precision_sums, [256.0, 1.0, 1.0]):
        assert torch.equal(gradient, torch.full((1, 8), 258, dtype=torch.bfloat16))


def test_backward_does_not_hang_when_a_rank_needs_no_gradient(run_ranks) -> None:
    (needs_0, gradient_0), (needs_1, gradient_1) = run_ranks(2, some_ranks_are_frozen, limit=20)
    assert needs_0
    assert needs_1
    assert gradient_0 is None
    assert torch.equal(gradient_1, torch.full((2, 2), 2 * 2.0 + 2.0))


def test_a_rank_without_presence_misses_nothing(run_ranks) -> None:
    for (flags,) in run_ranks(2, presence_on_one_rank):
        assert flags.tolist() == [True, True, True, False]


def test_mean_over_ranks(run_ranks) -> None:
    for mean, gradient, half in run_ranks(3, averaged):
        assert mean.item() == pytest.approx(5 / 3)
        assert gradient.item() == 3
        assert half.dtype == torch.bfloat16


def test_all_ranks_get_the_first_ones_draw(run_ranks) -> None:
    expected = draw(torch.Generator().manual_seed(0))
    for drawn in run_ranks(3, shared_draw):
        assert all(torch.equal(*pair) for pair in zip(drawn, expected, strict=True))


def test_reduce_scatter_gives_what_all_reduce_gives(run_ranks) -> None:
    for first, second in run_ranks(2, nccl_path):
        torch.testing.assert_close(first, second, rtol=0, atol=1e-14)


def test_subgroup(run_ranks) -> None:
    first, outside, last = run_ranks(3, subgroup)
    assert outside is None
    for place, (joined, start, mean, shared) in enumerate([first, last]):
        assert joined.tolist() == [0, 0, 2, 2]
        assert (start, mean.item(), shared.item()) == (2 * place, 1.0, 0)


def test_the_store_does_not_grow(run_ranks) -> None:
    # Those of the last meeting: two headers, the count and the verdict.
    assert run_ranks(2, kept_keys, 6) == [4, 4]


def test_one_process_is_its_own_batch(run_ranks) -> None:
    a, b = torch.ones(3, 2, requires_grad=True), torch.zeros(3, 2)
    flags = [torch.tensor([True, False, True])] * 2
    batch = gather_batch([a, b], present=flags)
    assert batch.tensors[0] is a
    assert batch.tensors[1] is b
    assert batch.present == flags
    assert (batch.start, batch.stop, batch.rank, batch.ranks) == (0, 3, 0, 1)
    assert gather_batch([a]).present is None
    assert mean_over_ranks(a) is a
    (same,) = same_on_all_ranks([a])
    assert same.data_ptr() == a.data_ptr()
    assert not same.requires_grad
    assert run_ranks(1, group_of_one) == [True]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("rows", "gather_batch: the ranks differ in rows: 4 on ranks 0, 1; 3 on rank 2; give all ranks batches of the same size"),
        ("embedding", "differ in embedding: 3 on rank 0; 4 on rank 1; 5 on rank 2"),
        ("modalities", "differ in modalities: 2 on ranks 0, 2; 3 on rank 1"),
        ("dtype", "differ in dtype: torch.float32 on rank 0; torch.float64 on ranks 1, 2"),
        ("no_grad", "differ in gradients: False on rank 0; True on ranks 1, 2; call it under torch.no_grad on all ranks or"),
        ("call", "the ranks make different calls: gather_batch on rank 0; mean_over_ranks on ranks 1, 2"),
        ("shape", "mean_over_ranks: the ranks differ in shape: (1,) on rank 0; (2,) on rank 1; (3,) on rank 2"),
        ("draw", "same_on_all_ranks: the ranks differ in shapes and dtypes"),
        ("local", "gather_batch failed on rank 1: the tensors must have one shape, dtype and device"),
        ("presence", "gather_batch failed on rank 1: present is [((3,), 'torch.bool', 'cpu')]; expected 1 tensors of shape (2,)"),
        ("device", "gather_batch failed on rank 0: the tensors are on meta, but the process group's backends are 'cpu:gloo"),
        ("empty", "gather_batch failed on rank 0: there is no tensor to gather"),
    ],
)
def test_ranks_that_disagree_all_hear_of_it(ranks, kind: str, message: str) -> None:
    outcomes = ranks.outcomes(3, disagree, kind)
    for outcome in outcomes:
        assert outcome.error is None, outcome.details
        assert message in outcome.value
        assert outcome.value == outcomes[0].value
        assert outcome.seconds < 20


def test_two_gathers_differentiated_in_another_order(run_ranks) -> None:
    for message in run_ranks(2, backward_in_another_order):
        assert message.startswith("the ranks make different calls: backward of gather_batch (meeting 1) on rank 0; backward of")


@pytest.mark.parametrize(("how", "end"), [("ends", "exit code 3"), ("fails", "KeyError: 'a broken file'"), ("sleeps", None)])
def test_a_missing_rank_is_named(ranks, how: str, end: str | None) -> None:
    outcomes = ranks.outcomes(3, one_rank_leaves, how, limit=40)
    assert outcomes[1].error == end, outcomes[1].details
    there = [outcomes[0], outcomes[2]] if end else outcomes
    for outcome in there:
        assert outcome.error is None, outcome.details
        assert outcome.value.startswith("gather_batch: rank 1 did not arrive within 1 s")
    assert outcomes[0].seconds < 20
    # Nothing is left of it in the processes: they form another group.
    assert len(ranks.run(3, averaged)) == 3


def test_a_rank_that_skips_backward_is_named(run_ranks) -> None:
    there, message = run_ranks(2, one_rank_skips_backward, limit=40)
    assert there == ""
    assert message.startswith("backward of gather_batch (meeting 1): rank 0 did not arrive within 1 s")


@pytest.mark.parametrize("case", ["uneven", "gone"])
def test_the_rank_that_holds_the_store_may_end_first(ranks, tmp_path: Path, case: str) -> None:
    holder, other = ranks.outcomes(2, store_of_rank_0, str(tmp_path), case, limit=40)
    assert holder.error == "exit code 0"
    assert other.error is None, other.details
    expected = {
        "uneven": "gather_batch: the ranks differ in rows: 2 on rank 0; 3 on rank 1",
        "gone": "gather_batch: rank 1 cannot reach the store of the process group",
    }
    assert other.value.startswith(expected[case])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gather_batch([]), "there is no tensor to gather"),
        (lambda: gather_batch([torch.ones(3)]), r"tensor 0 has shape \(3,\); expected \(n, d\)"),
        (lambda: gather_batch([torch.ones(3, 2), torch.ones(3, 1)]), "one shape, dtype and device"),
        (lambda: gather_batch([torch.ones(3, 2)], present=[torch.ones(3)]), "present is"),
    ],
)
def test_wrong_input_is_named_in_one_process_too(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()

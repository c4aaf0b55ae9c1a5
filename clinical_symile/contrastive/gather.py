"""The batches of all processes as one batch, with gradients: local anchors, global negatives.

With k ranks and n rows on each, a loss that compares a rank's own n rows (its anchors) with the rows of all ranks is one
k-th of the loss of the joined batch:

                      joined batch, k n rows
                 rank 0      rank 1      rank 2
    anchors of  |--- n ---|           |           |    rank 0 computes L_0 from these n rows of the logits
                |         |--- n ---|             |    rank 1 computes L_1
                |         |           |--- n ---| |    rank 2 computes L_2       L = (L_0 + L_1 + L_2) / 3

Gradients follow DistributedDataParallel, which averages over ranks. The backward of ``gather_batch`` sums over ranks and
divides by nothing: rank r's own rows get ``sum_q dL_q / drows = k dL / drows``, and the mean over ranks of the parameters'
gradients is exactly the gradient of one process with the joined batch. Without gradients through the gathered rows, the
rows would not learn from having served as others' negatives.

Every collective, in backward too, is preceded by a meeting (``meeting``): ranks that differ, or do not come, are an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from clinical_symile.contrastive.meeting import meetings_of

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

TIMEOUT = timedelta(minutes=5)
"""How long the ranks wait for the last one: longer than an honest delay (a checkpoint, a first batch), and shorter than
the 10 minutes (NCCL) or 30 minutes (gloo) after which a process group ends its processes without naming a rank."""

_REMEDIES = {
    "rows": "give all ranks batches of the same size, and leave an incomplete last batch out (drop_last=True)",
    "gradients": "call it under torch.no_grad on all ranks or on none",
}


@dataclass(frozen=True)
class GatheredBatch:
    """The joined batch, and where this rank's rows are in it.

    Attributes:
        tensors: M tensors, each (k n, d), the ranks' rows in rank order; with gradients.
        present: M tensors, each (k n,) bool: which rows have which modality; ``None`` if no rank misses any.
        start: first row of this rank.
        stop: one past its last row.
        rank: this process among the k of the group.
        ranks: k.
    """

    tensors: list[Tensor]
    present: list[Tensor] | None
    start: int
    stop: int
    rank: int
    ranks: int


def gather_batch(
    tensors: Sequence[Tensor],
    group: ProcessGroup | None = None,
    *,
    present: Sequence[Tensor] | None = None,
    timeout: timedelta = TIMEOUT,
) -> GatheredBatch:
    """Joins the batches of all ranks, in rank order, in one collective (two with ``present``).

    Its backward is a collective too: every rank must call backward on a loss that used a gathered tensor. A rank whose own
    tensors need no gradient takes part like the others. Half precision is summed in float32. Differentiable once.

    Args:
        tensors: M tensors of one dtype and device, each (n, d), the same n on all ranks.
        group: the process group; ``None`` for the default one.
        present: M tensors, each (n,) bool, False where a row lacks the modality. Ranks with ``None`` lack nothing.
        timeout: how long to wait for the last rank, in forward and in backward. The collectives that follow a complete
            meeting run under the timeout of the process group.

    Returns:
        The joined batch. Without an initialised process group, or with a group of one rank, the batch itself: the same
        tensors, and no communication.

    Raises:
        ValueError: on all ranks alike: uneven batches, shapes or dtypes that differ, or a device that the group's backend
            does not handle; names the ranks and their sizes.
        TimeoutError: names the ranks that did not arrive in time. In backward too.
        ConnectionError: the process that holds the group's store has ended.

    Example:
        >>> rows = torch.zeros(4, 8)
        >>> batch = gather_batch([rows, rows])  # one process: the batch itself
        >>> batch.start, batch.stop, batch.ranks
        (0, 4, 1)

    Source: local anchors and global negatives as in the losses of open_clip (Ilharco et al. 2021).
    """
    error = _wrong_batch(tensors, present)
    group = _group_of_several(group)
    if group is None:
        if error is not None:
            raise ValueError(error)
        return GatheredBatch(list(tensors), None if present is None else list(present), 0, len(tensors[0]), 0, 1)

    meetings = meetings_of(group)
    # Backward is a collective: all ranks must enter it or none.
    gradients = torch.is_grad_enabled()
    owns = meetings.meet(
        "gather_batch",
        {} if error else _kind(tensors) | {"gradients": gradients},
        own={"needs_gradient": any(tensor.requires_grad for tensor in tensors), "present": present is not None},
        error=error or _wrong_device(tensors[0], group),
        timeout=timeout,
        remedies=_REMEDIES,
    )
    n, rank, ranks = len(tensors[0]), meetings.rank, len(owns)
    with_gradients = gradients and any(own["needs_gradient"] for own in owns)
    # An input that always needs a gradient puts the collective into the graph of a rank whose tensors need none.
    connect = torch.empty(0, requires_grad=with_gradients)
    gathered = _Gather.apply(connect, group, meetings.number, timeout, *tensors)
    flags = None
    if any(own["present"] for own in owns):
        mine = present if present is not None else [tensors[0].new_ones(n, dtype=torch.bool) for _ in tensors]
        joined = _all_gather(torch.stack(list(mine)).to(torch.uint8), group).bool()
        flags = [joined[:, m].reshape(ranks * n) for m in range(len(tensors))]
    return GatheredBatch(list(gathered), flags, rank * n, (rank + 1) * n, rank, ranks)


def mean_over_ranks(local: Tensor, group: ProcessGroup | None = None, *, timeout: timedelta = TIMEOUT) -> Tensor:
    """The mean over ranks in value; the local tensor's in gradient, because DistributedDataParallel averages gradients.

    Args:
        local: tensor of any shape, such as this rank's loss.
        group: the process group; ``None`` for the default one.
        timeout: how long to wait for the last rank.

    Returns:
        A tensor like ``local``, the same on all ranks; ``local`` itself if there is only one.

    Raises:
        ValueError, TimeoutError, ConnectionError: as ``gather_batch``.
    """
    group = _group_of_several(group)
    if group is None:
        return local
    meetings_of(group).meet(
        "mean_over_ranks", {"shape": tuple(local.shape), "dtype": local.dtype}, error=_wrong_device(local, group), timeout=timeout
    )
    mean: Tensor = _Mean.apply(local, group)
    return mean


def same_on_all_ranks(
    tensors: Sequence[Tensor], group: ProcessGroup | None = None, *, timeout: timedelta = TIMEOUT
) -> list[Tensor]:
    """The tensors of the group's first rank, on every rank: for negatives drawn at random, which all ranks must share.

    Args:
        tensors: tensors of any dtype on one device, of the same shapes and dtypes on all ranks.
        group: the process group; ``None`` for the default one.
        timeout: how long to wait for the last rank.

    Returns:
        New tensors, without gradients; the given ones, detached, if there is only one rank.

    Raises:
        ValueError, TimeoutError, ConnectionError: as ``gather_batch``.
    """
    group = _group_of_several(group)
    if group is None or not tensors:
        return [tensor.detach() for tensor in tensors]
    devices = sorted({str(tensor.device) for tensor in tensors})
    error = _wrong_device(tensors[0], group) if len(devices) == 1 else f"the tensors are on {devices}; move them to one device"
    kinds = [(tuple(tensor.shape), tensor.dtype) for tensor in tensors]
    meetings_of(group).meet("same_on_all_ranks", {"shapes and dtypes": kinds}, error=error, timeout=timeout)
    results: dict[int, Tensor] = {}
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        positions = [position for position, tensor in enumerate(tensors) if tensor.dtype == dtype]
        flat = torch.cat([tensors[position].detach().reshape(-1) for position in positions])
        dist.broadcast(flat, group=group, group_src=0)
        parts = flat.split([tensors[position].numel() for position in positions])
        for position, part in zip(positions, parts, strict=True):
            results[position] = part.reshape(tensors[position].shape).clone()
    return [results[position] for position in range(len(tensors))]


class _Gather(torch.autograd.Function):
    """M tensors (n, d) to M joined tensors (k n, d), all in one collective, and back."""

    @staticmethod
    def forward(
        ctx: Any, connect: Tensor, group: ProcessGroup, number: int, timeout: timedelta, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.group, ctx.number, ctx.timeout = group, number, timeout
        joined = _all_gather(torch.stack(tensors), group)  # (k, M, n, d)
        return tuple(torch.cat(joined[:, m].unbind()) for m in range(len(tensors)))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        meetings = meetings_of(ctx.group)
        meetings.meet(f"backward of gather_batch (meeting {ctx.number})", {}, timeout=ctx.timeout)
        ranks, (rows, d) = len(meetings.names), upstream[0].shape
        by_rank = [gradient.reshape(ranks, rows // ranks, d) for gradient in upstream]
        gradients = _sum_own(torch.stack(by_rank, dim=1), ctx.group)  # (M, n, d)
        return None, None, None, None, *gradients.unbind()


class _Mean(torch.autograd.Function):
    """Mean over ranks forward, identity backward."""

    @staticmethod
    def forward(ctx: Any, local: Tensor, group: ProcessGroup) -> Tensor:
        total = _summable(local.detach()).clone()
        dist.all_reduce(total, group=group)
        return (total / dist.get_world_size(group)).to(local.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        return upstream[0], None


def _all_gather(local: Tensor, group: ProcessGroup) -> Tensor:
    """(k, *shape) from every rank's contiguous (*shape)."""
    joined = local.new_empty((dist.get_world_size(group), *local.shape))
    # torch 2.13 renamed it; the old name warns.
    gather = dist.all_gather_single if hasattr(dist, "all_gather_single") else dist.all_gather_into_tensor
    gather(joined.flatten(0, 1), local, group=group)
    return joined


def _sum_own(by_rank: Tensor, group: ProcessGroup) -> Tensor:
    """From every rank's contiguous (k, *shape), the sum over ranks of the entry of this rank, (*shape)."""
    dtype, by_rank = by_rank.dtype, _summable(by_rank)
    if _backends(group)[by_rank.device.type] == "nccl":
        own = torch.empty_like(by_rank[0])
        scatter = dist.reduce_scatter_single if hasattr(dist, "reduce_scatter_single") else dist.reduce_scatter_tensor
        scatter(own, by_rank.flatten(0, 1), group=group)
        return own.to(dtype)
    # gloo reduces to all ranks at best on a GPU, and a copy of the joined batch is small beside the encoders there.
    dist.all_reduce(by_rank, group=group)
    return by_rank[dist.get_rank(group)].to(dtype)


def _summable(tensor: Tensor) -> Tensor:
    """Half precision loses bits in sums over ranks."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _group_of_several(group: ProcessGroup | None) -> ProcessGroup | None:
    """The group with which there is something to exchange, or ``None``."""
    if not (dist.is_available() and dist.is_initialized()):
        return None
    found = dist.group.WORLD if group is None else group
    if dist.get_rank(found) < 0:
        raise ValueError(f"rank {dist.get_rank()} is not in the process group; call it on the ranks of the group only")
    return found if dist.get_world_size(found) > 1 else None


def _kind(tensors: Sequence[Tensor]) -> dict[str, object]:
    """What must be equal on all ranks, under the names that an error message uses."""
    n, d = tensors[0].shape
    return {"modalities": len(tensors), "rows": n, "embedding": d, "dtype": tensors[0].dtype}


def _wrong_batch(tensors: Sequence[Tensor], present: Sequence[Tensor] | None) -> str | None:
    """Why these tensors cannot be stacked; returned, not raised, because the other ranks must hear of it."""
    if not tensors:
        return "there is no tensor to gather; pass one per modality"
    for position, tensor in enumerate(tensors):
        if tensor.dim() != 2:
            return f"tensor {position} has shape {tuple(tensor.shape)}; expected (n, d)"
    kinds = [(tuple(tensor.shape), str(tensor.dtype), str(tensor.device)) for tensor in tensors]
    if len(set(kinds)) > 1:
        return f"the tensors must have one shape, dtype and device, but are {kinds}"
    shapes = [(tuple(flags.shape), flags.dtype, flags.device) for flags in present or []]
    if present is not None and shapes != [((len(tensor),), torch.bool, tensor.device) for tensor in tensors]:
        return (
            f"present is {[(shape, str(dtype), str(device)) for shape, dtype, device in shapes]}; expected {len(tensors)} "
            f"tensors of shape {(len(tensors[0]),)}, torch.bool, on {tensors[0].device}"
        )
    return None


def _wrong_device(tensor: Tensor, group: ProcessGroup) -> str | None:
    """Why the group's backends cannot move this tensor."""
    backends = _backends(group)
    if tensor.device.type in backends:
        return None
    config = dist.get_backend_config(group)
    return (
        f"the tensors are on {tensor.device}, but the process group's backends are {config!r}; move the tensors to "
        f"{' or '.join(backends)}, or give init_process_group a backend for both, such as 'cpu:gloo,cuda:nccl'"
    )


def _backends(group: ProcessGroup) -> dict[str, str]:
    """The backend that serves each type of device: ``{"cpu": "gloo", "cuda": "nccl"}``."""
    pairs = (part.partition(":") for part in dist.get_backend_config(group).split(","))
    return {device: backend for device, _, backend in pairs}

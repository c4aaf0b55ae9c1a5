"""The exact loss over all tuples of negatives, computed in slices.

All M anchors score the same cube ``T[i_1, …, i_M] = MIP(r_1[i_1], …, r_M[i_M])``; they differ only in the axis that the
log-sum-exp keeps. So the cube is visited once, slice by slice over its first M - 2 axes (a "prefix" is one index on each):

    T[p] = (prefix_p * r_{M-1}) r_M^T            prefix_p = prod_{m <= M-2} r_m[i_m],  one matrix product

and every anchor's log-sum-exp is accumulated from the slice. Backward visits the slices again. With ``s`` the scale and
``lse_m`` the log-sum-exp of anchor m, the derivative of ``M N loss`` by a logit is

    G = sum_m exp(s T - lse_m) - M where the tuple is a positive

from which two more matrix products per slice give all gradients: 8 N^M d floating-point operations for M >= 3, 6 N^M d
where forward kept the slice. Memory: the gradients, O(N d), a few slices, O(N^2), and the kept slices, at most a constant.

Several processes split the prefixes among them. Each then needs the log-sum-exp of all, one exchange of M N numbers.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from clinical_symile.contrastive.gather import gather_batch
from clinical_symile.contrastive.mip import product

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

_SAFE_SPAN = 60.0
"""How far apart log-sum-exps may lie for one exponential to serve all: exp(30) on either side of their middle."""


@dataclass(frozen=True)
class Ranks:
    """The processes among which the cube is split.

    Args:
        rank: this process.
        size: how many there are.
        group: their process group; ``None`` for the default one.
    """

    rank: int
    size: int
    group: ProcessGroup | None = None


@dataclass(frozen=True)
class Tiling:
    """How much of the cube is worked on at a time. Changes speed and memory, not the value.

    Args:
        block_elements: how many numbers one working tensor may have.
        columns: how much of the embedding one matrix product takes; few enough that the operands stay in the cache.
        kept_elements: how many numbers of the cube forward leaves for backward, which then need not be computed again.
    """

    block_elements: int
    columns: int
    kept_elements: int

    def __post_init__(self) -> None:
        if self.block_elements < 1 or self.columns < 1 or self.kept_elements < 0:
            raise ValueError(f"{self}; expected positive numbers, and kept_elements of at least 0")

    @classmethod
    def for_device(cls, device: torch.device) -> Tiling:
        """What was measured best on a CPU (working tensors of 10 MB, up to 92 MB kept); large blocks for a GPU."""
        if device.type == "cpu":
            return cls(block_elements=5 << 19, columns=512, kept_elements=22 << 20)
        return cls(block_elements=1 << 26, columns=1 << 14, kept_elements=1 << 28)


def all_tuples_loss(
    representations: Sequence[Tensor],
    logit_scale: Tensor,
    positives: Sequence[Tensor],
    *,
    ranks: Ranks | None = None,
    tiling: Tiling | None = None,
    product_dtype: torch.dtype | None = None,
) -> Tensor:
    """The mean over anchors and positives of the cross-entropy of the positive tuple among all tuples of its anchor's row.

    Args:
        representations: M >= 3 tensors of one dtype, (n_m, d) each; the number of rows may differ.
        logit_scale: scalar of the same dtype, multiplied with the products.
        positives: for each modality the rows (p,) int64, ascending, of the p >= 1 tuples that belong together.
        ranks: the processes that share the work; each must hold the same representations.
        tiling: memory against speed; ``None`` chooses by the device.
        product_dtype: ``torch.bfloat16`` or ``torch.float16`` rounds the operands of the matrix products to it and adds up
            in float32, which a GPU does several times faster. ``None`` keeps the dtype of the representations.

    Returns:
        Scalar loss, with gradients (first order) for every representation and the scale. With several processes it is the
        same on each, and the sum over processes of the gradients is their number times the gradient.
    """
    settings = (tiling or Tiling.for_device(representations[0].device), ranks, product_dtype)
    loss: Tensor = _AllTuples.apply(settings, tuple(positives), logit_scale, *representations)
    return loss


class _AllTuples(torch.autograd.Function):
    """Streams over the cube of logits; see the module's text for the symbols."""

    @staticmethod
    def forward(ctx: Any, settings: Any, positives: tuple[Tensor, ...], logit_scale: Tensor, *representations: Tensor) -> Tensor:
        tiling, ranks, product_dtype = settings
        cube = _Cube(representations, logit_scale, positives, tiling, ranks, product_dtype)
        anchors, like = len(representations), representations[0]
        per_prefix = like.new_full((math.prod(cube.prefix_sizes),), -torch.inf)
        middle_lse = like.new_full((len(representations[-2]),), -torch.inf)
        last_lse = like.new_full((len(representations[-1]),), -torch.inf)
        positive_logits = like.new_full(positives[0].shape, -torch.inf)
        kept = cube.space_to_keep(tiling.kept_elements if any(ctx.needs_input_grad) else 0)
        for block in cube.blocks():
            logits = cube.logits(block, kept)
            # One log-sum-exp per row serves the anchors of the prefix and the one of the middle axis.
            rows, columns = _log_sum_exps(logits, cube.buffer("exponentials", *logits.shape))
            per_prefix[block.start : block.stop] = rows.logsumexp(dim=1)
            middle_lse = torch.logaddexp(middle_lse, rows.logsumexp(dim=0))
            last_lse = torch.logaddexp(last_lse, columns)
            among, where = cube.positives_of(block)
            positive_logits[among] = logits[where]
        partial = [*_per_axis(per_prefix, cube.prefix_sizes), middle_lse, last_lse, positive_logits]
        if ranks is not None:
            joined = gather_batch([torch.cat(partial)[:, None]], ranks.group).tensors[0].view(ranks.size, -1).logsumexp(dim=0)
            partial = list(joined.split([len(part) for part in partial]))
        *lse, positive_logits = partial

        ctx.cube_settings = (tiling, ranks, product_dtype)
        ctx.save_for_backward(kept, logit_scale, *representations, *positives, *lse)
        anchor_lse = torch.stack([values[index] for values, index in zip(lse, positives, strict=True)])
        return (anchor_lse - positive_logits).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        kept, logit_scale, *rest = ctx.saved_tensors
        anchors = len(rest) // 3
        representations, positives, lse = (rest[k * anchors : (k + 1) * anchors] for k in range(3))
        tiling, ranks, product_dtype = ctx.cube_settings
        cube = _Cube(representations, logit_scale, positives, tiling, ranks, product_dtype)
        weights = _Weights(lse, positives)
        gradients = [torch.zeros_like(representation) for representation in representations]
        for block in cube.blocks():
            logits = cube.buffer("logits", len(block), *kept.shape[1:])
            if block.stop - cube.share.start <= len(kept):
                # A copy, because backward may be called again with retain_graph.
                logits.copy_(cube.kept_slices(kept, block))
            else:
                cube.logits(block)  # into the buffer
            g = weights.apply_(logits, cube.digits(block))
            g[cube.positives_of(block)[1]] -= anchors
            cube.add_gradients(g, block, gradients)
        # What add_gradients gives the first modality is the gradient of s r_1.
        factor = upstream[0] * (1 if ranks is None else ranks.size) / (anchors * len(positives[0]))
        scale_gradient = torch.vdot(gradients[0].flatten(), representations[0].flatten()) * factor
        gradients[0] *= logit_scale
        return None, None, scale_gradient, *(gradient.mul_(factor) for gradient in gradients)


class _Cube:
    """This process's share of the cube ``s T``: which blocks it has, their logits, and what their gradients add up to."""

    def __init__(
        self,
        representations: Sequence[Tensor],
        logit_scale: Tensor,
        positives: Sequence[Tensor],
        tiling: Tiling,
        ranks: Ranks | None,
        product_dtype: torch.dtype | None,
    ) -> None:
        first, *others = representations
        *inner, self.middle, self.last = others
        self.prefixes = [first * logit_scale, *inner]
        self.prefix_sizes = [len(prefix) for prefix in self.prefixes]
        self.product_dtype = product_dtype
        rank, size = (0, 1) if ranks is None else (ranks.rank, ranks.size)
        total = math.prod(self.prefix_sizes)
        self.share = range(total * rank // size, total * (rank + 1) // size)
        d = self.last.shape[1]
        self.chunks = [slice(start, min(start + tiling.columns, d)) for start in range(0, d, tiling.columns)]
        slice_elements = len(self.middle) * max(len(self.last), min(d, tiling.columns))
        self.block_size = max(1, tiling.block_elements // slice_elements)
        self._buffers: dict[str, Tensor] = {}
        flat = torch.zeros_like(positives[0])
        for index, length in zip(positives, self.prefix_sizes, strict=False):
            flat = flat * length + index
        self.positives = positives
        self.positive_prefixes = flat.tolist()

    def blocks(self) -> Iterator[range]:
        """Ranges of flat prefix indices (row-major over the first M - 2 axes)."""
        for start in range(self.share.start, self.share.stop, self.block_size):
            yield range(start, min(start + self.block_size, self.share.stop))

    def digits(self, block: range) -> list[Tensor]:
        """The row index on each prefix axis, (block,) per axis, of every flat prefix index of the block."""
        flat = torch.arange(block.start, block.stop, device=self.last.device)
        digits = []
        for length in reversed(self.prefix_sizes):
            digits.append(flat % length)
            flat = flat // length
        return digits[::-1]

    def prefix(self, digits: Sequence[Tensor]) -> Tensor:
        """The products of the prefix modalities' rows, (block, d), times the scale."""
        return product([rows[index] for rows, index in zip(self.prefixes, digits, strict=True)])

    def positives_of(self, block: range) -> tuple[slice, tuple[Tensor, Tensor, Tensor]]:
        """Which of the positives lie in the block, and where in it."""
        among = slice(bisect_left(self.positive_prefixes, block.start), bisect_left(self.positive_prefixes, block.stop))
        middle, last = (self.positives[k][among] for k in (-2, -1))
        flat = torch.tensor(self.positive_prefixes[among], dtype=torch.int64, device=middle.device)
        return among, (flat - block.start, middle, last)

    def buffer(self, name: str, *shape: int) -> Tensor:
        """Space of this shape that is used again in the next block: fresh memory costs more than what is done with it."""
        size = math.prod(shape)
        if name not in self._buffers or self._buffers[name].numel() < size:
            self._buffers[name] = self.last.new_empty(size)
        return self._buffers[name][:size].view(shape)

    def space_to_keep(self, elements: int) -> Tensor:
        """Space for as many whole blocks, from the first on, as have room in that many numbers, (kept, n_middle, n_last)."""
        slice_elements = len(self.middle) * len(self.last)
        kept = min(len(self.share), elements // slice_elements)
        if kept < len(self.share):
            kept -= kept % self.block_size
        return self.last.new_empty(kept, len(self.middle), len(self.last))

    def kept_slices(self, kept: Tensor, block: range) -> Tensor:
        """Where the block's logits are among the kept ones."""
        return kept[block.start - self.share.start : block.stop - self.share.start]

    def logits(self, block: range, kept: Tensor | None = None) -> Tensor:
        """``s T`` of the block, (block, n_middle, n_last): among the kept ones if there is room, else in a buffer."""
        if kept is not None and block.stop - self.share.start <= len(kept):
            logits = self.kept_slices(kept, block)
        else:
            logits = self.buffer("logits", len(block), len(self.middle), len(self.last))
        prefix, total = self.prefix(self.digits(block)), logits.flatten(0, 1)
        for number, chunk in enumerate(self.chunks):
            self._product(self._outer(prefix, chunk), self.last[:, chunk].T, total, add=number > 0)
        return logits

    def add_gradients(self, g: Tensor, block: range, gradients: Sequence[Tensor]) -> None:
        """Adds what the block's derivatives ``g`` (block, n_middle, n_last) by its logits mean for each modality."""
        digits = self.digits(block)
        prefix = self.prefix(digits)
        flat = g.view(-1, len(self.last))
        *prefix_gradients, middle_gradient, last_gradient = gradients
        by_prefix = torch.empty_like(prefix)
        for chunk in self.chunks:
            outer = self._outer(prefix, chunk)
            self._product(flat.T, outer, last_gradient[:, chunk], add=True)
            through = self.buffer("through", *outer.shape)
            self._product(flat, self.last[:, chunk], through)
            through = through.view(len(block), len(self.middle), -1)
            by_prefix[:, chunk] = torch.mul(through, self.middle[:, chunk], out=outer.view_as(through)).sum(dim=1)
            middle_gradient[:, chunk] += through.mul_(prefix[:, None, chunk]).sum(dim=0)
        for m, digit in enumerate(digits):
            others = [rows[index] for k, (rows, index) in enumerate(zip(self.prefixes, digits, strict=True)) if k != m]
            prefix_gradients[m].index_add_(0, digit, product([by_prefix, *others]))

    def _outer(self, prefix: Tensor, chunk: slice) -> Tensor:
        """Every prefix times every row of the middle modality, (block * n_middle, columns)."""
        space = self.buffer("outer", len(prefix), len(self.middle), chunk.stop - chunk.start)
        return torch.mul(prefix[:, None, chunk], self.middle[:, chunk], out=space).flatten(0, 1)

    def _product(self, left: Tensor, right: Tensor, total: Tensor, *, add: bool = False) -> None:
        """``total = left @ right``, or adds it; operands in the dtype of the products, added up in that of ``total``."""
        if self.product_dtype is None:
            total.addmm_(left, right, beta=int(add))
            return
        left, right = left.to(self.product_dtype), right.to(self.product_dtype)
        if left.is_cuda:
            found = torch.mm(left, right, out_dtype=total.dtype)
        else:  # CPUs lack the mixed product; rounding the operands first gives the same numbers
            found = left.to(total.dtype) @ right.to(total.dtype)
        total.copy_(total + found if add else found)


def _log_sum_exps(logits: Tensor, space: Tensor) -> tuple[Tensor, Tensor]:
    """The log-sum-exp over the last axis, (block, n_middle), and over the first two, (n_last,); ``space`` is like ``logits``.

    One exponential per logit is enough while the largest of every row and column is near the largest of all.
    """
    largest = logits.max()
    exponentials = torch.sub(logits, largest, out=space).exp_()
    rows, columns = exponentials.sum(dim=2), exponentials.sum(dim=(0, 1))
    if bool(torch.minimum(rows.min(), columns.min()) > math.exp(-_SAFE_SPAN)):
        return rows.log_().add_(largest), columns.log_().add_(largest)
    return logits.logsumexp(dim=2), logits.logsumexp(dim=(0, 1))


class _Weights:
    """``sum_m exp(logit - lse_m)``, the softmaxes of all anchors added up.

    One exponential per logit is enough while the log-sum-exps lie close together: with ``c`` in their middle,
    ``sum_m exp(x - lse_m) = exp(x - c) sum_m exp(c - lse_m)``. Farther apart, a factor could leave the range of float32.
    """

    def __init__(self, lse: Sequence[Tensor], positives: Sequence[Tensor]) -> None:
        # Rows that belong to no positive are not anchors: their softmax counts 0.
        self.lse = [torch.full_like(values, torch.inf) for values in lse]
        for all_rows, values, index in zip(self.lse, lse, positives, strict=True):
            all_rows[index] = values[index]
        anchors = torch.cat([values[index] for values, index in zip(lse, positives, strict=True)])
        low, high = anchors.aminmax()
        self.close = bool(high - low < _SAFE_SPAN)
        self.center = (low + high) / 2
        if self.close:
            *self.by_prefix, by_middle, by_last = ((self.center - values).exp() for values in self.lse)
            self.by_slice = by_middle[:, None] + by_last

    def apply_(self, logits: Tensor, digits: Sequence[Tensor]) -> Tensor:
        """Overwrites the logits of a block, (block, n_middle, n_last), with their weights."""
        if self.close:
            by_prefix = torch.stack([values[index] for values, index in zip(self.by_prefix, digits, strict=True)]).sum(dim=0)
            # No log-sum-exp limits tuples without any anchor row: their weight is 0, and must not become 0 times infinity.
            shares = logits.sub_(self.center).clamp_(max=_SAFE_SPAN).exp_()
            return shares.mul_(self.by_slice + by_prefix[:, None, None])
        *prefix_lse, middle_lse, last_lse = self.lse
        negated = torch.stack([-values[index] for values, index in zip(prefix_lse, digits, strict=True)]).logsumexp(dim=0)
        weights = (logits - middle_lse[:, None]).exp_()
        weights += (logits - last_lse).exp_()
        return weights.add_(logits.add_(negated[:, None, None]).exp_())


def _per_axis(flat: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """The log-sum-exp of each prefix anchor, (n_m,), from the one of each prefix."""
    grid = flat.view(*sizes)
    return [grid.movedim(axis, 0).reshape(length, -1).logsumexp(dim=1) for axis, length in enumerate(sizes)]

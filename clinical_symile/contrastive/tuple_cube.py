"""The cube of the products of all tuples, block by block; ``all_tuples`` says what it is for and explains the symbols."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clinical_symile.contrastive.mip import product

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

Rows = Tensor | slice
"""Rows of a modality, (block,) int64, or a slice where they follow each other."""


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
        """What was measured best on a CPU (working tensors of 5 MB, up to 92 MB kept); large blocks for a GPU."""
        if device.type == "cpu":
            return cls(block_elements=5 << 18, columns=512, kept_elements=22 << 20)
        return cls(block_elements=1 << 26, columns=1 << 14, kept_elements=1 << 28)


class TupleCube:
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

    def rows_of(self, block: range) -> list[Rows]:
        """Which row of each prefix modality every flat prefix index of the block stands for."""
        if len(self.prefixes) == 1:
            return [slice(block.start, block.stop)]
        flat = torch.arange(block.start, block.stop, device=self.last.device)
        rows: list[Rows] = []
        for length in reversed(self.prefix_sizes):
            rows.append(flat % length)
            flat = flat // length
        return rows[::-1]

    def prefix(self, rows: Sequence[Rows]) -> Tensor:
        """The products of the prefix modalities' rows, (block, d), times the scale."""
        return product([tensor[index] for tensor, index in zip(self.prefixes, rows, strict=True)])

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
        prefix, total = self.prefix(self.rows_of(block)), logits.flatten(0, 1)
        for number, chunk in enumerate(self.chunks):
            self._product(self._outer(prefix, chunk), self.last[:, chunk].T, total, add=number > 0)
        return logits

    def add_gradients(self, g: Tensor, block: range, gradients: Sequence[Tensor]) -> None:
        """Adds what the block's derivatives ``g`` (block, n_middle, n_last) by its logits mean for each modality."""
        rows = self.rows_of(block)
        prefix = self.prefix(rows)
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
        for m, (gradient, own) in enumerate(zip(prefix_gradients, rows, strict=True)):
            if isinstance(own, slice):
                gradient[own] += by_prefix
            else:  # a row stands in many prefixes
                others = [tensor[index] for k, (tensor, index) in enumerate(zip(self.prefixes, rows, strict=True)) if k != m]
                gradient.index_add_(0, own, product([by_prefix, *others]))

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
        # CPUs lack the mixed product; rounding the operands first gives the same numbers.
        mixed = left.is_cuda
        found = torch.mm(left, right, out_dtype=total.dtype) if mixed else left.to(total.dtype) @ right.to(total.dtype)
        total.copy_(total + found if add else found)

"""The exact loss over all N^(M-1) tuples of negatives, computed in slices.

All M anchors score the same cube ``T[i_1, …, i_M] = MIP(r_1[i_1], …, r_M[i_M])``; they differ only in the axis that the
log-sum-exp keeps. So the cube is visited once, slice by slice over its first M - 2 axes:

    T[p] = (prefix_p * r_{M-1}) r_M^T            prefix_p = prod_{m <= M-2} r_m[i_m],  an (N, N) matrix product

and every anchor's log-sum-exp is accumulated from the slice. Backward visits the slices again. With ``s`` the scale and
``lse_m`` the log-sum-exp of anchor m, the derivative of ``M N loss`` by a logit is

    G = sum_m exp(s T - lse_m) - M on the main diagonal

from which two more matrix products per slice give all gradients. Memory: O(N d) and one block of slices; the N^M cube
itself is kept for backward only when it is a single block. About 8 N^M d floating-point operations for M >= 3.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from clinical_symile.contrastive.mip import product

BLOCK_ELEMENTS = 1 << 22
"""Numbers per working tensor: 16 MB of float32."""


def all_tuples_loss(representations: list[Tensor], logit_scale: Tensor, *, block_elements: int = BLOCK_ELEMENTS) -> Tensor:
    """The mean over anchors and rows of the cross-entropy of the positive tuple among all N^(M-1).

    Args:
        representations: M >= 2 tensors of one dtype, each (n, d).
        logit_scale: scalar of the same dtype, exponentiated.
        block_elements: how many numbers one working tensor may have; changes speed and memory, not the value.

    Returns:
        Scalar loss, with gradients (first order) for every representation and the scale.
    """
    loss: Tensor = _AllTuples.apply(logit_scale, block_elements, *representations)
    return loss


class _AllTuples(torch.autograd.Function):
    """Streams over the cube of products; see the module's text for the symbols."""

    @staticmethod
    def forward(ctx: Any, logit_scale: Tensor, block_elements: int, *representations: Tensor) -> Tensor:
        n, d = representations[0].shape
        anchors = len(representations)
        per_prefix: list[Tensor] = []
        middle_lse = last_lse = representations[0].new_full((n,), -torch.inf)
        blocks = list(_blocks(n, d, anchors, block_elements))
        cube = torch.empty(0)
        for block in blocks:
            cube = _products(representations, block)
            logits = cube * logit_scale
            # One log-sum-exp per row serves the anchors of the prefix and the one of the middle axis.
            rows = logits.logsumexp(dim=2)
            per_prefix.append(rows.logsumexp(dim=1))
            middle_lse = torch.logaddexp(middle_lse, rows.logsumexp(dim=0))
            last_lse = torch.logaddexp(last_lse, logits.logsumexp(dim=(0, 1)))
        lse = [*_per_axis(torch.cat(per_prefix), n, anchors - 2), middle_lse, last_lse]

        ctx.block_elements = block_elements
        ctx.save_for_backward(logit_scale, cube if len(blocks) == 1 else None, *lse, *representations)
        positives = logit_scale * product(representations).sum(dim=1)
        return (torch.stack(lse) - positives).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        logit_scale, cube, *rest = ctx.saved_tensors
        anchors = len(rest) // 2
        lse, representations = rest[:anchors], rest[anchors:]
        *prefixes, middle, last = representations
        n, d = last.shape
        gradients = [torch.zeros_like(representation) for representation in representations]
        scale_gradient = torch.zeros_like(logit_scale)
        for block in _blocks(n, d, anchors, ctx.block_elements):
            products = _products(representations, block) if cube is None else cube
            digits = _digits(block, n, anchors - 2, last.device)
            g = _logit_gradients(products, logit_scale, lse, digits, block)
            scale_gradient += torch.vdot(g.flatten(), products.flatten())

            prefix = _prefix(prefixes, digits, last, len(block))
            through_last = g @ last  # (block, n, d)
            last_inputs = (prefix[:, None] * middle).reshape(-1, d)
            gradients[-1].addmm_(g.reshape(-1, n).T, last_inputs)
            gradients[-2] += (through_last * prefix[:, None]).sum(dim=0)
            prefix_gradient = (through_last * middle).sum(dim=1)  # (block, d)
            for m, digit in enumerate(digits):
                others = [r[index] for k, (r, index) in enumerate(zip(prefixes, digits, strict=True)) if k != m]
                gradients[m].index_add_(0, digit, product([prefix_gradient, *others]))
        factor = upstream[0] / (n * anchors)
        return scale_gradient * factor, None, *(gradient.mul_(factor * logit_scale) for gradient in gradients)


def _blocks(n: int, d: int, anchors: int, block_elements: int) -> Iterator[range]:
    """Ranges of flat prefix indices (row-major over the first M - 2 axes), each small enough for the budget."""
    prefixes = n ** (anchors - 2)
    size = max(1, min(prefixes, block_elements // (n * max(n, d))))
    for start in range(0, prefixes, size):
        yield range(start, min(start + size, prefixes))


def _digits(block: range, n: int, axes: int, device: torch.device) -> list[Tensor]:
    """The row index on each prefix axis, (block,) per axis, of every flat prefix index of the block."""
    flat = torch.arange(block.start, block.stop, device=device)
    return [flat // n ** (axes - 1 - axis) % n for axis in range(axes)]


def _prefix(prefixes: list[Tensor], digits: list[Tensor], like: Tensor, size: int) -> Tensor:
    """The product of the prefix modalities' rows, (block, d); ones for M = 2, which has an empty prefix."""
    if not prefixes:
        return like.new_ones(size, like.shape[1])
    return product([r[index] for r, index in zip(prefixes, digits, strict=True)])


def _products(representations: tuple[Tensor, ...] | list[Tensor], block: range) -> Tensor:
    """The block of the cube, (block, n, n)."""
    *prefixes, middle, last = representations
    n, d = last.shape
    prefix = _prefix(prefixes, _digits(block, n, len(prefixes), last.device), last, len(block))
    return ((prefix[:, None] * middle).reshape(-1, d) @ last.T).view(len(block), n, n)


def _logit_gradients(products: Tensor, logit_scale: Tensor, lse: list[Tensor], digits: list[Tensor], block: range) -> Tensor:
    """G of the module's text for one block, (block, n, n)."""
    *prefix_lse, middle_lse, last_lse = lse
    logits = products * logit_scale
    g = (logits - middle_lse[:, None]).exp_()
    g += (logits - last_lse).exp_()
    if prefix_lse:
        # sum_m exp(x - lse_m) = exp(x + logsumexp_m(-lse_m)): one exponential for all anchors of the prefix.
        negated = torch.stack([-values[index] for values, index in zip(prefix_lse, digits, strict=True)])
        g += logits.add_(negated.logsumexp(dim=0)[:, None, None]).exp_()
    n, anchors = g.shape[-1], len(lse)
    # Flat index of the prefix (i, …, i) is i (1 + n + n^2 + …); for M = 2 the empty prefix holds the whole diagonal.
    if not digits:
        g[0].diagonal().sub_(anchors)
        return g
    step = sum(n**axis for axis in range(len(digits)))
    rows = [i for i in range(n) if i * step in block]
    g[[i * step - block.start for i in rows], rows, rows] -= anchors
    return g


def _per_axis(flat: Tensor, n: int, axes: int) -> list[Tensor]:
    """The log-sum-exp of each prefix anchor, (n,), from the one of each prefix tuple."""
    if axes == 0:
        return []
    grid = flat.view((n,) * axes)
    return [grid.movedim(axis, 0).reshape(n, -1).logsumexp(dim=1) for axis in range(axes)]

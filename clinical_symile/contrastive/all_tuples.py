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
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from clinical_symile.contrastive.gather import gather_batch
from clinical_symile.contrastive.tuple_cube import Ranks, Rows, Tiling, TupleCube

_SAFE_SPAN = 60.0
"""How far apart log-sum-exps may lie for one exponential to serve all: exp(30) on either side of their middle."""


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
        cube = TupleCube(representations, logit_scale, positives, tiling, ranks, product_dtype)
        like = representations[0]
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
        cube = TupleCube(representations, logit_scale, positives, tiling, ranks, product_dtype)
        weights = _Weights(lse, positives)
        gradients = [torch.zeros_like(representation) for representation in representations]
        for block in cube.blocks():
            logits = cube.buffer("logits", len(block), *kept.shape[1:])
            if block.stop - cube.share.start <= len(kept):
                # A copy, because backward may be called again with retain_graph.
                logits.copy_(cube.kept_slices(kept, block))
            else:
                cube.logits(block)  # into the buffer
            g = weights.apply_(logits, cube.rows_of(block))
            g[cube.positives_of(block)[1]] -= anchors
            cube.add_gradients(g, block, gradients)
        # What add_gradients gives the first modality is the gradient of s r_1.
        factor = upstream[0] * (1 if ranks is None else ranks.size) / (anchors * len(positives[0]))
        scale_gradient = torch.vdot(gradients[0].flatten(), representations[0].flatten()) * factor
        gradients[0] *= logit_scale
        return None, None, scale_gradient, *(gradient.mul_(factor) for gradient in gradients)


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

    def apply_(self, logits: Tensor, rows: Sequence[Rows]) -> Tensor:
        """Overwrites the logits of a block, (block, n_middle, n_last), with their weights."""
        if self.close:
            by_prefix = torch.stack([values[index] for values, index in zip(self.by_prefix, rows, strict=True)]).sum(dim=0)
            # No log-sum-exp limits tuples without any anchor row: their weight is 0, and must not become 0 times infinity.
            shares = logits.sub_(self.center).clamp_(max=_SAFE_SPAN).exp_()
            return shares.mul_(self.by_slice + by_prefix[:, None, None])
        *prefix_lse, middle_lse, last_lse = self.lse
        negated = torch.stack([-values[index] for values, index in zip(prefix_lse, rows, strict=True)]).logsumexp(dim=0)
        weights = (logits - middle_lse[:, None]).exp_()
        weights += (logits - last_lse).exp_()
        return weights.add_(logits.add_(negated[:, None, None]).exp_())


def _per_axis(flat: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """The log-sum-exp of each prefix anchor, (n_m,), from the one of each prefix."""
    grid = flat.view(*sizes)
    return [grid.movedim(axis, 0).reshape(length, -1).logsumexp(dim=1) for axis, length in enumerate(sizes)]

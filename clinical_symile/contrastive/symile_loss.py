"""The Symile loss: a function, and a thin module around it that replaces ``symile.Symile`` of PyPI."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor, nn

from clinical_symile.contrastive.all_tuples import all_tuples_loss
from clinical_symile.contrastive.clip_loss import pairwise_losses
from clinical_symile.contrastive.gather import same_on_all_ranks
from clinical_symile.contrastive.loss_batch import LossBatch, loss_batch
from clinical_symile.contrastive.representations import Presence, Representations
from clinical_symile.contrastive.sampled_tuples import draw_negatives, draw_present_negatives, sampled_tuples_losses
from clinical_symile.contrastive.tuple_cube import Ranks, Tiling

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

NegativeSampling = Literal["n", "n_squared"]


def symile_loss(
    representations: Representations,
    logit_scale: Tensor | float,
    negative_sampling: NegativeSampling = "n",
    *,
    generator: torch.Generator | None = None,
    present: Presence | None = None,
    compatible: bool = False,
    gather: bool = False,
    process_group: ProcessGroup | None = None,
    tiling: Tiling | None = None,
    product_dtype: torch.dtype | None = None,
) -> Tensor:
    """The mean over anchors of the cross-entropy that picks the positive tuple among negatives.

    For anchor modality a, row i and the set J_i of non-anchor tuples that are compared (the positive one included),

        loss = - 1/(M N) sum_a sum_i log( exp(s MIP(a_i, positive_i)) / sum_{j in J_i} exp(s MIP(a_i, others_j)) )

    Nothing is normalised here: whether representations are unit vectors or LayerNorm outputs is the model's business.

    *Missing modalities.* With ``present``, tuples count only where they are defined: the rows that have all modalities are
    the positives and the anchors; the rows that lack some serve as negatives with those they have. What stands in an absent
    row never matters. A batch without a complete row costs 0.

    *Several processes.* With ``gather`` each process passes its own rows, as many as the others. The loss is that of the
    joined batch on every process, and the gradients are such that their mean over processes, which is what
    DistributedDataParallel takes, is the gradient of one process with the joined batch. The work is split.

    Args:
        representations: M >= 2 tensors, each (n, d), in a sequence or a mapping.
        logit_scale: the scale s itself, not its logarithm.
        negative_sampling: ``"n"``: N - 1 negatives per row, drawn by ``draw_negatives``; ``"n_squared"``: all
            N^(M-1) - 1 of them, exact, for any M.
        generator: for ``"n"``; ``None`` uses torch's default generator, as ``torch.randperm`` does. Among several processes
            the first one's counts.
        present: which rows have which modality: (n,) bool each, in a sequence or under the keys of the representations.
        compatible: for ``"n"``: draw as the authors' package does (the same permutations from the same state of the
            generator), which can make a row's own positive one of its negatives.
        gather: take the negatives from the batches of all processes.
        process_group: of these processes; ``None`` for the default one.
        tiling: for ``"n_squared"``; memory against speed.
        product_dtype: for ``"n_squared"`` and M >= 3: half precision for the operands of matrix products; see
            ``all_tuples_loss``.

    Returns:
        Scalar, float32 or float64.

    Raises:
        ValueError: an unknown ``negative_sampling``, a batch of fewer than 2 rows, tensors that do not fit together,
            ``compatible`` together with ``present``, or processes with batches of different sizes.
        TimeoutError: a process did not come; names it.

    Source: Saporta et al. 2024, https://arxiv.org/abs/2411.01053, section 3.
    """
    if negative_sampling not in get_args(NegativeSampling):
        raise ValueError(f"negative_sampling={negative_sampling!r}; choose 'n' or 'n_squared'")
    if compatible and present is not None:
        raise ValueError("compatible=True draws as the authors' package, which knows no missing modalities; leave present out")
    _check_product_dtype(product_dtype)
    with loss_batch(representations, logit_scale, present, gather=gather, process_group=process_group) as batch:
        modalities = len(batch.tensors)
        if modalities == 2 and (negative_sampling == "n_squared" or not compatible):
            # All pairs: CLIP's loss, whose cost is that of one slice of the cube.
            return pairwise_losses(batch)[0]
        rows = batch.rows_with()
        if len(rows) == 0:
            return batch.nothing()
        if negative_sampling == "n_squared":
            return _all_tuples(batch, rows, tiling, product_dtype)
        anchors = batch.anchors_among(rows)
        negatives = _draw(batch, rows, compatible, generator)
        exclude = batch.present is not None
        losses = sampled_tuples_losses(
            batch.tensors, batch.logit_scale, negatives, positives=rows if exclude else None, anchors=anchors, exclude_own=exclude
        )
        return batch.mean_of(losses.sum(), len(rows) * modalities)


def _all_tuples(batch: LossBatch, rows: Tensor, tiling: Tiling | None, product_dtype: torch.dtype | None) -> Tensor:
    """The loss over all tuples of rows that have the modality."""
    tensors, positives = batch.tensors, [rows] * len(batch.tensors)
    if batch.present is not None:
        tensors = [tensor[flag] for tensor, flag in zip(tensors, batch.present, strict=True)]
        positives = [flag.cumsum(0)[rows] - 1 for flag in batch.present]
    ranks = None if batch.ranks == 1 else Ranks(batch.rank, batch.ranks, batch.group)
    return all_tuples_loss(tensors, batch.logit_scale, positives, ranks=ranks, tiling=tiling, product_dtype=product_dtype)


def _draw(batch: LossBatch, rows: Tensor, compatible: bool, generator: torch.Generator | None) -> list[list[Tensor]]:
    """The negatives of each anchor modality, the same on all processes."""
    modalities, n = len(batch.tensors), len(batch.tensors[0])
    negatives: list[list[Tensor]] = []
    for position in range(modalities):
        if batch.present is not None:
            others = [flag for other, flag in enumerate(batch.present) if other != position]
            negatives.append(draw_present_negatives(others, len(rows), generator))
        elif compatible:
            negatives.append([torch.randperm(n, generator=generator) for _ in range(modalities - 1)])
        else:
            negatives.append(draw_negatives(n, modalities - 1, generator))
    if batch.ranks > 1:
        flat = same_on_all_ranks([torch.stack([torch.stack(drawn) for drawn in negatives]).to(rows.device)], batch.group)[0]
        negatives = [list(drawn) for drawn in flat]
    return negatives


def _check_product_dtype(dtype: torch.dtype | None) -> None:
    if dtype not in (None, torch.bfloat16, torch.float16):
        raise ValueError(f"product_dtype={dtype}; choose torch.bfloat16, torch.float16 or None")


def tuples_per_row(n: int, modalities: int, negative_sampling: NegativeSampling) -> int:
    """How many tuples each row compares, the positive included: the number whose logarithm bounds the information.

    Args:
        n: rows of the (joined) batch.
        modalities: M.
        negative_sampling: as in ``symile_loss``.
    """
    return n if negative_sampling == "n" else n ** (modalities - 1)


class SymileLoss(nn.Module):
    """``symile_loss`` as a module; takes the arguments of ``symile.Symile`` 0.1.0.

    Args:
        negative_sampling: ``"n"`` or ``"n_squared"``.
        compatible: draw the negatives of ``"n"`` as the authors' package does.
        gather: take the negatives from the batches of all processes.
        process_group: of these processes; ``None`` for the default one.
        product_dtype: half precision for the matrix products of ``"n_squared"``; ``None`` for full.

    Example:
        >>> loss = SymileLoss(negative_sampling="n_squared")
        >>> r = torch.zeros(4, 8)
        >>> loss([r, r, r], logit_scale=1.0)  # nothing to tell 4 x 4 tuples apart: log 16
        tensor(2.7726)
    """

    def __init__(
        self,
        negative_sampling: NegativeSampling = "n",
        *,
        compatible: bool = False,
        gather: bool = False,
        process_group: ProcessGroup | None = None,
        product_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if negative_sampling not in get_args(NegativeSampling):
            raise ValueError(f"negative_sampling={negative_sampling!r}; choose 'n' or 'n_squared'")
        _check_product_dtype(product_dtype)
        self.negative_sampling: NegativeSampling = negative_sampling
        self.compatible = compatible
        self.gather = gather
        self.process_group = process_group
        self.product_dtype = product_dtype

    def forward(
        self,
        representations: Representations,
        logit_scale: Tensor | float,
        generator: torch.Generator | None = None,
        *,
        present: Presence | None = None,
    ) -> Tensor:
        """Scalar loss of one batch; see ``symile_loss``."""
        return symile_loss(
            representations,
            logit_scale,
            self.negative_sampling,
            generator=generator,
            present=present,
            compatible=self.compatible,
            gather=self.gather,
            process_group=self.process_group,
            product_dtype=self.product_dtype,
        )

    def extra_repr(self) -> str:
        """Shown when the module is printed."""
        return f"negative_sampling={self.negative_sampling!r}"

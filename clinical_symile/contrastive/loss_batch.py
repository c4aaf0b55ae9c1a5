"""What a loss works on: the checked batch, joined over processes if asked, and which of its rows are this process's anchors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clinical_symile.contrastive.gather import gather_batch, mean_over_ranks
from clinical_symile.contrastive.representations import Presence, Representations, as_presence, as_representations

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


@dataclass(frozen=True)
class LossBatch:
    """One batch as the losses of this room see it.

    Attributes:
        tensors: M tensors of one dtype, each (m, d), m = n rows of each process.
        present: M tensors (m,) bool; ``None`` if nothing is missing.
        logit_scale: scalar of the same dtype.
        local: this process's rows.
        rank: this process.
        ranks: how many processes joined their rows.
        group: their process group; ``None`` for the default one.
    """

    tensors: list[Tensor]
    present: list[Tensor] | None
    logit_scale: Tensor
    local: range
    rank: int
    ranks: int
    group: ProcessGroup | None

    def rows_with(self, *modalities: int) -> Tensor:
        """The rows (p,) int64, ascending, that have all of the modalities; of all M if none is named."""
        rows = torch.arange(len(self.tensors[0]), device=self.tensors[0].device)
        if self.present is None:
            return rows
        wanted = [self.present[m] for m in modalities] if modalities else self.present
        return rows[torch.stack(wanted).all(dim=0)]

    def anchors_among(self, rows: Tensor) -> slice:
        """Where this process's own rows are among the ascending ``rows``."""
        if self.ranks == 1:
            return slice(0, len(rows))
        if self.present is None:
            return slice(self.local.start, self.local.stop)
        return slice(int((rows < self.local.start).sum()), int((rows < self.local.stop).sum()))

    def mean_of(self, local_sum: Tensor, count: int) -> Tensor:
        """The mean over ``count`` terms, of which each process adds up some; 0 for none.

        The same on all processes, and with gradients for DistributedDataParallel, which averages them over processes.
        """
        local = local_sum * (self.ranks / max(1, count))
        return local if self.ranks == 1 else mean_over_ranks(local, self.group)

    def nothing(self) -> Tensor:
        """The loss of a batch without any positive: 0, connected to all inputs, whose gradients are 0."""
        # An empty slice, because 0 times the NaN of an absent row is NaN.
        return torch.stack([tensor[:0].sum() for tensor in self.tensors]).sum() + 0 * self.logit_scale


@contextmanager
def loss_batch(
    representations: Representations,
    logit_scale: Tensor | float,
    present: Presence | None = None,
    *,
    gather: bool = False,
    process_group: ProcessGroup | None = None,
) -> Iterator[LossBatch]:
    """Checks a batch, promotes and joins it; inside, autocast is off, which would turn products back to half precision.

    Args:
        representations: M >= 2 tensors, each (n, d), in a sequence or a mapping.
        logit_scale: the scale itself, not its logarithm.
        present: which rows have which modality.
        gather: join the rows of all processes.
        process_group: of the processes; ``None`` for the default one.

    Raises:
        ValueError: tensors that do not fit together, or fewer than 2 rows.
    """
    tensors = as_representations(representations)
    flags = as_presence(representations, present)
    with torch.autocast(tensors[0].device.type, enabled=False):
        scale = torch.as_tensor(logit_scale, dtype=tensors[0].dtype, device=tensors[0].device).reshape(())
        rank, ranks, local = 0, 1, range(len(tensors[0]))
        if gather:
            joined = gather_batch(tensors, process_group, present=flags)
            tensors, flags, rank, ranks = joined.tensors, joined.present, joined.rank, joined.ranks
            local = range(joined.start, joined.stop)
        if len(tensors[0]) < 2:
            raise ValueError(f"a contrastive loss needs a batch of at least 2 rows, but got {len(tensors[0])}")
        yield LossBatch(tensors, flags, scale, local, rank, ranks, process_group)

"""The small training loop that the experiments share: data in memory, AdamW, no files and no validation.

Everything is decided by a generator: equal generators give equal weights, on one thread to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from clinical_symile.contrastive import LogitScale, MissingRepresentation
from clinical_symile.contrastive.unit_vectors import to_unit_vectors

Schedule = Literal["constant", "cosine"]


class UnitVectors(nn.Module):
    """L2 norm at the end of an encoder: (n, d) -> rows of length 1."""

    def forward(self, representation: Tensor) -> Tensor:
        """Divides every row by its length."""
        return to_unit_vectors(representation)


@contextmanager
def weights_from(generator: torch.Generator) -> Iterator[None]:
    """Modules made in the block draw their first weights from the generator; torch's own generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        yield


def fit_encoders(
    encoders: nn.ModuleDict,
    loss: nn.Module,
    logit_scale: LogitScale,
    data: Mapping[str, Tensor],
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    weight_decay: float,
    generator: torch.Generator,
    present: Mapping[str, Tensor] | None = None,
    fill: MissingRepresentation | None = None,
    schedule: Schedule = "cosine",
) -> None:
    """Trains the encoders in place, on batches that are drawn anew in every epoch.

    Args:
        encoders: one for each modality, (n, …) -> (n, d).
        loss: called as ``loss(representations, scale, generator, present=…)``; its own parameters are trained too.
        logit_scale: trained if it is learned.
        data: under the encoders' names, (n, …) each.
        epochs: passes over the data.
        batch_size: rows of a batch; what is left over at the end of an epoch sits that epoch out.
        lr: AdamW's, at its highest.
        weight_decay: AdamW's, of the encoders; scales, gates and stand-ins are not pulled to 0.
        generator: decides batches and negatives, on the CPU.
        present: (n,) bool under the same names; ``None`` if nothing is missing.
        fill: learned vectors for what is missing. With them the loss sees complete rows and gets no ``present``.
        schedule: of the learning rate, with a linear warm-up over the first 5 % of the steps where it is cosine.

    Raises:
        ValueError: names that differ, fewer rows than a batch has, or a loss that is not finite.
    """
    if encoders.keys() != data.keys():
        raise ValueError(f"the encoders are of {list(encoders)}, but the data is of {list(data)}")
    rows = len(next(iter(data.values())))
    if rows < batch_size:
        raise ValueError(f"batch_size={batch_size}, but there are only {rows} rows; use a batch of at most {rows}")
    groups: list[dict[str, Any]] = [
        {"params": list(encoders.parameters()), "weight_decay": weight_decay, "lr": lr},
        {"params": list(logit_scale.parameters()), "weight_decay": 0.0, "lr": lr},
        {"params": list(loss.parameters()), "weight_decay": 0.0, "lr": lr},
        {"params": [] if fill is None else list(fill.parameters()), "weight_decay": 0.0, "lr": lr},
    ]
    groups = [group for group in groups if group["params"]]
    optimizer = torch.optim.AdamW(groups)
    steps = epochs * (rows // batch_size)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _share_of_rate(step, steps, schedule))
    parameters = [parameter for group in groups for parameter in group["params"]]
    encoders.train()
    for _ in range(epochs):
        for batch in torch.randperm(rows, generator=generator)[: rows // batch_size * batch_size].split(batch_size):
            representations = {name: encoder(data[name][batch]) for name, encoder in encoders.items()}
            flags = None if present is None else {name: flag[batch] for name, flag in present.items()}
            if fill is not None:
                representations, flags = fill(representations, flags), None
            value = loss(representations, logit_scale(), generator, present=flags)
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()
            logit_scale.clamp_()
            rate.step()
    finite = all(bool(parameter.isfinite().all()) for parameter in parameters)  # the last step came after the last loss
    if not (finite and math.isfinite(value.item())):
        raise ValueError(f"the loss became {value.item()}; try a smaller lr than {lr:g}")
    encoders.eval()


@torch.no_grad()
def embed(encoders: nn.ModuleDict, data: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The representations of all rows, under the names of the data; encoders without data are left out."""
    encoders.eval()
    return {name: encoders[name](tensor) for name, tensor in data.items()}


def _share_of_rate(step: int, steps: int, schedule: Schedule) -> float:
    if schedule == "constant":
        return 1.0
    warm_up = max(1, steps // 20)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))

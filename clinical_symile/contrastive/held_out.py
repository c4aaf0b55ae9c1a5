"""Held-out rows, and what each of them contributes to a bound on the total correlation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor

from clinical_symile.contrastive.marginal_negatives import draw_folds, fold_scores, fold_values, most_negatives
from clinical_symile.contrastive.representations import Presence, Representations, as_presence, as_representations

MOST_NEGATIVES = 4095
"""Used by default where the rows would give more: a cap of log 4096 = 8.3 nats."""


class Interval(NamedTuple):
    """An estimate with its confidence limits, in nats."""

    estimate: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Measurement:
    """A bound as a mean over independent units, with what each unit did to it."""

    as_positive: Tensor
    """(units,) float64, whose mean is the bound."""
    as_negative: Tensor
    """(units,) float64, of mean 0: how the unit moved the bound through the negatives it served in."""

    @classmethod
    def mean(cls, measurements: Sequence[Measurement]) -> Measurement:
        """The mean of bounds on the same units."""
        return cls.combination([1 / len(measurements)] * len(measurements), measurements)

    @classmethod
    def combination(cls, factors: Sequence[float], measurements: Sequence[Measurement]) -> Measurement:
        """The sum of ``factors[i] * measurements[i]``, all on the same units, so that what they share cancels."""
        pairs = list(zip(factors, measurements, strict=True))
        positive = torch.stack([factor * measurement.as_positive for factor, measurement in pairs]).sum(dim=0)
        negative = torch.stack([factor * measurement.as_negative for factor, measurement in pairs]).sum(dim=0)
        return cls(positive, negative)

    def interval(self, confidence: float, cap: float = math.inf, worst: float = -math.inf) -> Interval:
        """The bound and its confidence limits.

        The limits are normal ones. If a row cannot count for less than ``worst``, the lower one is Wilson's for the share of
        rows that count for exactly that: a sample in which no row failed does not prove that none would, and its standard
        error does not know. With error e, z the normal quantile and r = (estimate - worst) / units,

            lower = estimate - r z^2 / 2 - z sqrt(e^2 + r^2 z^2 / 4)

        Args:
            confidence: such as 0.95.
            cap: largest possible value.
            worst: smallest possible value of a row; infinite for a normal limit.

        Source: Wilson 1927, doi:10.1080/01621459.1927.10502953, for few failures of value ``worst``.
        """
        estimate, units = float(self.as_positive.mean()), len(self.as_positive)
        error = float((self.as_positive + self.as_negative).std()) / math.sqrt(units)
        z = NormalDist().inv_cdf((1 + confidence) / 2)
        unseen = (estimate - worst) / units * z / 2 if math.isfinite(worst) else 0.0
        lower = estimate - z * (unseen + math.hypot(error, unseen))
        return Interval(estimate, lower, min(estimate + z * error, cap))


@dataclass(frozen=True)
class HeldOut:
    """Complete held-out rows and a score, checked."""

    names: tuple[str, ...]
    tensors: list[Tensor]
    """M tensors, each (n, d)."""
    scale: float
    unit_of_row: Tensor
    """(n,) int64 on the CPU."""
    negatives: int
    hedge: float

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        representations: Representations,
        logit_scale: Tensor | float,
        negatives: int | None,
        groups: Tensor | None,
        present: Presence | None,
        hedge: float,
    ) -> HeldOut:
        """Checks the arguments of ``certify_total_correlation``.

        Raises:
            ValueError: names the argument that does not fit.
        """
        tensors = as_representations(representations)
        names = tuple(map(str, representations)) if isinstance(representations, Mapping) else tuple(map(str, range(len(tensors))))
        n, scale = len(tensors[0]), float(logit_scale)
        if not math.isfinite(scale):
            raise ValueError(f"logit_scale={scale}; expected a finite scale")
        if not 0 <= hedge < 1:
            raise ValueError(f"hedge={hedge}; expected a share from 0 to less than 1, such as 0.01")
        if groups is not None and (groups.shape != (n,) or groups.is_floating_point()):
            raise ValueError(f"groups are {groups.dtype} of shape {tuple(groups.shape)}; expected integers of shape ({n},)")
        units = torch.arange(n) if groups is None else groups.cpu()
        flags = as_presence(representations, present)
        if flags is not None:
            complete = torch.stack(flags).all(dim=0)
            tensors, units = [tensor[complete] for tensor in tensors], units[complete.cpu()]
        units = units.unique(return_inverse=True)[1]
        distinct = int(units.max()) + 1 if len(units) else 0
        most = most_negatives(distinct, len(tensors)) if distinct else 0
        wanted = min(most, MOST_NEGATIVES) if negatives is None else negatives
        if not 1 <= wanted <= most:
            raise ValueError(
                f"{wanted} negatives per row are asked of {distinct} independent complete rows or groups, which give 1 to {most} "
                "independent ones; give more rows or ask for fewer negatives"
            )
        for name, tensor in zip(names, tensors, strict=True):
            if not bool(tensor.isfinite().all()):
                raise ValueError(f"representation {name!r} has values that are not finite in complete rows")
        return cls(names, tensors, scale, units, wanted, hedge)

    @property
    def units(self) -> int:
        """How many independent rows, or groups of rows."""
        return int(self.unit_of_row.max()) + 1

    @torch.no_grad()
    def measure(self, generator: torch.Generator, repeats: int) -> list[Measurement]:
        """Each anchor's bound.

        Args:
            generator: decides the negatives.
            repeats: at least 1.

        Raises:
            ValueError: ``repeats`` is less than 1.
        """
        if repeats < 1:
            raise ValueError(f"repeats={repeats}; expected at least 1")
        as_positive = torch.zeros(len(self.tensors), self.units, dtype=torch.float64)
        as_negative = torch.zeros_like(as_positive)
        with torch.autocast(self.tensors[0].device.type, enabled=False):
            for fold in draw_folds(self.unit_of_row, len(self.tensors), self.negatives, repeats, generator):
                positives, negatives = self.unit_of_row[fold.positives], self.unit_of_row[fold.negatives]
                for anchor in range(len(self.tensors)):
                    values, weights = fold_values(self.tensors, anchor, fold, self.scale, self.hedge)
                    as_positive[anchor].index_add_(0, positives, values)
                    for units in negatives:
                        as_negative[anchor].index_add_(0, units, -weights)
        pairs = zip(as_positive / repeats, as_negative / repeats, strict=True)
        return [Measurement(values, roles) for values, roles in pairs]

    @torch.no_grad()
    def slope(self, scale: float, generator: torch.Generator) -> float:
        """The derivative of the bound by the scale, summed over rows and anchors."""
        total = 0.0
        with torch.autocast(self.tensors[0].device.type, enabled=False):
            for fold in draw_folds(self.unit_of_row, len(self.tensors), self.negatives, 1, generator):
                for anchor in range(len(self.tensors)):
                    for positive, negative in fold_scores(self.tensors, anchor, fold):
                        products = torch.cat([positive.unsqueeze(1), negative], dim=1)
                        total += float((positive - ((scale * products).softmax(dim=1) * products).sum(dim=1)).sum())
        return total


def check_confidence(confidence: float) -> None:
    """Refuses what is not a share.

    Raises:
        ValueError: ``confidence`` is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence}; expected a share between 0 and 1, such as 0.95")

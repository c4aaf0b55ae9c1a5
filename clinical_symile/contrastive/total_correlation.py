r"""How much the modalities say about each other: the bound that training watches, and a certificate for publication.

**The bound.** Let ``f`` be any score that was fixed before the data were seen, here ``f = s MIP(r_1, …, r_M)``. A positive
tuple comes from the joint law, k negatives keep its entry of the anchor modality and take every other entry from the
marginal of its modality, independently. With K = k + 1 tuples,

.. math:: \mathbb{E}\Bigl[ \log \frac{K e^{f_0}}{e^{f_0} + \sum_j e^{f_j}} \Bigr]
          \le KL\bigl(p(x_1, …, x_M) \,\|\, \textstyle\prod_m p(x_m)\bigr) = TC .

Proof. Given the anchor, let P be the law of the positive's other entries and Q the product of their marginals. By Donsker
and Varadhan E_P[g] <= KL(P, Q) + log E_Q[e^g] for ``e^g = K e^{f_0} / (e^{f_0} + …)`` with the negatives as further
arguments. If the positive came from Q too, all K tuples would be exchangeable and ``E_Q[e^g] = 1``. The mean over the
anchor of KL(P, Q) is TC, whichever modality is the anchor. No value exceeds log K, so neither does the bound: its *cap*.

**What is certified.** The TC of the representations, as random variables; by data processing, that of the modalities is at
least as large. It is a lower bound: a weak score certifies little, whatever there is.

**The interval** is that of the bound's mean, in the usual large-sample sense. A row matters as a positive and as a part of
other rows' negatives; both roles are added up per row (per group) before squaring (the infinitesimal jackknife), so shared
negatives are accounted for; rows that would fail but are not in the sample are allowed for (``Measurement.interval``). Only
the lower limit speaks about TC. Estimators without a cap (Donsker-Varadhan, Nguyen-Wainwright-Jordan) pay for it with a
variance that grows like e^TC; a larger K is the better remedy.

Sources: van den Oord et al. 2018, https://arxiv.org/abs/1807.03748; Poole et al. 2019, https://arxiv.org/abs/1905.06922;
Saporta et al. 2024, https://arxiv.org/abs/2411.01053; Efron 2014, doi:10.1080/01621459.2013.823775 (infinitesimal jackknife);
McAllester and Stratos 2020, https://arxiv.org/abs/1811.04251 (limits of any such bound).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from clinical_symile.contrastive.held_out import HeldOut, Interval, Measurement, check_confidence
from clinical_symile.contrastive.representations import Presence, Representations

NEAR_CAP = 0.1
FEW_UNITS = 100
_SIGNIFICANT = 0.999


def symile_bound(losses: Sequence[Tensor | float], tuples: Sequence[Tensor | int], rows: Sequence[int] | None = None) -> Tensor:
    """What the loss of training or validation batches says about the total correlation: a signal, not a certificate.

        bound = sum_b n_b (log K_b - loss_b) / sum_b n_b

    K_b is the number of tuples that each row of batch b compared, the positive included (``tuples_per_row``): N for ``"n"``,
    N^(M-1) for ``"n_squared"``. Batches of different size have different K, so the constant belongs inside the mean. The
    authors' training code adds log N whatever the sampling, which for ``"n_squared"`` hides log N^(M-2) nats.

    Why it is only a signal: the rows were trained on, or chose the checkpoint; and the grid of ``"n_squared"`` contains
    tuples in which two entries are of one row, so they are no draws from the product of the marginals, and the proof in
    the module's text does not cover them. (Nor, in the strict sense, those of ``"n"``, where one row may lend its entries
    to two negatives.) ``certify_total_correlation`` is covered.

    Args:
        losses: of each batch: the scalar of ``symile_loss``, or one number per anchor, (M,).
        tuples: K of each batch; a tensor if it differs between the anchors.
        rows: n of each batch; ``None`` weighs all batches alike.

    Returns:
        Nats, float64, in the shape of one batch's loss.

    Raises:
        ValueError: no batch, sequences of different length, or a count that is not positive.

    Example:
        >>> symile_bound([2.0, 1.0], tuples=[280**2, 190**2], rows=[280, 190])
        tensor(9.3603, dtype=torch.float64)
    """
    counts = [1] * len(losses) if rows is None else list(rows)
    if not losses or not len(losses) == len(tuples) == len(counts):
        raise ValueError(f"got {len(losses)} losses, {len(tuples)} tuples and {len(counts)} rows; expected one of each per batch")
    sizes = [torch.as_tensor(size, dtype=torch.float64) for size in tuples]
    if any(bool((size < 1).any()) for size in sizes) or any(count < 1 for count in counts):
        raise ValueError(f"tuples={list(tuples)}, rows={counts}; expected at least 1 of each")
    bounds = [
        count * (size.log() - torch.as_tensor(loss, dtype=torch.float64).detach().cpu())
        for loss, size, count in zip(losses, sizes, counts, strict=True)
    ]
    return torch.stack(bounds).sum(dim=0) / sum(counts)


@dataclass(frozen=True)
class Certificate:
    """A lower bound on the total correlation, measured on held-out rows; nats."""

    estimate: float
    lower: float
    """TC is at least this, at the confidence (of the two-sided interval; a one-sided claim is safer still)."""
    upper: float
    """Of the bound, not of TC: TC may be larger."""
    per_anchor: Mapping[str, Interval]
    """Each anchor's own bound. Their mean is the estimate; the largest of them is biased upwards."""
    negatives: int
    """Per positive and repeat."""
    rows: int
    """Complete rows."""
    units: int
    """Independent groups of rows."""
    cap: float
    """log(negatives + 1): no bound can exceed it."""
    confidence: float
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, sample: HeldOut, anchors: Sequence[Measurement], confidence: float) -> Certificate:
        """What the anchors' measurements certify.

        Args:
            sample: the rows they were made on.
            anchors: M measurements, one per modality.
            confidence: of the two-sided interval.
        """
        cap = math.log(sample.negatives + 1)
        worst = math.log(sample.hedge) if sample.hedge > 0 else -math.inf
        total = Measurement.mean(anchors).interval(confidence, cap, worst)
        per_anchor = {name: anchor.interval(confidence, cap, worst) for name, anchor in zip(sample.names, anchors, strict=True)}
        warnings = []
        if total.estimate > cap - NEAR_CAP:
            warnings.append(f"the bound is within {NEAR_CAP} nats of its cap, so there is probably more: use more negatives")
        if sample.units < FEW_UNITS:
            warnings.append(f"{sample.units} independent rows are few for an interval that rests on many")
        if total.upper < 0:
            warnings.append("the score does worse than none, being overconfident here: fit its scale on other rows")
        rows = len(sample.unit_of_row)
        return cls(*total, per_anchor, sample.negatives, rows, sample.units, cap, confidence, tuple(warnings))

    @property
    def certified(self) -> float:
        """The lower limit, or 0 where that says nothing, since TC is never negative."""
        return max(0.0, self.lower)

    def describe(self) -> str:
        """One sentence, and one more for each warning."""
        bits = [value / math.log(2) for value in (self.certified, self.estimate, self.lower, self.upper)]
        units = f"{self.rows} held-out rows" + (f" of {self.units} groups" if self.units != self.rows else "")
        sentence = (
            f"Total correlation is at least {self.certified:.3f} nats ({bits[0]:.3f} bits) at {self.confidence:.0%} confidence: "
            f"the bound is {self.estimate:.3f} nats [{self.lower:.3f}, {self.upper:.3f}], or {bits[1]:.3f} bits "
            f"[{bits[2]:.3f}, {bits[3]:.3f}], on {units} with {self.negatives} negatives each (cap {self.cap:.2f} nats)."
        )
        return " ".join([sentence, *(f"Warning: {warning}." for warning in self.warnings)])


def certify_total_correlation(
    representations: Representations,
    logit_scale: Tensor | float,
    *,
    generator: torch.Generator,
    negatives: int | None = None,
    confidence: float = 0.95,
    groups: Tensor | None = None,
    present: Presence | None = None,
    hedge: float = 0.01,
    repeats: int = 4,
) -> Certificate:
    """A lower bound on the total correlation of held-out rows, with an interval.

    The rows must have had no part in training, in the choice of the checkpoint or in the choice of ``logit_scale``; to fit
    the scale, give other rows to ``calibrate_scale``. Every negative is an independent draw from the product of the
    marginals (``marginal_negatives``), so the mean of the estimate is at most TC at any number of rows, not only in the limit.

    The score is hedged: its probability of the positive is mixed with the 1/K of a guess that knows nothing. The proof holds
    unchanged, because the mixture of two ``e^g`` of mean 1 has mean 1. It costs at most -log(1 - hedge) nats, and no value
    falls below log(hedge): without it, one row in a thousand that an overconfident score gets wrong can make the mean, and
    most samples do not contain it, so their intervals are too narrow.

    Args:
        representations: M >= 2 tensors, each (n, d), in a sequence or a mapping.
        logit_scale: the scale itself, not its logarithm.
        generator: decides the negatives, on the CPU.
        negatives: k per positive; ``None`` for as many as are independent, at most 4095.
        confidence: of the two-sided interval.
        groups: (n,) integers, such as patients: rows of one group are not independent of each other. TC is then that of a
            random row of a random group.
        present: which rows have which modality. Only complete rows are used, as negatives too: an entry of an incomplete
            row may follow another law than its modality has among complete ones, and the bound would count the difference.
        hedge: from 0 to less than 1.
        repeats: how often all rows meet new negatives; more make the interval narrower, up to a limit.

    Raises:
        ValueError: an argument out of range, too few complete rows or groups for the negatives, or a value that is not finite.

    Example:
        >>> code = torch.eye(2).repeat(300, 1)[torch.randperm(600, generator=torch.Generator().manual_seed(0))]
        >>> certificate = certify_total_correlation([code, code], 20.0, generator=torch.Generator().manual_seed(0))
        >>> certificate.lower <= math.log(2) and math.log(2) - certificate.estimate < 0.01
        True
    """
    check_confidence(confidence)
    sample = HeldOut.of(representations, logit_scale, negatives, groups, present, hedge)
    return Certificate.of(sample, sample.measure(generator, repeats), confidence)


def calibrate_scale(
    representations: Representations,
    logit_scale: Tensor | float,
    *,
    generator: torch.Generator,
    negatives: int | None = None,
    groups: Tensor | None = None,
    present: Presence | None = None,
    largest_factor: float = 100.0,
) -> float:
    """The scale at which the bound is largest on these rows; the bound is concave in it.

    Use rows that will not be certified, such as the validation split. Where they show no tie between the modalities, which
    is to say that the bound does not rise significantly (at 99.9 %) from 0, the scale is 0, and so is what it certifies.

    Args:
        representations: M >= 2 tensors, each (n, d).
        logit_scale: positive; where to start.
        generator: decides the negatives, on the CPU.
        negatives: as in ``certify_total_correlation``.
        groups: as in ``certify_total_correlation``.
        present: as in ``certify_total_correlation``.
        largest_factor: the answer is at most this many times ``logit_scale``: where every positive beats all its
            negatives no scale is too large.

    Returns:
        The scale itself, from 0 to ``largest_factor * logit_scale``.

    Raises:
        ValueError: as ``certify_total_correlation``, or a scale that is not positive.
    """
    sample = HeldOut.of(representations, logit_scale, negatives, groups, present, hedge=0.0)
    if sample.scale <= 0:
        raise ValueError(f"logit_scale={sample.scale}; expected a positive scale to start from")
    state = generator.get_state()
    smallest, largest = 1e-6 * sample.scale, largest_factor * sample.scale
    if Measurement.mean(replace(sample, scale=smallest).measure(generator, 1)).interval(_SIGNIFICANT).lower <= 0:
        return 0.0

    def rises(scale: float) -> bool:
        generator.set_state(state)  # the same negatives at every scale
        return sample.slope(scale, generator) > 0

    if rises(largest):
        return largest
    lower, upper, trial = smallest, largest, sample.scale
    while upper > 1.001 * lower:
        lower, upper = (trial, upper) if rises(trial) else (lower, trial)
        trial = math.sqrt(lower * upper)
    return trial

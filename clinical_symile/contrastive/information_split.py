r"""What only all modalities together tell, apart from what pairs of them tell.

The split is that of Chow and Liu. The best law with the right pairs along a spanning tree of the modalities carries the sum
of the tree's mutual informations, and

.. math:: TC = \underbrace{\max_{trees} \sum_{(x, y)} I(x; y)}_{pairwise}
               + \underbrace{KL(p \,\|\, p_{best\ tree})}_{higher\ order},
          \qquad \text{both} \ge 0 .

If the modalities repeat each other (all equal, say) nothing is of higher order; of an exclusive or, everything is. A loop of
pairs can carry more than a tree, so "higher order" may hold something that pairs together would tell; nothing that one pair
alone tells. Of three modalities the informations also give

    synergy      TC - I(x; y) - I(x; z) - I(y; z) = I(x; y | z) - I(x; y), negative where modalities repeat each other;
    conditional  I(x; y | z) = TC - I(x; z) - I(y; z): what x adds about y once z is known (do the labs add to the ECG?).

**Differences of lower bounds are not bounds.** TC and each I(x; y) are certified from below, each with its own gap. A weak
pairwise score makes the higher order look large, a weak score of all modalities makes it look small or negative. Give both
scores the same care: the pairs' should come from representations trained on pairs (``PairwiseCLIPLoss``). The sum along the
tree is itself a lower bound on TC, but for the choice of the tree on the same rows.

Source: Chow and Liu 1968, doi:10.1109/TIT.1968.1054142; McGill 1954, doi:10.1007/BF02289159.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from clinical_symile.contrastive.held_out import HeldOut, Interval, Measurement, check_confidence
from clinical_symile.contrastive.representations import Presence, Representations, as_presence, as_representations
from clinical_symile.contrastive.total_correlation import Certificate

Pair = tuple[str, str]
CAVEAT = "Differences of lower bounds are not bounds: they are as good as the scores of pairs and of all modalities are."


@dataclass(frozen=True)
class InformationSplit:
    """Informations in nats. Only ``total`` and ``pairs`` are lower bounds; the other figures are differences and sums of them."""

    total: Certificate
    """Of all modalities."""
    pairs: Mapping[Pair, Certificate]
    """Mutual information of each pair, in the order of the modalities."""
    tree: tuple[Pair, ...]
    """The pairs of the best tree, the most informative first; pairs without a positive estimate are left out."""
    pairwise: Interval
    """The sum along the tree."""
    higher_order: Interval
    """total - pairwise; the interval is that of the difference on the same rows."""
    synergy: Interval | None
    """For three modalities."""
    conditional: Mapping[Pair, Interval]
    """For three modalities: I(x; y | the third)."""

    def describe(self) -> str:
        """A few sentences, with what they do not prove."""
        pairs = "; ".join(f"{x}–{y} {pair.estimate:.3f}" for (x, y), pair in self.pairs.items())
        return (
            f"{self.total.describe()} Pairs alone (nats): {pairs}. Along the best tree of pairs {_text(self.pairwise)} nats, "
            f"and beyond it {_text(self.higher_order)} nats. {CAVEAT}"
        )


def split_information(
    representations: Representations,
    logit_scale: Tensor | float,
    pair_representations: Representations,
    pair_logit_scale: Tensor | float | Mapping[Pair, float],
    *,
    generator: torch.Generator,
    negatives: int | None = None,
    confidence: float = 0.95,
    groups: Tensor | None = None,
    present: Presence | None = None,
    hedge: float = 0.01,
    repeats: int = 4,
) -> InformationSplit:
    """Certifies the total correlation and every pair's mutual information on the same held-out rows, and compares.

    Args:
        representations: M >= 3 tensors, each (n, d), for the score of all modalities.
        logit_scale: its scale, not the logarithm.
        pair_representations: the same rows and modalities, (n, d'), for the pairs' scores, which are scaled dot products.
        pair_logit_scale: their scale, or one for each pair of names ``("a", "b")``, in the order of the modalities.
        generator: decides the negatives, on the CPU.
        negatives: as in ``certify_total_correlation``, for pairs too.
        confidence: as in ``certify_total_correlation``.
        groups: as in ``certify_total_correlation``.
        present: as in ``certify_total_correlation``; rows that lack any modality are used nowhere.
        hedge: as in ``certify_total_correlation``.
        repeats: as in ``certify_total_correlation``.

    Raises:
        ValueError: as ``certify_total_correlation``; fewer than 3 modalities, or pairs' representations of other rows or names.
    """
    check_confidence(confidence)
    tensors = as_representations(representations, at_least=3)
    sample = HeldOut.of(representations, logit_scale, negatives, groups, present, hedge)
    of_pairs = _of_pairs(pair_representations, sample.names, len(tensors[0]))
    scales = _scales(pair_logit_scale, sample.names)
    flags = as_presence(representations, present)
    complete = torch.stack(flags).all(dim=0) if flags else tensors[0].new_ones(len(tensors[0]), dtype=torch.bool)

    anchors = sample.measure(generator, repeats)
    total = Certificate.of(sample, anchors, confidence)
    certificates: dict[Pair, Certificate] = {}
    measured: dict[Pair, Measurement] = {}
    for pair, scale in scales.items():
        both = {name: of_pairs[name] for name in pair}
        pair_sample = HeldOut.of(both, scale, negatives, groups, dict.fromkeys(pair, complete), hedge)
        ends = pair_sample.measure(generator, repeats)
        certificates[pair], measured[pair] = Certificate.of(pair_sample, ends, confidence), Measurement.mean(ends)

    def plus_minus(whole: float, less: float, pairs: list[Pair] | tuple[Pair, ...]) -> Interval:
        factors = [whole, *([less] * len(pairs))]
        everything = [Measurement.mean(anchors), *(measured[pair] for pair in pairs)]
        return Measurement.combination(factors, everything).interval(confidence)

    tree = best_tree({pair: certificate.estimate for pair, certificate in certificates.items()})
    three = len(tensors) == 3
    return InformationSplit(
        total=total,
        pairs=certificates,
        tree=tree,
        pairwise=plus_minus(0.0, 1.0, tree),
        higher_order=plus_minus(1.0, -1.0, tree),
        synergy=plus_minus(1.0, -1.0, list(measured)) if three else None,
        conditional={pair: plus_minus(1.0, -1.0, [p for p in measured if p != pair]) for pair in measured} if three else {},
    )


def best_tree(informations: Mapping[Pair, float]) -> tuple[Pair, ...]:
    """The pairs without a loop whose informations add up to most (Kruskal); pairs without information are left out.

    Args:
        informations: of each pair, in any unit.

    Example:
        >>> best_tree({("a", "b"): 0.2, ("a", "c"): 0.5, ("b", "c"): 0.3})
        (('a', 'c'), ('b', 'c'))
    """
    branch = {name: name for pair in informations for name in pair}
    tree: list[Pair] = []
    for pair in sorted(informations, key=lambda pair: -informations[pair]):
        joined, kept = branch[pair[1]], branch[pair[0]]
        if informations[pair] <= 0 or joined == kept:
            continue
        tree.append(pair)
        branch = {name: kept if root == joined else root for name, root in branch.items()}
    return tuple(tree)


def _of_pairs(representations: Representations, names: Sequence[str], n: int) -> dict[str, Tensor]:
    """The pairs' representations under the names of the modalities."""
    keys = [str(key) for key in representations] if isinstance(representations, Mapping) else list(names)
    tensors = as_representations(representations)
    if len(tensors) != len(names) or keys != list(names) or len(tensors[0]) != n:
        raise ValueError(
            f"pair_representations are {len(tensors)} modalities {keys} of {len(tensors[0])} rows; "
            f"expected {list(names)} of {n} rows, as the representations"
        )
    return dict(zip(names, tensors, strict=True))


def _scales(scale: Tensor | float | Mapping[Pair, float], names: Sequence[str]) -> dict[Pair, Tensor | float]:
    """The scale of each pair."""
    pairs = list(combinations(names, 2))
    if not isinstance(scale, Mapping):
        return dict.fromkeys(pairs, scale)
    if set(scale) != set(pairs):
        raise ValueError(f"pair_logit_scale is of the pairs {list(scale)}; expected {pairs}")
    return {pair: scale[pair] for pair in pairs}


def _text(interval: Interval) -> str:
    return f"{interval.estimate:.3f} [{interval.lower:.3f}, {interval.upper:.3f}]"

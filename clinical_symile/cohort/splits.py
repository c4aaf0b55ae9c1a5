"""Splits that keep each patient whole: by fractions, by exact sizes, alike in chosen attributes.

Every rule takes the patients in the order of a number that the seed and the patient's own id alone determine, so neither the
order of the rows nor a renumbering matters. What happens to a patient when A admissions of other patients are added
(W: the most admissions of one patient, S: the number of strata):

* fractions: nothing, a patient's split never changes;
* sizes: at most 2 A + 7 (W - 1) patients change their split, 3 A + 12 (W - 1) with ``train_size``. No rule with exact sizes can
  do without: who enters a full split pushes somebody out;
* strata: for patients with one admission each, at most 6 A + 4 S (sizes), since any stratum may be rounded the other way.

Proof of the second: patients are dealt in one order, and a split takes whoever fits into what is left of it. Until a split
refuses somebody it has taken everybody who came, and then less than W is missing; what it takes later, its fillers, is less
than W, so at most W - 1 patients. The first j splits stop taking everybody at the threshold j; the admissions of the patients
below it are their sizes less j (W - 1) at most. Both with and without the A new admissions that holds, so the old patients
between the two positions of the threshold j have at most A + j (W - 1) admissions. Only they and the fillers of both deals,
2 (W - 1) for each split, can change: the sum over j = 1 … m is m A + (m (m + 1) / 2 + 2 m) (W - 1).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clinical_symile.cohort.strata import apportion
from clinical_symile.config import CohortConfig
from clinical_symile.errors import InputError
from clinical_symile.types import Split

_HELD_OUT: Final[tuple[Split, ...]] = ("test", "val")


def assign_split(subject: str, seed: int, val_fraction: float, test_fraction: float) -> Split:
    """The split of a patient: a function of the patient and the seed alone, so that others who come or go do not move it.

    u = SHA-256("<seed>:<subject>") as a fraction in [0, 1): test below ``test_fraction``, then val, then train.

    Args:
        subject: the hospital's own id of the patient.
        seed: of the cohort.
        val_fraction: share of the patients in val, on average.
        test_fraction: share of the patients in test, on average.
    """
    u = _hash(subject, seed) / 2**64
    if u < test_fraction:
        return "test"
    return "val" if u < test_fraction + val_fraction else "train"


def assign_splits(patients: pd.DataFrame, rules: CohortConfig) -> dict[str, Split | None]:
    """The split of every patient.

    First the splits that have a fraction, then those that have a size: test, val, and train if it has one. Without strata, a
    fraction is ``assign_split``'s, right on average; with strata, each split holds its fraction of the patients of each
    stratum to within one patient. A size is a number of admissions, kept exactly: whoever has more admissions than are left
    goes to the next split. With strata it is divided among them first (see ``apportion``); what a stratum cannot fill, since
    its next patients have several admissions, is topped up by one patient more than its share, then by any stratum's.

    Args:
        patients: one row per patient; columns subject (the hospital's own id), admissions (a count), stratum (a text).
        rules: fractions, sizes, ``stratify_by`` and seed.

    Returns:
        Subject -> split; None beyond ``train_size``.

    Raises:
        InputError: the sizes ask for more admissions than there are, cannot be met exactly, or leave nothing to train on.
    """
    deal = _Deal(patients, rules.seed)
    sizes: dict[Split, int | None] = {"test": rules.test_size, "val": rules.val_size}
    fractions = {"test": rules.test_fraction, "val": rules.val_fraction}
    by_fraction: dict[Split, float] = {split: fractions[split] for split in _HELD_OUT if sizes[split] is None}
    by_size: dict[Split, int] = {split: size for split, size in sizes.items() if size is not None}
    if rules.stratify_by:
        deal.take(_round_shares(by_fraction, len(patients)), np.ones(len(patients), dtype=np.int64))
    else:
        deal.take_fractions(by_fraction)
    deal.take(by_size, deal.admissions)
    if rules.train_size is not None:
        deal.take({"train": rules.train_size}, deal.admissions)
    elif deal.is_free.any():
        deal.split[deal.is_free] = "train"
    elif by_size:
        raise InputError(
            f"{_named(by_size)} leave none of {deal.admissions.sum()} admissions to train on; make them smaller, or use more"
        )
    return dict(zip(deal.subjects, deal.split.tolist(), strict=True))


class _Deal:
    """Deals patients to splits.

    Attributes:
        subjects: (n,) own ids, in the order of their hash.
        admissions: (n,) counts.
        stratum: (n,) number of each patient's stratum.
        split: (n,) the split, None as long as there is none.
    """

    def __init__(self, patients: pd.DataFrame, seed: int) -> None:
        keys = [(_hash(subject, seed), subject) for subject in patients["subject"]]
        order = sorted(range(len(keys)), key=keys.__getitem__)
        self.seed = seed
        self.subjects: list[str] = patients["subject"].iloc[order].tolist()
        self.admissions = patients["admissions"].to_numpy(dtype=np.int64)[order]
        # Strata are in the order of a hash, too: equal remainders are rounded in their order, and no name should win.
        names = sorted(set(patients["stratum"]), key=lambda name: (_hash(f"stratum {name}", seed), name))
        self.stratum = pd.Categorical(patients["stratum"].iloc[order], categories=names).codes.astype(np.int64)
        self.split: NDArray[np.object_] = np.full(len(order), None, dtype=object)
        self._strata = len(names)

    @property
    def is_free(self) -> NDArray[np.bool_]:
        """(n,) whether a patient has no split yet."""
        return np.array([split is None for split in self.split], dtype=bool)

    def take_fractions(self, fractions: Mapping[Split, float]) -> None:
        """Splits by the hash alone; train is what is left for others to take."""
        val, test = fractions.get("val", 0.0), fractions.get("test", 0.0)
        found = [assign_split(subject, self.seed, val, test) for subject in self.subjects]
        self.split[:] = [None if split == "train" else split for split in found]

    def take(self, sizes: Mapping[Split, int], weights: NDArray[np.int64]) -> None:
        """Fills splits exactly from the patients that are free, each of whom counts ``weights``.

        Raises:
            InputError: there are not so many, or no patient left fits into the last gap.
        """
        free = self.is_free
        counts = np.bincount(self.stratum[free], weights=weights[free], minlength=self._strata).astype(np.int64)
        rest = int(counts.sum()) - sum(sizes.values())
        if rest < 0:
            raise InputError(
                f"{_named(sizes)} ask for {sum(sizes.values())} admissions, but only {counts.sum()} are there for them; make "
                "them smaller, or use more admissions"
            )
        due = apportion(counts, [*sizes.values(), rest])
        for column, (split, size) in enumerate(sizes.items()):
            missing = self._fill(split, size, due[:, column], weights)
            if missing:
                raise InputError(
                    f"cohort.{split}_size = {size} cannot be met exactly: {size - missing} admissions are in, and each patient "
                    f"left has more than {missing}; take cohort.{split}_size = {size - missing}, another seed, or a fraction"
                )

    def _fill(self, split: Split, size: int, due: NDArray[np.int64], weights: NDArray[np.int64]) -> int:
        """Takes patients in order; gives what is missing in the end."""
        missing, lacking = size, due.copy()
        for step in ("within the stratum's share", "one patient beyond it", "any"):
            for patient in np.flatnonzero(self.is_free).tolist():
                weight, stratum = int(weights[patient]), self.stratum[patient]
                lacks = lacking[stratum]
                if (
                    weight > missing
                    or (step != "any" and lacks <= 0)
                    or (step == "within the stratum's share" and weight > lacks)
                ):
                    continue
                self.split[patient] = split
                missing -= weight
                lacking[stratum] -= weight
            if not missing:
                break
        return missing


def _hash(text: str, seed: int) -> int:
    """A whole number in [0, 2^64)."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{text}".encode()).digest()[:8], "big")


def _round_shares(fractions: Mapping[Split, float], n: int) -> dict[Split, int]:
    """Whole numbers of patients with the largest remainders rounded up; the rest has a share, too."""
    ideal = np.array([*fractions.values(), 1 - sum(fractions.values())]) * n
    counts = np.floor(ideal).astype(np.int64)
    counts[np.argsort(counts - ideal, kind="stable")[: n - counts.sum()]] += 1
    return dict(zip(fractions, counts.tolist(), strict=False))  # the last one is the rest's


def _named(sizes: Mapping[Split, int]) -> str:
    return " and ".join(f"cohort.{split}_size = {size}" for split, size in sizes.items())

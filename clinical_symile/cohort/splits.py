"""Splits that keep each patient whole, and candidate sets for retrieval."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd

from clinical_symile.errors import InputError
from clinical_symile.types import Split


def assign_split(subject: str, seed: int, val_fraction: float, test_fraction: float) -> Split:
    """The split of a patient: a function of the patient and the seed alone, so that others who come or go do not move it.

    u = SHA-256("<seed>:<subject>") as a fraction in [0, 1): test below ``test_fraction``, then val, then train.

    Args:
        subject: the hospital's own id of the patient.
        seed: of the cohort.
        val_fraction: share of the patients in val, on average.
        test_fraction: share of the patients in test, on average.
    """
    digest = hashlib.sha256(f"{seed}:{subject}".encode()).digest()
    u = int.from_bytes(digest[:8], "big") / 2**64
    if u < test_fraction:
        return "test"
    return "val" if u < test_fraction + val_fraction else "train"


def draw_candidates(admissions: pd.DataFrame, split: Split, size: int, seed: int) -> pd.DataFrame:
    """A candidate set for each admission of a split: its own X-ray and ``size - 1`` others, in random order.

    The others are drawn without replacement from the same split, never another admission of the same patient, and no two
    candidates share an image. Each set has a generator of its own, seeded by ``seed`` and the admission.

    Args:
        admissions: columns hadm_id, subject_id, split, cxr_path.
        split: the split to draw for.
        size: X-rays in a set, the positive included.
        seed: of the cohort.

    Returns:
        Columns split, query_hadm_id, position (0 … size-1), candidate_hadm_id, is_positive.

    Raises:
        InputError: the split has too few patients for such sets.
    """
    pool = admissions[admissions["split"] == split].sort_values("hadm_id")
    if pool.empty:
        raise InputError(f"split '{split}' has no admissions; use more admissions or a larger cohort.{split}_fraction")
    hadm_ids, subjects = pool["hadm_id"].to_numpy(), pool["subject_id"].to_numpy()
    images = pd.factorize(pool["cxr_path"])[0]
    sets = []
    for own, hadm_id in enumerate(hadm_ids):
        rng = np.random.default_rng([seed, int(hadm_id)])
        order = rng.permutation(len(pool))
        order = order[(subjects[order] != subjects[own]) & (images[order] != images[own])]
        # The first of each image, in the drawn order.
        first = np.sort(np.unique(images[order], return_index=True)[1])
        others = order[first][: size - 1]
        if len(others) < size - 1:
            raise InputError(
                f"split '{split}' has {len(pool)} admissions of {len(set(subjects))} patients: one of them has only "
                f"{len(others)} X-rays of other patients to stand beside it, but cohort.candidates = {size} needs {size - 1}. "
                f"Use more admissions, a larger cohort.{split}_fraction, or fewer candidates"
            )
        sets.append(np.insert(others, rng.integers(size), own))
    members = np.concatenate(sets)
    owners = np.repeat(np.arange(len(pool)), size)
    return pd.DataFrame(
        {
            "split": split,
            "query_hadm_id": hadm_ids[owners],
            "position": np.tile(np.arange(size, dtype=np.int64), len(pool)),
            "candidate_hadm_id": hadm_ids[members],
            "is_positive": members == owners,
        }
    )

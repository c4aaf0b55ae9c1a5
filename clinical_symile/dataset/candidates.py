"""The cohort's candidate sets after some of its admissions could not be read."""

from __future__ import annotations

import numpy as np
import pandas as pd


def repair_candidates(sets: pd.DataFrame, admissions: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, int]:
    """Candidate sets among the admissions that are left.

    A set whose query was rejected is dropped. A negative that was rejected is replaced by another admission of the same
    split, of another patient and with another image than any in the set, drawn by a generator that the seed and the query
    alone determine, so that one rejected file does not move the other sets. A set that cannot be filled is dropped.

    Args:
        sets: columns split, query_hadm_id, position, candidate_hadm_id, is_positive.
        admissions: the admissions left; columns hadm_id, subject_id, split, cxr_sha256.
        seed: of the cohort.

    Returns:
        The sets, in the same columns and order, and the number of sets that were dropped.
    """
    left = admissions.set_index("hadm_id")
    kept, dropped = [], 0
    for (split, query), part in sets.groupby(["split", "query_hadm_id"], sort=True):
        if query not in left.index:
            dropped += 1
            continue
        wanted = part.sort_values("position").copy()
        gone = ~wanted["candidate_hadm_id"].isin(left.index)
        if gone.any():
            pool, present = left[left["split"] == split], wanted.loc[~gone, "candidate_hadm_id"]
            others = _replacements(pool, present, int(query), seed, int(gone.sum()))
            if others is None:
                dropped += 1
                continue
            wanted.loc[gone, "candidate_hadm_id"] = others
        kept.append(wanted)
    repaired = pd.concat(kept, ignore_index=True) if kept else sets.iloc[:0]
    return repaired.astype(sets.dtypes.to_dict()), dropped


def _replacements(pool: pd.DataFrame, present: pd.Series, query: int, seed: int, count: int) -> list[int] | None:
    """``count`` admissions that may stand beside those that are present; None if there are not so many."""
    taken_images = set(pool.loc[present, "cxr_sha256"])
    taken = set(present)
    found: list[int] = []
    order = np.random.default_rng([seed, query]).permutation(len(pool))
    for hadm_id, subject, image in zip(
        pool.index.to_numpy()[order], pool["subject_id"].to_numpy()[order], pool["cxr_sha256"].to_numpy()[order], strict=True
    ):
        if len(found) == count:
            break
        if hadm_id in taken or subject == pool.loc[query, "subject_id"] or image in taken_images:
            continue
        taken_images.add(image)
        found.append(int(hadm_id))
    return found if len(found) == count else None

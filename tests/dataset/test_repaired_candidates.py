"""Candidate sets after rejections: dropped with their query, refilled fairly, untouched where nothing was lost."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from clinical_symile.dataset.candidates import repair_candidates


def cohort(n: int, subjects: int, images: int) -> pd.DataFrame:
    """``n`` test admissions of ``subjects`` patients with ``images`` different pictures."""
    index = np.arange(n)
    return pd.DataFrame(
        {"hadm_id": index, "subject_id": index % subjects, "split": "test", "cxr_sha256": [f"i{k}" for k in index % images]}
    )


def sets_of(admissions: pd.DataFrame, size: int) -> pd.DataFrame:
    """Sets as the cohort draws them."""
    parts = []
    for own in admissions.itertuples():
        others = admissions[(admissions.subject_id != own.subject_id) & (admissions.cxr_sha256 != own.cxr_sha256)]
        chosen = [own.hadm_id, *others.drop_duplicates("cxr_sha256").hadm_id[: size - 1]]
        rows = {"split": "test", "query_hadm_id": own.hadm_id, "position": range(size), "candidate_hadm_id": chosen}
        parts.append(pd.DataFrame(rows).assign(is_positive=[True, *[False] * (size - 1)]))
    return pd.concat(parts, ignore_index=True)


@given(st.integers(12, 30), st.sets(st.integers(0, 29), max_size=6), st.integers(0, 5))
def test_every_set_left_is_a_valid_set(n: int, gone: set[int], seed: int) -> None:
    everyone = cohort(n, subjects=n - 2, images=n - 1)
    left = everyone[~everyone.hadm_id.isin(gone)]
    sets = sets_of(everyone, 4)
    repaired, dropped = repair_candidates(sets, left, seed)
    about = left.set_index("hadm_id")
    assert dropped + repaired["query_hadm_id"].nunique() == n
    assert set(repaired["query_hadm_id"]) == set(left.hadm_id), "with so many left, only sets whose query is gone are dropped"
    for query, part in repaired.groupby("query_hadm_id"):
        assert part["candidate_hadm_id"].isin(left.hadm_id).all()
        assert part.loc[part.is_positive, "candidate_hadm_id"].tolist() == [query]
        negatives = part.loc[~part.is_positive, "candidate_hadm_id"]
        assert (about.loc[negatives, "subject_id"] != about.loc[query, "subject_id"]).all()
        assert about.loc[part["candidate_hadm_id"], "cxr_sha256"].is_unique
        assert part["position"].tolist() == list(range(4))


def test_sets_that_lost_nothing_do_not_move() -> None:
    everyone = cohort(20, 20, 20)
    sets = sets_of(everyone, 4)
    repaired, dropped = repair_candidates(sets, everyone[everyone.hadm_id != 19], seed=0)
    assert dropped == 1
    pd.testing.assert_frame_equal(repaired, sets[sets.query_hadm_id != 19].reset_index(drop=True))


def test_a_set_that_cannot_be_filled_is_dropped() -> None:
    everyone = cohort(4, 4, 4)
    repaired, dropped = repair_candidates(sets_of(everyone, 4), everyone[everyone.hadm_id != 3], seed=0)
    assert dropped == 4
    assert repaired.empty

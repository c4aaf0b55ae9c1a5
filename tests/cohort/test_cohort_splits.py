"""Patient-disjoint splits and candidate sets."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinical_symile.cohort.splits import assign_split, draw_candidates
from clinical_symile.errors import InputError


def pool(subjects, images=None) -> pd.DataFrame:
    n = len(subjects)
    paths = [f"{image}.jpg" for image in (images or range(n))]
    return pd.DataFrame({"hadm_id": np.arange(100, 100 + n), "subject_id": subjects, "split": "test", "cxr_path": paths})


def test_the_split_of_a_patient_is_frozen():
    """Golden: changing the hash would move patients between train and test of every existing cohort.

    python -c "from clinical_symile.cohort.splits import assign_split as s
    print([s(str(subject), 0, 0.15, 0.25) for subject in range(10000032, 10000044)])"
    """
    found = [assign_split(str(subject), 0, 0.15, 0.25) for subject in range(10_000_032, 10_000_044)]
    assert found == ["val", "train", "test", "train", "test", "test", "train", "train", "train", "train", "train", "test"]


def test_fractions_hold_on_average():
    splits = [assign_split(str(subject), 7, 0.15, 0.25) for subject in range(20_000)]
    for split, share in (("train", 0.60), ("val", 0.15), ("test", 0.25)):
        assert splits.count(split) / len(splits) == pytest.approx(share, abs=4 * np.sqrt(0.25 / 20_000))


def test_another_seed_gives_other_splits():
    subjects = [str(subject) for subject in range(200)]
    assert [assign_split(s, 0, 0.3, 0.3) for s in subjects] != [assign_split(s, 1, 0.3, 0.3) for s in subjects]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=2, max_size=30),
    st.integers(2, 5),
    st.integers(0, 2**31),
    st.randoms(use_true_random=False),
)
def test_every_set_keeps_its_promises(subjects, size, seed, shuffler):
    admissions = pool(subjects, [shuffler.randrange(len(subjects)) for _ in subjects])
    # One image belongs to one patient, as in MIMIC.
    admissions["cxr_path"] = admissions["subject_id"].astype(str) + "/" + admissions["cxr_path"]
    subject, image = admissions.set_index("hadm_id")["subject_id"], admissions.set_index("hadm_id")["cxr_path"]
    others = admissions.groupby("subject_id")["cxr_path"].nunique()
    if any(others.drop(own).sum() < size - 1 for own in set(subjects)):
        with pytest.raises(InputError, match="split 'test' has"):
            draw_candidates(admissions, "test", size, seed)
        return
    sets = draw_candidates(admissions, "test", size, seed)
    assert sorted(set(sets["query_hadm_id"])) == sorted(admissions["hadm_id"])
    for query, part in sets.groupby("query_hadm_id"):
        assert part["position"].tolist() == list(range(size))
        assert part.loc[part["is_positive"], "candidate_hadm_id"].tolist() == [query]
        negatives = part.loc[~part["is_positive"], "candidate_hadm_id"]
        assert subject[query] not in set(subject[negatives]), "never another admission of the same patient"
        assert image[part["candidate_hadm_id"]].is_unique, "never the same image twice"


def test_the_positive_stands_anywhere():
    sets = draw_candidates(pool(range(2000)), "test", 10, 0)
    counts = sets.loc[sets["is_positive"], "position"].value_counts()
    assert len(counts) == 10
    assert (abs(counts - 200) < 5 * np.sqrt(200)).all(), counts.to_dict()


def test_negatives_are_drawn_evenly():
    sets = draw_candidates(pool(range(100)), "test", 10, 0)
    counts = sets.loc[~sets["is_positive"], "candidate_hadm_id"].value_counts()
    assert counts.sum() == 900
    assert counts.max() < 9 + 6 * 3


def test_the_order_of_the_rows_does_not_matter_but_the_seed_does():
    admissions = pool(range(20))
    first = draw_candidates(admissions, "test", 5, 3)
    assert first.equals(draw_candidates(admissions.iloc[::-1], "test", 5, 3))
    assert not first.equals(draw_candidates(admissions, "test", 5, 4))


def test_only_the_split_itself_is_drawn_from():
    admissions = pool(range(20))
    admissions.loc[::2, "split"] = "val"
    sets = draw_candidates(admissions, "val", 5, 0)
    assert set(sets["candidate_hadm_id"]) <= set(admissions.loc[::2, "hadm_id"])
    assert (sets["split"] == "val").all()


def test_too_few_patients_are_an_error_that_says_what_to_do():
    with pytest.raises(InputError) as caught:
        draw_candidates(pool([1, 1, 1, 2, 3]), "test", 4, 0)
    message = str(caught.value)
    assert "split 'test' has 5 admissions of 3 patients" in message
    assert "cohort.candidates = 4 needs 3" in message
    assert "Use more admissions, a larger cohort.test_fraction, or fewer candidates" in message


def test_an_empty_split_is_an_error_that_names_it():
    with pytest.raises(InputError, match=r"split 'val' has no admissions.*cohort\.val_fraction"):
        draw_candidates(pool(range(5)), "val", 2, 0)


def test_an_image_that_two_patients_share_is_never_beside_itself():
    """MIMIC's paths name the patient and a manifest may not do this; the draw does not rely on it."""
    admissions = pool([1, 2, 3, 4], ["shared", "shared", "c", "d"])
    image = admissions.set_index("hadm_id")["cxr_path"]
    sets = draw_candidates(admissions, "test", 3, 0)
    assert all(image[part["candidate_hadm_id"]].is_unique for _, part in sets.groupby("query_hadm_id"))

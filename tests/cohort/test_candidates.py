"""Candidate sets: drawn, repaired after losses, taken over from a release."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinical_symile.cohort.candidates import adopt_candidates, draw_candidates, repair_candidates
from clinical_symile.errors import InputError


def pool(subjects, images=None) -> pd.DataFrame:
    n = len(subjects)
    paths = [f"{image}.jpg" for image in (images or range(n))]
    return pd.DataFrame({"hadm_id": np.arange(100, 100 + n), "subject_id": subjects, "split": "test", "cxr_path": paths})


def test_the_sets_of_a_seed_are_frozen():
    """Golden: another draw would make every published figure a figure of other sets. Made with the first version of the draw
    (commit a30b706, clinical_symile/cohort/splits.py), which looked at the whole split for each query, by these very lines.
    """
    n = 60
    columns = {"hadm_id": np.arange(20_000_000, 20_000_000 + n), "subject_id": np.arange(n) // 2 + 10_000_000, "split": "test"}
    sets = draw_candidates(pd.DataFrame(columns | {"cxr_path": [f"{k % 50}.jpg" for k in range(n)]}), "test", 4, 7)
    assert (sets["candidate_hadm_id"] - 20_000_000).tolist()[:12] == [9, 55, 0, 6, 1, 23, 49, 4, 2, 49, 30, 10]
    digest = hashlib.sha256(sets.to_csv(index=False).encode()).hexdigest()
    assert digest == "d1481247eded68aa89818250a134118d671d9f964fa9faa4917ebe169e7c8199"


def slowly(admissions: pd.DataFrame, size: int, seed: int) -> list[list[int]]:
    """The definition: of the whole split in drawn order, other patients and other images, the first of each image."""
    rows = admissions.sort_values("hadm_id").to_dict("records")
    sets = []
    for own in rows:
        rng = np.random.default_rng([seed, own["hadm_id"]])
        order = [rows[number] for number in rng.permutation(len(rows))]
        others = [row for row in order if row["subject_id"] != own["subject_id"] and row["cxr_path"] != own["cxr_path"]]
        firsts = [row["hadm_id"] for k, row in enumerate(others) if row["cxr_path"] not in {o["cxr_path"] for o in others[:k]}]
        members = firsts[: size - 1]
        members.insert(int(rng.integers(size)), own["hadm_id"])
        sets.append(members)
    return sets


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=2, max_size=40), st.integers(2, 5), st.integers(0, 2**31), st.integers(1, 40))
def test_the_fast_draw_is_the_slow_one(subjects, size, seed, images):
    admissions = pool(subjects, [number % images for number in range(len(subjects))])
    slow = slowly(admissions, size, seed)
    if any(len(members) < size for members in slow):
        with pytest.raises(InputError, match="X-rays of other patients"):
            draw_candidates(admissions, "test", size, seed)
        return
    sets = draw_candidates(admissions, "test", size, seed)
    assert sets["candidate_hadm_id"].to_numpy().reshape(-1, size).tolist() == slow


def test_sets_of_some_queries_only_are_the_same_sets():
    admissions = pool(range(30))
    everyone = draw_candidates(admissions, "test", 5, 1)
    some = draw_candidates(admissions, "test", 5, 1, queries={103, 117})
    pd.testing.assert_frame_equal(some, everyone[everyone["query_hadm_id"].isin([103, 117])].reset_index(drop=True))


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
    repaired, dropped, *_ = repair_candidates(sets, left, seed, picture="cxr_sha256")
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
    repaired, dropped, *_ = repair_candidates(sets, everyone[everyone.hadm_id != 19], seed=0, picture="cxr_sha256")
    assert dropped == 1
    pd.testing.assert_frame_equal(repaired, sets[sets.query_hadm_id != 19].reset_index(drop=True))


def test_a_set_that_cannot_be_filled_is_dropped() -> None:
    everyone = cohort(4, 4, 4)
    left = everyone[everyone.hadm_id != 3]
    repaired, dropped, *_ = repair_candidates(sets_of(everyone, 4), left, seed=0, picture="cxr_sha256")
    assert dropped == 4
    assert repaired.empty


def test_an_equal_picture_under_another_name_is_replaced() -> None:
    """Only the digests, after ``prepare``, show that two files hold the same picture."""
    everyone = cohort(20, 20, 20)
    sets = sets_of(everyone, 4)
    equal = everyone.assign(cxr_sha256=everyone["cxr_sha256"].replace({"i2": "i1", "i3": "i5"}))
    repaired = repair_candidates(sets, equal, seed=0, picture="cxr_sha256")
    picture = equal.set_index("hadm_id")["cxr_sha256"]
    assert all(picture[part["candidate_hadm_id"]].is_unique for _, part in repaired.sets.groupby("query_hadm_id"))
    assert (repaired.sets[repaired.sets["is_positive"]]["candidate_hadm_id"] == np.arange(20)).all(), "the query itself stays"
    twice = [q for q, part in sets.groupby("query_hadm_id") if picture[part["candidate_hadm_id"]].duplicated().any()]
    assert repaired.refilled == len(twice) > 0
    assert (repaired.dropped, repaired.with_equal_pictures) == (0, 0)
    untouched = ~sets["query_hadm_id"].isin(twice)
    pd.testing.assert_frame_equal(repaired.sets[untouched], sets[untouched])
    kept = repair_candidates(sets, equal, seed=0, picture="cxr_sha256", keep_equal_pictures=True)
    pd.testing.assert_frame_equal(kept.sets, sets)
    assert (kept.refilled, kept.with_equal_pictures) == (0, len(twice))


def released(admissions: pd.DataFrame, size: int) -> pd.DataFrame:
    """Sets as the release has them: all positives first, then negatives, whoever's they are."""
    sets = []
    for split, part in admissions.groupby("split"):
        ids = part["hadm_id"].to_numpy()
        sets.append(pd.DataFrame({"split": split, "query_hadm_id": ids, "candidate_hadm_id": ids, "is_positive": True}))
        for place in range(len(ids)):
            members = {"candidate_hadm_id": np.roll(ids, -place)[1:size], "is_positive": False}
            sets.append(pd.DataFrame({"split": split, "query_hadm_id": ids[place]} | members))
    return pd.concat(sets, ignore_index=True)


def val_and_test(n: int) -> pd.DataFrame:
    return pool(range(n)).assign(split=["val", "test"] * (n // 2))


def test_released_sets_are_kept_with_the_positive_anywhere():
    admissions = val_and_test(400)
    sets, counts = adopt_candidates(released(admissions, 5), admissions, 5, 0)
    for query, part in released(admissions, 5).groupby("query_hadm_id"):
        ours = sets[sets["query_hadm_id"] == query]
        assert ours["position"].tolist() == [0, 1, 2, 3, 4]
        negatives = part.loc[~part["is_positive"], "candidate_hadm_id"].tolist()
        assert ours.loc[~ours["is_positive"], "candidate_hadm_id"].tolist() == negatives, "in the order of the file"
        assert ours.loc[ours["is_positive"], "candidate_hadm_id"].tolist() == [query]
    places = sets.loc[sets["is_positive"], "position"].value_counts()
    assert (abs(places - 80) < 5 * np.sqrt(80)).all(), places.to_dict()
    assert counts["val"] == {
        "as_released": 200,
        "refilled": 0,
        "drawn": 0,
        "with_another_xray_of_the_same_patient": 0,
        "with_the_same_xray_twice": 0,
    }


def test_what_a_released_set_misses_is_drawn_and_the_rest_stays():
    admissions = val_and_test(60)
    sets = released(admissions, 5)
    left = admissions[admissions["hadm_id"] != 110]
    sets = sets[(sets["query_hadm_id"] != 110) & (sets["query_hadm_id"] != 121)]  # 121 has no set at all
    sets.loc[sets["candidate_hadm_id"] == 110, "candidate_hadm_id"] = -1
    adopted, counts = adopt_candidates(sets, left, 5, 3)
    assert sorted(set(adopted["query_hadm_id"])) == left["hadm_id"].tolist()
    assert adopted["candidate_hadm_id"].isin(left["hadm_id"]).all()
    assert (adopted.groupby("query_hadm_id").size() == 5).all()
    assert not adopted.duplicated(["query_hadm_id", "candidate_hadm_id"]).any()
    assert (counts["val"]["as_released"], counts["val"]["refilled"], counts["val"]["drawn"]) == (25, 4, 0)
    assert (counts["test"]["as_released"], counts["test"]["refilled"], counts["test"]["drawn"]) == (29, 0, 1)
    drawn = draw_candidates(left, "test", 5, 3, [121])
    pd.testing.assert_frame_equal(adopted[adopted["query_hadm_id"] == 121].reset_index(drop=True)[drawn.columns.tolist()], drawn)


def test_what_ours_never_hold_is_counted_in_released_sets():
    admissions = val_and_test(40).assign(subject_id=lambda frame: frame["hadm_id"] // 4)
    admissions.loc[[1, 3], "cxr_path"] = "shared.jpg"  # neighbours in test
    _, counts = adopt_candidates(released(admissions, 3), admissions, 3, 0)
    assert counts["val"]["with_another_xray_of_the_same_patient"] == 10
    assert counts["test"]["with_the_same_xray_twice"] == 2
    assert counts["val"]["with_the_same_xray_twice"] == 0

"""Patient-disjoint splits: fractions, exact sizes, strata, and how little moves when patients are added."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from clinical_symile.cohort.splits import assign_split, assign_splits
from clinical_symile.config import CohortConfig
from clinical_symile.errors import InputError


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


def patients(admissions, strata=None, first: int = 10_000_000) -> pd.DataFrame:
    subjects = [str(first + number) for number in range(len(admissions))]
    return pd.DataFrame({"subject": subjects, "admissions": admissions, "stratum": strata or ""}, index=None)


def totals(table: pd.DataFrame, splits: dict) -> dict[str, int]:
    """Admissions of each split."""
    return table.groupby(table["subject"].map(splits).fillna("none"))["admissions"].sum().to_dict()


def test_without_sizes_and_strata_the_splits_are_those_of_the_hash():
    """Golden: made with the first version of ``assign_split`` (commit a30b706).

    python -c "import hashlib; from clinical_symile.cohort.splits import assign_split as s
    print(hashlib.sha256(' '.join(s(str(k), 3, .15, .25) for k in range(10_000_000, 10_000_400)).encode()).hexdigest())"
    """
    found = assign_splits(patients([1, 2] * 200), CohortConfig(seed=3))
    digest = hashlib.sha256(" ".join(str(found[str(k)]) for k in range(10_000_000, 10_000_400)).encode()).hexdigest()
    assert digest == "44b734dd3be5f4e199f4aa0c9aaf37770e6444029196544d124d175b235c95a5"


def first_fit(table: pd.DataFrame, seed: int, sizes: dict[str, int]) -> dict[str, str]:
    """The rule for sizes, once more: in the order of the hash, each patient to the first split with room."""

    def place(subject: str) -> tuple[int, str]:
        return int.from_bytes(hashlib.sha256(f"{seed}:{subject}".encode()).digest()[:8], "big"), subject

    left, found = dict(sizes), {}
    for row in sorted(table.to_dict("records"), key=lambda row: place(row["subject"])):
        found[row["subject"]] = next((split for split, room in left.items() if row["admissions"] <= room), "train")
        if found[row["subject"]] in left:
            left[found[row["subject"]]] -= row["admissions"]
    return found


ADMISSIONS = st.lists(st.sampled_from([1, 1, 1, 1, 1, 2, 2, 3, 5]), min_size=40, max_size=90)


@settings(max_examples=60, deadline=None)
@given(ADMISSIONS, st.integers(1, 15), st.integers(1, 15), st.integers(0, 99), st.randoms(use_true_random=False))
def test_sizes_are_exact_by_first_fit_whatever_the_order_of_the_rows(admissions, val, test, seed, shuffler):
    table = patients(admissions)
    rules = CohortConfig(val_size=val, test_size=test, seed=seed)
    expected = first_fit(table, seed, {"test": test, "val": val})
    exact = {split: totals(table, expected).get(split) for split in ("val", "test")} == {"val": val, "test": test}
    shuffled = table.sample(frac=1, random_state=shuffler.randrange(2**31))
    if not exact:
        with pytest.raises(InputError, match=r"cannot be met exactly: \d+ admissions are in"):
            assign_splits(shuffled, rules)
        return
    assert assign_splits(shuffled, rules) == expected


@settings(max_examples=100, deadline=None)
@given(ADMISSIONS, st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(0, 99), st.booleans())
def test_sizes_move_no_more_patients_than_is_proved(admissions, added, seed, with_train):
    """The bound in the docstring of ``splits.py``; A admissions are added, W is the largest patient."""
    table, new = patients(admissions), patients(added, first=90_000_000)
    rules = CohortConfig(val_size=6, test_size=9, train_size=12 if with_train else None, seed=seed)
    try:
        before, after = assign_splits(table, rules), assign_splits(pd.concat([table, new]), rules)
    except InputError:
        assume(False)
    a, w = sum(added), max(*admissions, *added)
    bound = 3 * a + 12 * (w - 1) if with_train else 2 * a + 7 * (w - 1)
    assert sum(before[subject] != after[subject] for subject in before) <= bound


def test_the_bound_is_tight_for_patients_with_one_admission():
    """One more patient at the front of test pushes one into val, and that one pushes one into train."""
    table = patients([1] * 200)
    rules = CohortConfig(val_size=40, test_size=60)
    before = assign_splits(table, rules)
    moved = []
    for number in range(200):
        after = assign_splits(pd.concat([table, patients([1], first=80_000_000 + number)]), rules)
        moved.append(sum(before[subject] != after[subject] for subject in before))
    assert set(moved) == {0, 1, 2}


@settings(max_examples=40, deadline=None)
@given(ADMISSIONS, st.integers(1, 6), st.integers(0, 99))
def test_fractions_move_nobody(admissions, added, seed):
    table, rules = patients(admissions), CohortConfig(seed=seed)
    before, after = assign_splits(table, rules), assign_splits(pd.concat([patients([1] * added, first=90_000_000), table]), rules)
    assert all(after[subject] == split for subject, split in before.items())


def test_a_size_beside_a_fraction_takes_what_the_fraction_leaves():
    table = patients([1, 1, 2] * 200)
    both = assign_splits(table, CohortConfig(test_fraction=0.25))
    found = assign_splits(table, CohortConfig(test_fraction=0.25, val_size=77))
    assert {subject for subject, split in found.items() if split == "test"} == {s for s, split in both.items() if split == "test"}
    assert totals(table, found)["val"] == 77
    larger = assign_splits(
        pd.concat([table, patients([1] * 50, first=90_000_000)]), CohortConfig(test_fraction=0.25, val_size=77)
    )
    assert all((larger[subject] == "test") == (split == "test") for subject, split in found.items())


def test_what_is_beyond_the_size_of_train_is_in_no_split():
    """The release: 10,000 + 750 + 464 of 11,622 admissions, 408 in no split."""
    admissions = [1] * 8_000 + [2] * 1_200 + [3] * 274 + [4] * 100
    table = patients(admissions)
    found = assign_splits(table, CohortConfig(train_size=10_000, val_size=750, test_size=464))
    assert totals(table, found) == {"train": 10_000, "val": 750, "test": 464, "none": sum(admissions) - 11_214}


@pytest.mark.parametrize(
    ("admissions", "sizes", "message"),
    [
        (
            [1] * 10,
            {"val_size": 6, "test_size": 6},
            "cohort.test_size = 6 and cohort.val_size = 6 ask for 12 admissions, but only 10",
        ),
        ([1] * 10, {"val_size": 5, "test_size": 5}, "leave none of 10 admissions to train on"),
        ([2] * 10, {"val_size": 3, "test_size": 4}, "cohort.val_size = 3 cannot be met exactly: 2 admissions are in"),
        ([1] * 10, {"val_size": 2, "test_size": 2, "train_size": 7}, "cohort.train_size = 7 ask for 7 admissions, but only 6"),
    ],
)
def test_a_size_that_cannot_be_met_says_so(admissions, sizes, message):
    with pytest.raises(InputError) as caught:
        assign_splits(patients(admissions), CohortConfig(**sizes))
    assert message in str(caught.value)


STRATA = st.lists(st.sampled_from("aaaaaabbbccd"), min_size=20, max_size=120)


@settings(max_examples=60, deadline=None)
@given(STRATA, st.integers(0, 99), st.floats(0.05, 0.5), st.floats(0.05, 0.4), st.randoms(use_true_random=False))
def test_strata_have_their_fraction_of_each_split(strata, seed, val, test, shuffler):
    table = patients([shuffler.choice([1, 2, 5]) for _ in strata], strata)
    rules = CohortConfig(val_fraction=val, test_fraction=test, seed=seed, stratify_by=["gender"])
    found = assign_splits(table.sample(frac=1, random_state=shuffler.randrange(2**31)), rules)
    split = table["subject"].map(found)
    fractions = {"train": 1 - val - test, "val": val, "test": test}
    for name, fraction in fractions.items():
        total = int((split == name).sum())
        assert abs(total - fraction * len(table)) < 1, "the fraction of all patients, to rounding"
        for stratum, part in table.groupby("stratum"):
            assert abs((split[part.index] == name).sum() - total * len(part) / len(table)) < 1, (stratum, name)
    assert found == assign_splits(table, rules)


@settings(max_examples=60, deadline=None)
@given(STRATA, st.integers(0, 99), st.integers(1, 8), st.integers(1, 8))
def test_strata_have_their_share_of_each_size(strata, seed, val, test):
    table = patients([1] * len(strata), strata)
    found = assign_splits(table, CohortConfig(val_size=val, test_size=test, seed=seed, stratify_by=["gender"]))
    split = table["subject"].map(found)
    assert totals(table, found) == {"val": val, "test": test, "train": len(table) - val - test}
    for name, size in {"train": len(table) - val - test, "val": val, "test": test}.items():
        for _, part in table.groupby("stratum"):
            assert abs((split[part.index] == name).sum() - size * len(part) / len(table)) < 1


@settings(max_examples=60, deadline=None)
@given(STRATA, st.integers(0, 99), st.randoms(use_true_random=False))
def test_strata_of_patients_with_several_admissions_come_close_and_sizes_stay_exact(strata, seed, shuffler):
    table = patients([shuffler.choice([1, 1, 1, 2, 3]) for _ in strata], strata)
    n = int(table["admissions"].sum())
    rules = CohortConfig(val_size=n // 8, test_size=n // 5, seed=seed, stratify_by=["gender"])
    try:
        found = assign_splits(table, rules)
    except InputError:  # no patient fits into the last gap
        assume(False)
    split = table["subject"].map(found)
    for name, size in {"val": n // 8, "test": n // 5}.items():
        assert totals(table, found).get(name, 0) == size
        for _, part in table.groupby("stratum"):
            held = part.loc[split[part.index] == name, "admissions"].sum()
            assert abs(held - size * part["admissions"].sum() / n) < 1 + 2 * 3


@settings(max_examples=60, deadline=None)
@given(STRATA, st.lists(st.sampled_from("abcde"), min_size=1, max_size=5), st.integers(0, 99), st.booleans())
def test_strata_move_few_patients(strata, added, seed, by_size):
    """The bound in the docstring of ``splits.py``: A patients are added, S is the number of strata."""
    table = patients([1] * len(strata), strata)
    sizes = {"val_size": 4, "test_size": 6} if by_size else {}
    rules = CohortConfig(**sizes, seed=seed, stratify_by=["gender"])
    after = assign_splits(pd.concat([table, patients([1] * len(added), added, first=90_000_000)]), rules)
    before = assign_splits(table, rules)
    a, s = len(added), len(set(strata) | set(added))
    bound = 6 * a + 4 * s if by_size else 8 * a + 4 * s + 4
    assert sum(before[subject] != after[subject] for subject in before) <= bound


def test_within_a_stratum_patients_are_taken_in_the_order_of_their_hash():
    table = patients([1] * 300, ["a", "b", "b"] * 100)
    found = assign_splits(table, CohortConfig(stratify_by=["gender"], seed=5))
    for _, part in table.groupby("stratum"):
        place = {s: hashlib.sha256(f"5:{s}".encode()).digest() for s in part["subject"]}
        assert [found[s] for s in sorted(place, key=place.__getitem__)] == sorted(
            (found[s] for s in place), key=["test", "val", "train"].index
        )

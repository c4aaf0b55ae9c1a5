"""Candidate sets for retrieval: drawn, repaired, or taken over from a release."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import chain
from typing import Final, NamedTuple

import numpy as np
import pandas as pd

from clinical_symile.errors import InputError
from clinical_symile.types import Split

_COLUMNS: Final = ["split", "query_hadm_id", "position", "candidate_hadm_id", "is_positive"]


def draw_candidates(
    admissions: pd.DataFrame, split: Split, size: int, seed: int, queries: Collection[int] | None = None
) -> pd.DataFrame:
    """A candidate set for each admission of a split: its own X-ray and ``size - 1`` others, in random order.

    The others are drawn without replacement from the same split, never another admission of the same patient, and no two
    candidates share an image. Each set has a generator of its own, seeded by ``seed`` and the admission.

    Args:
        admissions: columns hadm_id, subject_id, split, cxr_path.
        split: the split to draw for.
        size: X-rays in a set, the positive included.
        seed: of the cohort.
        queries: hadm_ids of the split that get a set; all of them by default. The others' sets are the same with and without.

    Returns:
        Columns split, query_hadm_id, position (0 … size-1), candidate_hadm_id, is_positive.

    Raises:
        InputError: the split has too few patients for such sets.
    """
    pool = admissions[admissions["split"] == split].sort_values("hadm_id")
    if pool.empty:
        raise InputError(f"split '{split}' has no admissions; use more admissions or a larger cohort.{split}_fraction")
    hadm_ids = pool["hadm_id"].to_numpy()
    asked = range(len(pool)) if queries is None else np.flatnonzero(np.isin(hadm_ids, list(queries))).tolist()
    subjects, images = (pd.factorize(pool[column])[0].tolist() for column in ("subject_id", "cxr_path"))
    sets = np.empty((len(asked), size), dtype=np.int64)
    for row, own in enumerate(asked):
        rng = np.random.default_rng([seed, int(hadm_ids[own])])
        order = rng.permutation(len(pool))
        # Almost always the first few will do, and to make a list of all of them would take most of the time.
        drawn = chain(order[: 2 * size].tolist(), (int(member) for member in order[2 * size :]))
        others = _first_fit(drawn, own, subjects, images, size - 1)
        if len(others) < size - 1:
            raise InputError(
                f"split '{split}' has {len(pool)} admissions of {len(set(subjects))} patients: one of them has only "
                f"{len(others)} X-rays of other patients to stand beside it, but cohort.candidates = {size} needs {size - 1}. "
                f"Use more admissions, a larger cohort.{split}_fraction, or fewer candidates"
            )
        others.insert(int(rng.integers(size)), own)
        sets[row] = others
    owners = np.repeat(np.asarray(asked, dtype=np.int64), size)
    members = sets.reshape(-1)
    return pd.DataFrame(
        {
            "split": split,
            "query_hadm_id": hadm_ids[owners],
            "position": np.tile(np.arange(size, dtype=np.int64), len(asked)),
            "candidate_hadm_id": hadm_ids[members],
            "is_positive": members == owners,
        }
    )


class Repaired(NamedTuple):
    """Candidate sets among the admissions that are left.

    Attributes:
        sets: in the columns and order of those that were given.
        dropped: how many sets are no longer there.
        refilled: how many sets have other negatives than before.
        with_equal_pictures: how many sets show a picture twice; always 0 if those are replaced.
    """

    sets: pd.DataFrame
    dropped: int
    refilled: int
    with_equal_pictures: int


def repair_candidates(
    sets: pd.DataFrame, admissions: pd.DataFrame, seed: int, *, picture: str, keep_equal_pictures: bool = False
) -> Repaired:
    """Candidate sets after some admissions were lost, or some pictures turned out to be equal.

    A set whose query is lost is dropped. A negative that is lost, or whose picture is that of the query or of a negative
    before it, is replaced by another admission of the same split, of another patient than the query's and with another picture
    than any in the set, drawn by a generator that the seed and the query alone determine, so that one lost admission does not
    move the other sets. A set that cannot be filled is dropped.

    Args:
        sets: columns split, query_hadm_id, position, candidate_hadm_id, is_positive.
        admissions: the admissions left; columns hadm_id, subject_id, split and ``picture``.
        seed: of the cohort.
        picture: the column that tells pictures apart, a path or a digest.
        keep_equal_pictures: leave equal pictures where they are: the sets are somebody else's, and are to be the same.
    """
    left = admissions.set_index("hadm_id")
    sets = sets.sort_values(["split", "query_hadm_id", "position"], ignore_index=True)
    asked = sets["query_hadm_id"].isin(left.index)
    wanted = sets[asked].reset_index(drop=True)
    gone = ~wanted["candidate_hadm_id"].isin(left.index)
    shown = wanted.assign(picture=wanted["candidate_hadm_id"].map(left[picture]))[~gone]
    shown = shown.sort_values("is_positive", ascending=False, kind="stable")
    equal = shown.duplicated(["split", "query_hadm_id", "picture"]).reindex(wanted.index, fill_value=False)
    keys = ["split", "query_hadm_id"]
    doubtful = len(wanted.loc[equal, keys].drop_duplicates()) if keep_equal_pictures else 0
    if not keep_equal_pictures:
        gone |= equal
    pools = dict(iter(left.groupby("split")))
    dropped = len(sets.loc[~asked, keys].drop_duplicates())
    unfilled, refilled = [], 0
    for (split, query), rows in wanted[wanted.index.isin(_rows_of_sets(wanted, gone))].groupby(keys).groups.items():
        lost = gone[rows]
        found = _replacements(pools[split], wanted.loc[rows[~lost], "candidate_hadm_id"], query, seed, int(lost.sum()), picture)
        if found is None:
            unfilled.extend(rows)
        else:
            wanted.loc[rows[lost], "candidate_hadm_id"] = found
            refilled += 1
    dropped += len(wanted.loc[unfilled, keys].drop_duplicates())
    repaired = wanted.drop(index=unfilled).reset_index(drop=True)
    return Repaired(repaired.astype(sets.dtypes.to_dict()), dropped, refilled, doubtful)


class Adopted(NamedTuple):
    """Candidate sets that somebody else drew.

    Attributes:
        sets: one for each admission of val and test.
        counts: split -> what became of the sets, and how many of those that are kept have negatives that ours never have.
    """

    sets: pd.DataFrame
    counts: dict[str, dict[str, int]]


def adopt_candidates(released: pd.DataFrame, admissions: pd.DataFrame, size: int, seed: int) -> Adopted:
    """Takes over released sets as they are, mends those that miss a member, and draws those that are missing.

    The negatives keep their order. The positive, which the release puts first in every set, goes to a place that the seed and
    the query determine, as in sets that are drawn.

    Args:
        released: columns split, query_hadm_id, candidate_hadm_id, is_positive, in the order of the files. Each set is of an
            admission of its split and has ``size`` rows; members that are not among the admissions are -1.
        admissions: columns hadm_id, subject_id, split, cxr_path.
        size: X-rays in a set, the positive included.
        seed: of the cohort.

    Raises:
        InputError: a split has too few patients for the sets that must be drawn.
    """
    placed = _place_positives(released, seed)
    repaired = repair_candidates(placed, admissions, seed, picture="cxr_path", keep_equal_pictures=True)
    incomplete = set(placed.loc[placed["candidate_hadm_id"] == -1, "query_hadm_id"])
    known = admissions.set_index("hadm_id")
    parts, counts = [], {}
    for split in ("val", "test"):
        kept = repaired.sets[repaired.sets["split"] == split]
        own = known.index[known["split"] == split]
        there = set(kept["query_hadm_id"])
        missing = set(own) - there
        if missing or not len(own):  # of an empty split, draw_candidates says so
            parts.append(draw_candidates(admissions, split, size, seed, missing))
        parts.append(kept)
        negatives = kept[~kept["is_positive"]]
        query, member = (known.loc[negatives[column]] for column in ("query_hadm_id", "candidate_hadm_id"))
        same_patient = query["subject_id"].to_numpy() == member["subject_id"].to_numpy()
        pictures = kept.assign(picture=known.loc[kept["candidate_hadm_id"], "cxr_path"].to_numpy())
        twice = pictures.loc[pictures.duplicated(["query_hadm_id", "picture"]), "query_hadm_id"]
        counts[split] = {
            "as_released": len(there - incomplete),
            "refilled": len(there & incomplete),
            "drawn": len(missing),
            "with_another_xray_of_the_same_patient": int(negatives.loc[same_patient, "query_hadm_id"].nunique()),
            "with_the_same_xray_twice": int(twice.nunique()),
        }
    sets = pd.concat(parts)[_COLUMNS].sort_values(["split", "query_hadm_id", "position"], ignore_index=True)
    return Adopted(sets, counts)


def _first_fit(drawn: Iterable[int], own: int, subjects: list[int], images: list[int], count: int) -> list[int]:
    """The first ``count`` of other patients and with images of their own."""
    taken, found = {images[own]}, []
    for member in drawn:
        if subjects[member] != subjects[own] and images[member] not in taken:
            taken.add(images[member])
            found.append(member)
            if len(found) == count:
                break
    return found


def _rows_of_sets(sets: pd.DataFrame, marked: pd.Series) -> pd.Index:
    """All rows of the sets that have a marked row."""
    touched = pd.MultiIndex.from_frame(sets.loc[marked, ["split", "query_hadm_id"]].drop_duplicates())
    return sets.index[pd.MultiIndex.from_frame(sets[["split", "query_hadm_id"]]).isin(touched)]


def _replacements(pool: pd.DataFrame, present: pd.Series, query: int, seed: int, count: int, picture: str) -> list[int] | None:
    """``count`` admissions that may stand beside those that are present; None if there are not so many."""
    taken_pictures = set(pool.loc[present, picture])
    taken = set(present)
    own = pool.loc[query, "subject_id"]
    found: list[int] = []
    order = np.random.default_rng([seed, int(query)]).permutation(len(pool))
    hadm_ids, subjects, pictures = pool.index.to_numpy(), pool["subject_id"].to_numpy(), pool[picture].to_numpy()
    for position in order:
        if len(found) == count:
            break
        if hadm_ids[position] in taken or subjects[position] == own or pictures[position] in taken_pictures:
            continue
        taken_pictures.add(pictures[position])
        found.append(int(hadm_ids[position]))
    return found if len(found) == count else None


def _place_positives(released: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Numbers the positions of each set: the negatives in their order, the positive at a seeded place among them."""
    sets = released.sort_values(["split", "query_hadm_id", "is_positive"], kind="stable", ignore_index=True)
    position = sets.groupby(["split", "query_hadm_id"]).cumcount().to_numpy()
    size = sets.groupby(["split", "query_hadm_id"])["is_positive"].transform("size").to_numpy()
    queries = sets["query_hadm_id"].to_numpy()
    places = {query: np.random.default_rng([seed, query]).integers(n) for query, n in zip(queries, size, strict=True)}
    place = np.array([places[query] for query in queries], dtype=np.int64)
    positive = sets["is_positive"].to_numpy()
    return sets.assign(position=np.where(positive, place, position + (position >= place)).astype(np.int64))

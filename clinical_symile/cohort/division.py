"""The chosen admissions, divided: a split for each, candidate sets for val and test, and an account of how it was done."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from clinical_symile.cohort import schema
from clinical_symile.cohort.attrition import Attrition
from clinical_symile.cohort.candidates import adopt_candidates, draw_candidates
from clinical_symile.cohort.split_files import (
    SplitFiles,
    canonical_id,
    find_split_files,
    read_split_files,
    require_whole_patients,
)
from clinical_symile.cohort.splits import assign_splits
from clinical_symile.cohort.strata import name_strata
from clinical_symile.config import CohortConfig
from clinical_symile.errors import InputError
from clinical_symile.types import SPLITS

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Division:
    """A divided cohort.

    Attributes:
        admissions: those in a split, with the column ``split``.
        candidates: columns of ``schema.CANDIDATES``.
        facts: for the manifest: where the splits came from, and counts. Empty for fractions.
        strata: one row per stratum: its name, its patients and admissions in each split. None without strata.
        absent: admissions of the split files that are not in the cohort: file, row, split, hadm_id. None without split files.
    """

    admissions: pa.Table
    candidates: pa.Table
    facts: dict[str, Any] = field(default_factory=dict)
    strata: pd.DataFrame | None = None
    absent: pd.DataFrame | None = None


def split_tables(rules: CohortConfig) -> dict[str, Path]:
    """The split files that ``rules`` name, with names for the stage's inputs; none for the seeded rules.

    Raises:
        InputError: one is missing.
    """
    if rules.splits_from is None:
        return {}
    return {f"splits {name}": file for name, file in find_split_files(rules.splits_from.expanduser().resolve()).items()}


def divide(chosen: pa.Table, rules: CohortConfig, attrition: Attrition) -> Division:
    """Divides the admissions by the seeded rules or by split files; admissions without a split leave, as a step of the attrition.

    Args:
        chosen: the admissions that fulfil the rules.
        rules: of splits and candidates.
        attrition: receives a step if an admission may be without a split.

    Raises:
        InputError: a split is too small, its size cannot be met, or a split file is not what it should be.
    """
    if rules.splits_from is not None:
        return _divide_by_files(chosen, rules, attrition)
    frame = chosen.to_pandas()
    # By the hospital's own id: the number that stands for it may change when other patients are added.
    ids = zip(chosen["subject_key"].to_pylist(), chosen["subject_id"].to_pylist(), strict=True)
    subjects = [str(number) if key is None else str(int(key)) if key.isdecimal() else key for key, number in ids]
    frame = frame.assign(subject=subjects, stratum=name_strata(frame, rules.stratify_by))
    patients = frame.sort_values(["admittime", "hadm_id"]).groupby("subject", sort=True, as_index=False)
    patients = patients.agg(admissions=("hadm_id", "size"), stratum=("stratum", "first"))
    split_of = assign_splits(patients, rules)
    splits = [split_of[subject] for subject in subjects]
    if rules.train_size is not None:
        reason = f"train holds its {rules.train_size} admissions (cohort.train_size)"
        attrition.keep("in a split", len(splits) - splits.count(None), reason)
    admissions = _with_splits(chosen, splits)
    strata = _count_strata(patients.assign(split=patients["subject"].map(split_of))) if rules.stratify_by else None
    if strata is not None:
        # Counts of a stratum may be of a handful of patients: they stay in the file.
        logger.info("cohort: splits are alike in %s; %d strata, see strata.json", ", ".join(rules.stratify_by), len(strata))
    return Division(admissions, _drawn(admissions, rules), strata=strata)


def _with_splits(chosen: pa.Table, splits: list[Any]) -> pa.Table:
    table = chosen.append_column("split", pa.array(splits, pa.string()))
    return table.filter(pc.is_valid(table["split"]))


def _for_candidates(admissions: pa.Table) -> pd.DataFrame:
    return admissions.select(["hadm_id", "subject_id", "split", "cxr_path"]).to_pandas()


def _drawn(admissions: pa.Table, rules: CohortConfig) -> pa.Table:
    """Candidate sets of val and test; none for a cohort without X-rays."""
    if "cxr" not in rules.require:
        return schema.CANDIDATES.empty_table()
    frame = _for_candidates(admissions)
    sets = [draw_candidates(frame, split, rules.candidates, rules.seed) for split in SPLITS if split != "train"]
    return pa.Table.from_pandas(pd.concat(sets), preserve_index=False)


def _count_strata(patients: pd.DataFrame) -> pd.DataFrame:
    split = patients["split"].fillna("none")
    counts = {"stratum": sorted(set(patients["stratum"]))}
    for name in (*SPLITS, *(["none"] if (split == "none").any() else [])):
        part = patients[split == name].groupby("stratum")["admissions"]
        counts[f"{name}_patients"] = part.size().reindex(counts["stratum"], fill_value=0).tolist()
        counts[f"{name}_admissions"] = part.sum().reindex(counts["stratum"], fill_value=0).tolist()
    return pd.DataFrame(counts)


def _divide_by_files(chosen: pa.Table, rules: CohortConfig, attrition: Attrition) -> Division:
    files = {name.removeprefix("splits "): file for name, file in split_tables(rules).items()}
    found = read_split_files(files)
    size = found.set_size()
    if size is not None and size != rules.candidates and "cxr" in rules.require:
        raise InputError(
            f"{files['train'].parent}: the sets of {' and '.join(found.set_files.values())} have {size} candidates, but "
            f"cohort.candidates = {rules.candidates}; set cohort.candidates = {size}"
        )
    hadm_ids = chosen["hadm_id"].to_pylist()
    number_of = dict(zip(_own_ids(chosen, "hadm"), hadm_ids, strict=True))
    subject_of = dict(zip(hadm_ids, _own_ids(chosen, "subject"), strict=True))
    members = found.members.assign(hadm_id=_numbers(found.members["hadm"], number_of))
    ours = members[members["hadm_id"].notna()].astype({"hadm_id": "int64"})
    cohort_subject = ours["hadm_id"].map(subject_of)
    _require_same_patients(ours, cohort_subject, files)
    require_whole_patients(ours.assign(subject=cohort_subject), files)
    split_of = dict(zip(ours["hadm_id"].tolist(), ours["split"], strict=True))
    names = ", ".join(file.name for name, file in files.items() if name in SPLITS)
    attrition.keep("in a split", len(ours), f"in none of the files {names} (cohort.splits_from)")
    absent = members.loc[members["hadm_id"].isna(), ["file", "row", "split", "hadm"]].rename(columns={"hadm": "hadm_id"})
    not_ours = {split: int((absent["split"] == split).sum()) for split in SPLITS}
    facts: dict[str, Any] = {
        "splits_from": str(files["train"].parent),
        "admissions_in_no_split_file": len(chosen) - len(ours),
        "admissions_of_the_split_files_not_in_the_cohort": not_ours,
    }
    if len(absent):
        logger.warning(
            "cohort: %d of the %d admissions of the split files are not in the cohort (%s); see absent.parquet",
            len(absent),
            len(members),
            ", ".join(f"{split} {count}" for split, count in not_ours.items()),
        )
    admissions = _with_splits(chosen, [split_of.get(hadm_id) for hadm_id in hadm_ids])
    if not found.set_files or "cxr" not in rules.require:
        return Division(admissions, _drawn(admissions, rules), facts, absent=absent)
    adopted, facts["candidate_sets"] = _adopted(admissions, found, number_of, rules)
    return Division(admissions, adopted, facts, absent=absent)


def _adopted(
    admissions: pa.Table, found: SplitFiles, number_of: Mapping[str, int], rules: CohortConfig
) -> tuple[pa.Table, dict[str, dict[str, int]]]:
    """The sets of the files as far as their members are in the cohort, and what became of them."""
    sets = found.sets.assign(
        query_hadm_id=_numbers(found.sets["query"], number_of),
        candidate_hadm_id=_numbers(found.sets["hadm"], number_of).fillna(-1).astype("int64"),
        is_positive=found.sets["is_positive"].astype(bool),
    )
    ours = sets["query_hadm_id"].notna()
    released = sets[ours].astype({"query_hadm_id": "int64"})[["split", "query_hadm_id", "candidate_hadm_id", "is_positive"]]
    adopted = adopt_candidates(released, _for_candidates(admissions), rules.candidates, rules.seed)
    lost = sets[~ours].drop_duplicates(["split", "query"])["split"]
    for split, counts in adopted.counts.items():
        counts["of_admissions_not_in_the_cohort"] = int((lost == split).sum())
        logger.info(
            "cohort: candidate sets of %s: %d as released, %d with negatives replaced that are not in the cohort, %d drawn",
            split,
            counts["as_released"],
            counts["refilled"],
            counts["drawn"],
        )
        logger.info(
            "cohort: kept as they are in %s: %d sets with another X-ray of the query's patient, %d with the same X-ray twice",
            split,
            counts["with_another_xray_of_the_same_patient"],
            counts["with_the_same_xray_twice"],
        )
    return pa.Table.from_pandas(adopted.sets, preserve_index=False), adopted.counts


def _own_ids(chosen: pa.Table, name: str) -> list[str]:
    """The hospital's own id of each row, in canonical form."""
    numbers = chosen[f"{name}_id"].to_pylist()
    keys = zip(chosen[f"{name}_key"].to_pylist(), numbers, strict=True)
    own = [str(number) if key is None else canonical_id(key) for key, number in keys]
    if len(set(own)) != len(set(numbers)):
        raise InputError(f"column {name}_id: two ids differ only in how they are written (such as 7 and 007); make them alike")
    return own


def _numbers(ids: pd.Series, number_of: Mapping[str, int]) -> pd.Series:
    """Ids as the cohort's numbers, missing where it has none; exact, as float64 would not be for numbers made of a digest."""
    return pd.Series(pd.array([number_of.get(text) for text in ids], dtype="Int64"), index=ids.index)


def _require_same_patients(ours: pd.DataFrame, cohort_subject: pd.Series, files: Mapping[str, Path]) -> None:
    wrong = ours[ours["subject"].notna() & (ours["subject"] != cohort_subject)]
    if len(wrong):
        first = wrong.iloc[0]
        raise InputError(
            f"{files[first['split']]}: column subject_id: data row {first['row']} gives the admission to another patient than "
            f"the hospital's tables ({len(wrong)} such rows in all files); are the files of this hospital, and of this version?"
        )

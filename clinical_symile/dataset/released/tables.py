"""The release's tables as a cohort: who is in which split, who stands beside whom, and what is known of each admission."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clinical_symile.dataset.released.csv_text import CsvText, read_csv
from clinical_symile.dataset.released.layout import (
    DATA_CSV,
    PARTS,
    RETRIEVAL,
    SPLIT_OF,
    Part,
    Release,
    csv_name,
)
from clinical_symile.errors import InputError
from clinical_symile.types import CHEXPERT_LABELS, LAB_ITEM_IDS

PERCENTILES: Final = tuple(f"{itemid}_percentile" for itemid in LAB_ITEM_IDS)

_COPIED: Final = {"cxr_view": "cxr_ViewPosition"}
_TEXTS: Final = ("gender", "race", "cxr_dicom_id", "cxr_path", "cxr_view", "ecg_path")
_WHOLES: Final = ("age", "cxr_study_id", "ecg_study_id")
_TIMES: Final = {"admittime": "admittime", "cxr_time": "cxr_StudyDateTime", "ecg_time": "ecg_time"}


@dataclass(frozen=True, eq=False)
class ReleasedTables:
    """What the CSV files say.

    Attributes:
        everyone: how many admissions ``symile_mimic_data.csv`` has.
        patients: how many patients these are of.
        admissions: those that are in a split, sorted by hadm_id, with the columns of ``cohort.schema.ADMISSIONS``.
        candidates: columns of ``cohort.schema.CANDIDATES``, in the order of the files.
        percentiles: part -> its rows' 50 percentiles, indexed by hadm_id; NaN or anything where not measured.
        keys: part -> (hadm_id, query's hadm_id, label) of its rows, the two last 0 where the part has no candidates.
    """

    everyone: int
    patients: int
    admissions: pd.DataFrame
    candidates: pd.DataFrame
    percentiles: dict[Part, pd.DataFrame]
    keys: dict[Part, pd.DataFrame]


def read_tables(release: Release) -> ReleasedTables:
    """Reads and checks the CSV files.

    Raises:
        InputError: a file is damaged or lacks a column, a value cannot be read, an admission stands twice, a patient is in two
            splits, or two files contradict each other.
    """
    source = _read_everyone(release)
    everyone = _as_admissions(source)
    parts = {part: _read_part(release, part) for part in PARTS}
    keys = {part: _keys(table, part) for part, table in parts.items()}
    for part, table in parts.items():
        _require_agreement(table, keys[part]["hadm_id"].to_numpy(), everyone, source.file)
    split_of = _splits(release, keys)
    admissions = everyone.loc[sorted(split_of)]
    admissions.insert(2, "split", [split_of[hadm_id] for hadm_id in admissions.index])
    _require_whole_patients(admissions, release)
    sets = [_candidate_sets(keys[part], SPLIT_OF[part], parts[part].file) for part in RETRIEVAL]
    return ReleasedTables(
        everyone=len(everyone),
        patients=int(everyone["subject_id"].nunique()),
        admissions=admissions.reset_index(drop=True),
        candidates=pd.concat(sets, ignore_index=True),
        percentiles={part: _percentiles(table, keys[part]["hadm_id"].to_numpy()) for part, table in parts.items()},
        keys=keys,
    )


def _read_everyone(release: Release) -> CsvText:
    texts = [_COPIED.get(column, column) for column in _TEXTS]
    columns = ("subject_id", "hadm_id", *texts, *_WHOLES, *_TIMES.values(), *LAB_ITEM_IDS, *CHEXPERT_LABELS)
    return read_csv(release.path(DATA_CSV), columns)


def _read_part(release: Release, part: Part) -> CsvText:
    query = ("label_hadm_id", "label") if part in RETRIEVAL else ()
    return read_csv(release.path(csv_name(part)), ("subject_id", "hadm_id", *query, *LAB_ITEM_IDS, *PERCENTILES))


def _as_admissions(source: CsvText) -> pd.DataFrame:
    """One row per admission, indexed by hadm_id, without ``split``."""
    columns: dict[str, object] = {"subject_id": source.ids("subject_id"), "hadm_id": source.ids("hadm_id")}
    columns |= dict.fromkeys(("subject_key", "hadm_key"))
    columns |= {name: source.text(_COPIED.get(name, name)) for name in _TEXTS}
    columns |= {name: source.whole(name) for name in _WHOLES}
    columns |= {name: source.time(column) for name, column in _TIMES.items()}
    columns |= {name: source.number(name) for name in (*LAB_ITEM_IDS, *CHEXPERT_LABELS)}
    frame = pd.DataFrame(columns)
    _require_unique(frame["hadm_id"].to_numpy(), source.file)
    return frame.set_index("hadm_id", drop=False).rename_axis(None)


def _keys(table: CsvText, part: Part) -> pd.DataFrame:
    hadm_ids = table.ids("hadm_id")
    if part not in RETRIEVAL:
        _require_unique(hadm_ids, table.file)
        return pd.DataFrame({"hadm_id": hadm_ids, "query": 0, "label": 0})
    return pd.DataFrame({"hadm_id": hadm_ids, "query": table.ids("label_hadm_id"), "label": table.ids("label")})


def _require_unique(hadm_ids: NDArray[np.int64], file: Path) -> None:
    twice = np.flatnonzero(pd.Series(hadm_ids).duplicated(keep=False))
    if len(twice):
        raise InputError(
            f"{file}: column hadm_id: {len(twice)} rows share an admission with another row, the first is data row "
            f"{twice[0] + 1}; each admission may stand there once: download the file again"
        )


def _require_agreement(table: CsvText, hadm_ids: NDArray[np.int64], everyone: pd.DataFrame, main: Path) -> None:
    """The part's patients and raw laboratory values must be those of ``symile_mimic_data.csv``."""
    unknown = ~np.isin(hadm_ids, everyone.index)
    if unknown.any():
        raise InputError(
            f"{table.file}: {int(unknown.sum())} of {len(hadm_ids)} rows are of admissions that {main.name} lacks, the first is "
            f"data row {np.flatnonzero(unknown)[0] + 1}; the files must be of the same release: download both again"
        )
    there = everyone.loc[hadm_ids]
    same = (there["subject_id"].to_numpy() == table.ids("subject_id"))[:, None]
    raw = np.column_stack([table.number(itemid) for itemid in LAB_ITEM_IDS])
    main_raw = there[list(LAB_ITEM_IDS)].to_numpy()
    # The authors read one file with pandas to write the other, and its quick parser may be off by a bit in the last place.
    differs = ~np.concatenate([same, np.isclose(raw, main_raw, rtol=1e-9, atol=0, equal_nan=True)], axis=1)
    if differs.any():
        row, column = np.argwhere(differs)[0]
        raise InputError(
            f"{table.file}: column {('subject_id', *LAB_ITEM_IDS)[column]}: data row {row + 1} contradicts {main.name} "
            f"({int(differs.any(axis=1).sum())} such rows); the files must be of the same release: download both again"
        )


def _splits(release: Release, keys: dict[Part, pd.DataFrame]) -> dict[int, str]:
    """hadm_id -> split."""
    found: dict[int, str] = {}
    for part in ("train", "val", "test"):
        hadm_ids = set(keys[part]["hadm_id"].tolist())
        again = found.keys() & hadm_ids
        if again:
            raise InputError(
                f"{release.path(csv_name(part))}: {len(again)} of its admissions are in another split's file, too; "
                "each admission belongs to one split: download the files again"
            )
        found |= dict.fromkeys(hadm_ids, SPLIT_OF[part])
    extra = set(keys["val_retrieval"]["hadm_id"].tolist()) - set(keys["val"]["hadm_id"].tolist())
    if extra:
        raise InputError(
            f"{release.path(csv_name('val_retrieval'))}: {len(extra)} of its admissions are not in {csv_name('val')}; "
            "the two must hold the same ones: download both again"
        )
    return found


def _require_whole_patients(admissions: pd.DataFrame, release: Release) -> None:
    splits = admissions.groupby("subject_id")["split"].nunique()
    torn = int((splits > 1).sum())
    if torn:
        raise InputError(
            f"{release.folder}: {torn} patients have admissions in more than one split; what is learned of them in train would "
            "be tested on them again: download the CSV files again, or keep such patients whole in your own subset"
        )


def _candidate_sets(keys: pd.DataFrame, split: str, file: Path) -> pd.DataFrame:
    """The sets as released. All sets of a split have the same size, and each its own query as the only positive."""
    if not keys["label"].isin((0, 1)).all():
        raise InputError(f"{file}: column label: holds something else than 0 and 1; download the file again")
    positive = (keys["label"] == 1).to_numpy()
    wrong = positive & (keys["hadm_id"] != keys["query"]).to_numpy()
    per_query = keys.assign(position=keys.groupby("query").cumcount(), positive=positive)
    counts = per_query.groupby("query").agg(size=("label", "size"), positives=("positive", "sum"))
    if wrong.any() or (counts["positives"] != 1).any():
        bad = int(wrong.sum() + (counts["positives"] != 1).sum())
        raise InputError(
            f"{file}: {bad} queries do not have themselves as their one positive (label = 1 where hadm_id = label_hadm_id); "
            "download the file again"
        )
    if counts["size"].nunique() != 1:
        raise InputError(
            f"{file}: its queries have {counts['size'].min()} to {counts['size'].max()} candidates, but each needs as many as "
            "the others; it may be cut short: download it again"
        )
    return pd.DataFrame(
        {
            "split": split,
            "query_hadm_id": per_query["query"].to_numpy(np.int64),
            "position": per_query["position"].to_numpy(np.int64),
            "candidate_hadm_id": per_query["hadm_id"].to_numpy(np.int64),
            "is_positive": positive,
        }
    )


def _percentiles(table: CsvText, hadm_ids: NDArray[np.int64]) -> pd.DataFrame:
    values = np.column_stack([table.number(column) for column in PERCENTILES])
    frame = pd.DataFrame(values, columns=list(LAB_ITEM_IDS), index=hadm_ids)
    return frame[~frame.index.duplicated()]

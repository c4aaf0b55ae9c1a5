"""Splits and candidate sets from files: those of the release of Symile-MIMIC, or anybody's own.

A folder with ``train``, ``val`` and ``test``, each as ``.csv``, ``.csv.gz`` or ``.parquet``; other files in it are left alone.

``hadm_id``
    the hospital's own id of an admission. Each admission stands in one file, once; in a file with candidate sets, once in
    each set.
``subject_id``
    optional; whether a patient is in two splits is checked with it, and by the cohort in any case.
``label_hadm_id``, ``label``
    optional, in ``test`` and ``val`` or, as in the release, ``val_retrieval``: the admission whose set a row belongs to, and 1
    for that admission itself, 0 for a negative. Columns without a 0 (the release's ``val.csv``) carry no sets.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from clinical_symile.cohort.csv_table import FILE_ORDER, damage_reported, scan_csv
from clinical_symile.errors import InputError
from clinical_symile.types import SPLITS

_RETRIEVAL: Final = "val_retrieval"
_SUFFIXES: Final = (".csv", ".csv.gz", ".parquet")
_LABELS: Final = ("label_hadm_id", "label")
_WHOLE: Final = re.compile(r"(\d+)(?:\.0*)?")


@dataclass(frozen=True, eq=False)
class SplitFiles:
    """What the files say, with ids as ``canonical_id`` writes them.

    Attributes:
        members: one row per admission; columns hadm, subject (None where not given), split, file, row (1 is the first data row).
        sets: one row per candidate, in the order of the files; columns split, query, hadm, is_positive.
        set_files: split -> name of the file that holds its sets.
    """

    members: pd.DataFrame
    sets: pd.DataFrame
    set_files: dict[str, str]

    def set_size(self) -> int | None:
        """Candidates in each set, None without sets."""
        return None if self.sets.empty else int(self.sets.groupby(["split", "query"]).size().iloc[0])


def find_split_files(folder: Path) -> dict[str, Path]:
    """The split files of a folder: train, val, test and, where it is there, val_retrieval.

    Raises:
        InputError: one is missing, or is there in two formats.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder; cohort.splits_from (--splits-from) names one with split files")
    found: dict[str, Path] = {}
    for name in (*SPLITS, _RETRIEVAL):
        files = [folder / f"{name}{suffix}" for suffix in _SUFFIXES if (folder / f"{name}{suffix}").is_file()]
        if len(files) > 1:
            raise InputError(f"{folder}: holds both {files[0].name} and {files[1].name}; remove the one that is not meant")
        if files:
            found[name] = files[0]
        elif name != _RETRIEVAL:
            others = sorted(file.name for file in folder.iterdir() if file.name.endswith(_SUFFIXES))
            raise InputError(
                f"{folder}: has no {name}.csv, {name}.csv.gz or {name}.parquet; train, val and test are needed. "
                f"It has: {', '.join(others[:10]) or 'no table at all'}"
            )
    return found


def read_split_files(files: Mapping[str, Path]) -> SplitFiles:
    """Reads and checks the files.

    Args:
        files: what ``find_split_files`` found.

    Raises:
        InputError: a file is damaged, lacks a column or has an empty cell; an admission stands twice; an admission or a patient
            is in two splits; candidate sets are not what they should be. The message names data rows, never ids.
    """
    tables = {name: _read(file) for name, file in files.items()}
    members, sets, set_files = [], [], {}
    for name, table in tables.items():
        file, split = files[name], "val" if name == _RETRIEVAL else name
        has_sets = name != "train" and _has_sets(table, file, needed=name == _RETRIEVAL)
        if has_sets and not (name == "val" and _RETRIEVAL in tables):
            sets.append(_candidate_sets(table, file).assign(split=split))
            set_files[split] = file.name
        if not has_sets:
            _require_unique(table, ["hadm"], file, "the same admission; it may stand there once")
        if name == _RETRIEVAL:
            extra = table[~table["hadm"].isin(tables["val"]["hadm"])]
            _refuse(
                extra, file, "hadm_id", f"of an admission that is not in {files['val'].name}; the two must hold the same ones"
            )
        else:
            members.append(table[["hadm", "subject", "row"]].drop_duplicates("hadm").assign(split=split, file=file.name))
    everyone = pd.concat(members, ignore_index=True)
    _require_one_split(everyone, "hadm", "admissions", files)
    _require_one_split(everyone[everyone["subject"].notna()], "subject", "patients", files)
    columns = ["split", "query", "hadm", "is_positive"]
    released = pd.concat(sets, ignore_index=True)[columns] if sets else pd.DataFrame(columns=columns)
    _require_one_size(released, set_files, files)
    return SplitFiles(everyone, released, set_files)


def require_whole_patients(members: pd.DataFrame, files: Mapping[str, Path]) -> None:
    """Refuses a patient whose admissions are in two splits; ``members`` are those of the cohort, with the cohort's subject.

    Raises:
        InputError: names how many there are, and two data rows.
    """
    _require_one_split(members, "subject", "patients", files)


def canonical_id(text: str) -> str:
    """An id as it is compared: whole numbers alike, though pandas may have written 65.0 or somebody 065; any other text as is."""
    whole = _WHOLE.fullmatch(text.strip())
    return str(int(whole[1])) if whole else text.strip()


def _read(file: Path) -> pd.DataFrame:
    """Columns hadm, subject, query, label (None where the file lacks the column) and row."""
    optional = ("subject_id", *_LABELS)
    if file.suffix == ".parquet":
        table = _read_parquet(file, optional)
    else:
        text = scan_csv(file, ("hadm_id",), optional)
        with damage_reported(file), duckdb.connect(":memory:", config={"threads": 1}) as connection:
            table = connection.execute(f"SELECT *, {FILE_ORDER} FROM {text}").df()  # noqa: S608 - see scan_csv
    table.columns = pd.Index(["hadm", "subject", "query", "label", "row"])
    if table.empty:
        raise InputError(f"{file}: has no row; each split needs admissions")
    table = table.astype(dict.fromkeys(("hadm", "subject", "query", "label"), object))
    for name, column in zip(("hadm", "subject", "query", "label"), ("hadm_id", *optional), strict=True):
        table[name] = table[name].where(table[name].notna(), None)
        if table[name].notna().any() or name == "hadm":
            _refuse(table[table[name].isna()], file, column, "empty; fill it in")
            ids = {text: canonical_id(text) for text in table[name].unique()}
            table[name] = table[name].map(ids)
    return table


def _read_parquet(file: Path, optional: tuple[str, ...]) -> pd.DataFrame:
    try:
        schema = pq.read_schema(file)
        names = [name for name in ("hadm_id", *optional) if name in schema.names]
        if "hadm_id" not in names:
            raise InputError(f"{file}: lacks the column hadm_id. It has: {', '.join(schema.names) or 'nothing'}")
        table = pq.read_table(file, columns=names)
    except (OSError, pa.ArrowInvalid):
        raise InputError(f"{file}: cannot be read as Parquet; it may be damaged or cut short: fetch it again") from None
    columns = {}
    for name in names:
        kind = table.schema.field(name).type
        if not (
            pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)
        ):
            raise InputError(f"{file}: column {name}: holds {kind}, but ids are whole numbers or text")
        values = table[name]
        if pa.types.is_floating(kind):  # how pandas writes whole numbers beside an empty cell
            try:
                values = values.cast(pa.int64())
            except pa.ArrowInvalid:
                raise InputError(f"{file}: column {name}: holds numbers that are not whole; write ids as whole numbers") from None
        columns[name] = values.cast(pa.string()).to_pandas()
    frame = pd.DataFrame(columns, index=range(len(table))).reindex(columns=["hadm_id", *optional])
    return frame.assign(row=range(1, len(frame) + 1))


def _has_sets(table: pd.DataFrame, file: Path, *, needed: bool) -> bool:
    given = {column: table[name].notna().any() for name, column in zip(("query", "label"), _LABELS, strict=True)}
    missing = [column for column, is_there in given.items() if not is_there]
    if len(missing) == 1 or (missing and needed):
        raise InputError(f"{file}: lacks the column(s) {', '.join(missing)}: candidate sets need both {' and '.join(_LABELS)}")
    return not missing and (needed or bool((table["label"] != "1").any()))


def _candidate_sets(table: pd.DataFrame, file: Path) -> pd.DataFrame:
    """Columns query, hadm, is_positive."""
    _refuse(table[~table["label"].isin(("0", "1"))], file, "label", "neither 0 nor 1")
    _require_unique(table, ["query", "hadm"], file, "the same admission of the same set; it may stand there once")
    positive = table["label"] == "1"
    _refuse(
        table[positive != (table["hadm"] == table["query"])], file, "label",
        "1 beside a negative, or 0 beside the query itself; it is 1 just where hadm_id = label_hadm_id",
    )  # fmt: skip
    without = table[~table["query"].isin(table.loc[positive, "query"])]
    _refuse(without, file, "label_hadm_id", "of a set without its query (label = 1)")
    return table[["query", "hadm"]].assign(is_positive=positive)


def _refuse(rows: pd.DataFrame, file: Path, column: str, complaint: str) -> None:
    if len(rows):
        raise InputError(f"{file}: column {column}: data row {rows['row'].min()} is {complaint} ({len(rows)} such rows)")


def _require_unique(table: pd.DataFrame, columns: list[str], file: Path, complaint: str) -> None:
    twice = table[table.duplicated(columns)]
    if len(twice):
        first = twice.iloc[0]
        earlier = table.loc[(table[columns] == first[columns]).all(axis=1), "row"].min()
        raise InputError(
            f"{file}: column hadm_id: data rows {earlier} and {first['row']} hold {complaint} ({len(twice)} such rows)"
        )


def _require_one_split(members: pd.DataFrame, column: str, what: str, files: Mapping[str, Path]) -> None:
    torn = members[members.groupby(column)["split"].transform("nunique") > 1]
    if torn.empty:
        return
    first = torn[torn[column] == torn[column].iloc[0]].drop_duplicates("split")
    where = " and ".join(f"data row {row} of {file}" for row, file in zip(first["row"], first["file"], strict=True))
    raise InputError(
        f"{files['train'].parent}: {torn[column].nunique()} {what} are in more than one of "
        f"{', '.join(files[split].name for split in SPLITS)}, the first in {where}; what is learned of them in one split would "
        "be tested in another: keep each patient's admissions in one file"
    )


def _require_one_size(sets: pd.DataFrame, set_files: Mapping[str, str], files: Mapping[str, Path]) -> None:
    if sets.empty:
        return
    sizes = sets.groupby(["split", "query"]).size()
    if sizes.nunique() > 1:
        raise InputError(
            f"{files['train'].parent}: the sets of {' and '.join(set_files.values())} have {sizes.min()} to {sizes.max()} "
            "candidates, but each needs as many as the others; a file may be cut short: fetch it again"
        )

"""Results from a data set in the Medical Event Data Standard (MEDS 0.3 and 0.4): ``data/**/*.parquet``.

Columns: ``subject_id`` (as text, the manifest's ``subject_id``), ``time``, ``code``, ``numeric_value`` (32 bits: read as the
shortest decimal that it stands for); optional: ``unit``. Codes that are understood:

* ``LAB//51221//%`` and ``LAB//RESULT//51221//%``, as the project MIMIC_IV_MEDS writes them (its ``event_configs.yaml``, commits
  857cdb0 and 34bd874). The first has the time when the specimen was taken, the second the time when the result was *stored*: the
  window then counts results by when they were known. ``UNK`` is no unit.
* ``LOINC//718-7``, ``LOINC/718-7``, either with ``//g/dL`` behind it.
* any other code whose ``parent_codes`` in ``metadata/codes.parquet`` name exactly one item's LOINC codes (``LOINC/718-7``).

The unit is taken from the code, else from the column ``unit`` of the row, else from the column ``unit`` or ``valueuom`` of
``metadata/codes.parquet``. Static rows (without a time) are rejected and counted, like codes and units that are not understood.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import duckdb

from clinical_symile.cohort.coded_labs import Meaning, load_coded
from clinical_symile.cohort.lab_codes import loinc_codes
from clinical_symile.cohort.source import Reject, sql
from clinical_symile.cohort.table_parts import TablePart, open_parts, part_damage_reported, table_files
from clinical_symile.errors import InputError
from clinical_symile.types import LAB_ITEM_IDS

_MIMIC: Final = re.compile(r"LAB//(?:RESULT//)?(\d+)(?://(.*))?", re.DOTALL)
_LOINC: Final = re.compile(r"LOINC//?(\d+-\d)(?://(.*))?", re.DOTALL)
_NO_UNIT: Final = frozenset({"", "UNK"})
_FAULTS: Final = {
    "time": "the row has no time (a static measurement)",
    "number": "numeric_value is not a finite number",
}


class CodeFacts(NamedTuple):
    """What ``metadata/codes.parquet`` says of a code: the LOINC codes above it, and its unit."""

    loinc: frozenset[str]
    unit: str | None


@dataclass(frozen=True)
class MedsLabs:
    """The files of a MEDS data set, in the order in which they are read."""

    root: Path
    data: tuple[Path, ...]
    codes: Path | None

    @property
    def tables(self) -> dict[str, Path]:
        """Name -> file of all that will be read."""
        files = (*self.data, *([self.codes] if self.codes else []))
        return {f"meds {file.relative_to(self.root).as_posix()}": file for file in files}

    def load(self, connection: duckdb.DuckDBPyConnection) -> tuple[Reject, ...]:
        """Fills ``lab_results`` for the patients in ``subject_keys``.

        Raises:
            InputError: a file lacks a column or is damaged, or none of the rows can be used.
        """
        facts = {} if self.codes is None else _read_facts(connection, self.codes)
        return load_coded(
            connection, "meds", lambda: self._views(connection), lambda code, unit: read_meds_code(code, unit, facts), _FAULTS
        )

    def _views(self, connection: duckdb.DuckDBPyConnection) -> Iterator[TablePart]:
        for part in open_parts(connection, self.data):
            part.require("subject_id", "time", "code", "numeric_value")
            connection.execute(
                sql("meds/rows").format(
                    person=part.key("subject_id"),
                    code=part.text("code"),
                    unit=part.text("unit"),
                    time=part.time("time"),
                    value=part.number_of("numeric_value"),
                    value_text=part.text("numeric_value"),
                    file_order=part.file_order,
                    rows=part.rows,
                )
            )
            yield part


def find_meds(root: Path) -> MedsLabs:
    """Finds the files of a MEDS data set; nothing is read yet.

    Args:
        root: the folder that has ``data`` and, perhaps, ``metadata``.

    Raises:
        InputError: there are no data.
    """
    if not root.is_dir():
        raise InputError(f"{root}: there is no such folder; give the MEDS data set's folder, which has data/ and metadata/")
    data = [file for file in table_files(root / "data") if file.name.endswith(".parquet")] if (root / "data").is_dir() else []
    if not data:
        raise InputError(f"{root}: has no data/**/*.parquet; give the MEDS data set's folder, which has data/ and metadata/")
    codes = root / "metadata" / "codes.parquet"
    return MedsLabs(root, tuple(data), codes if codes.is_file() else None)


def read_meds_code(code: str, unit: str, facts: Mapping[str, CodeFacts]) -> Meaning:
    """What a code of a MEDS data set means.

    Args:
        code: such as ``LAB//51221//%``.
        unit: of the row; '' where there is none.
        facts: what the data set says of its codes.

    Example:
        >>> read_meds_code("LAB//RESULT//51237//UNK", "", {})
        Meaning(itemid='51237', unit=None, analyte='', fault=None)
    """
    known = facts.get(code, CodeFacts(frozenset(), None))
    mimic, loinc = _MIMIC.fullmatch(code), _LOINC.fullmatch(code)
    found = mimic or loinc
    written = next((text for text in ((found and found[2]) or "", unit, known.unit or "") if text not in _NO_UNIT), None)
    if mimic:
        if mimic[1] in LAB_ITEM_IDS:
            return Meaning(mimic[1], written)
        return Meaning(None, fault=f"itemid {mimic[1]} (LAB//) is not one of the 50 items")
    if loinc:
        measured = loinc_codes().get(loinc[1])
        if measured:
            return Meaning(measured.itemid, written, measured.analyte)
        return Meaning(None, fault=f"LOINC code {loinc[1]} stands for none of the 50 items")
    parents = {(entry.itemid, entry.analyte) for entry in map(loinc_codes().get, known.loinc) if entry}
    if len(parents) == 1:
        itemid, analyte = next(iter(parents))
        return Meaning(itemid, written, analyte)
    if parents:
        return Meaning(None, fault=f"code {code}: its parent_codes stand for more than one item")
    return Meaning(None, fault=f"code {code} is neither LAB//<itemid> nor LOINC//<code>, and has no such parent code")


def _read_facts(connection: duckdb.DuckDBPyConnection, file: Path) -> dict[str, CodeFacts]:
    part = next(open_parts(connection, [file]))
    part.require("code")
    parents = part.columns.get("parent_codes", "NULL")
    unit = f"coalesce({part.text('unit')}, {part.text('valueuom')})"
    with part_damage_reported(file):
        rows = connection.execute(
            f"SELECT {part.text('code')}, {parents}, {unit} FROM {part.rows} ORDER BY part_row"  # noqa: S608 - quoted names
        ).fetchall()
    return {code: CodeFacts(_loinc_above(above), unit) for code, above, unit in rows if code}


def _loinc_above(parents: Any) -> frozenset[str]:
    listed = parents if isinstance(parents, list) else [parents] if isinstance(parents, str) else []
    return frozenset(match[1] for match in map(_LOINC.fullmatch, filter(None, listed)) if match)

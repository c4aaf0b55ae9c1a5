"""Results from the ``measurement`` table of an OMOP CDM (5.3 or 5.4), by LOINC and UCUM.

``measurement``
    ``person_id`` (as text, the manifest's ``subject_id``), ``measurement_concept_id``, ``measurement_datetime``,
    ``value_as_number``; optional: ``unit_concept_id``, ``unit_source_value`` (taken where there is no unit concept),
    ``operator_concept_id``. A row with an operator other than '=' holds a bound and no number: it is rejected, like a row
    without a time of day (``measurement_date`` is not read).
``concept``
    ``concept_id``, ``vocabulary_id``, ``concept_code``: concept ids are OMOP's own, and only this table says which LOINC and UCUM
    codes they stand for. The download of OHDSI Athena (tab-separated ``CONCEPT.csv``) can be used as it is.

Either may be a CSV, CSV.gz or Parquet file or a folder of such parts. They lie side by side: in the folder of the CDM's
export, or ``concept`` beside the file or folder that is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import duckdb

from clinical_symile.cohort.coded_labs import Meaning, load_coded
from clinical_symile.cohort.lab_codes import loinc_codes
from clinical_symile.cohort.source import Reject, sql
from clinical_symile.cohort.table_parts import TablePart, find_parts, open_parts, part_damage_reported, table_files
from clinical_symile.errors import InputError

_LOINC: Final = "LOINC/"
_FAULTS: Final = {
    "time": "measurement_datetime is empty, has no time of day, or has an offset; a date alone is not enough",
    "number": "value_as_number is not a finite number",
    "bound": "the value is a bound and no number: operator_concept_id",
}


@dataclass(frozen=True)
class OmopLabs:
    """The files of the two tables, each in the order in which they are read."""

    measurement: tuple[Path, ...]
    concept: tuple[Path, ...]

    @property
    def tables(self) -> dict[str, Path]:
        """Name -> file of all that will be read."""
        return {f"measurement {number}": file for number, file in enumerate(self.measurement, 1)} | {
            f"concept {number}": file for number, file in enumerate(self.concept, 1)
        }

    def load(self, connection: duckdb.DuckDBPyConnection) -> tuple[Reject, ...]:
        """Fills ``lab_results`` for the patients in ``subject_keys``.

        Raises:
            InputError: a table lacks a column or is damaged, or none of its rows can be used.
        """
        self._load_concepts(connection)
        return load_coded(connection, "measurement", lambda: self._views(connection), _read_code, _FAULTS)

    def _load_concepts(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Makes ``loinc_concepts`` (id, code, mapped) and ``ucum_concepts`` (id, code)."""
        connection.execute("CREATE TABLE concepts (id BIGINT, vocabulary VARCHAR, code VARCHAR)")
        for part in open_parts(connection, self.concept):
            part.require("concept_id", "vocabulary_id", "concept_code")
            with part_damage_reported(part.file):
                connection.execute(
                    f"INSERT INTO concepts SELECT {part.whole('concept_id')}, upper({part.text('vocabulary_id')}), "  # noqa: S608
                    f"{part.text('concept_code')} FROM {part.rows} WHERE upper({part.text('vocabulary_id')}) IN ('LOINC', 'UCUM')"
                )
        mapped = ", ".join(f"'{code}'" for code in loinc_codes())
        connection.execute(
            f"CREATE TABLE loinc_concepts AS SELECT id, min('{_LOINC}' || code) AS code, "  # noqa: S608 - constants
            f"bool_or(code IN ({mapped})) AS mapped FROM concepts WHERE vocabulary = 'LOINC' AND id IS NOT NULL GROUP BY id; "
            "CREATE TABLE ucum_concepts AS SELECT id, min(code) AS code FROM concepts "
            "WHERE vocabulary = 'UCUM' AND id IS NOT NULL GROUP BY id; DROP TABLE concepts"
        )
        if not connection.execute("SELECT count(*) FROM loinc_concepts WHERE mapped").fetchall()[0][0]:
            raise InputError(
                f"{self.concept[0]}: has no LOINC concept of the 50 items (vocabulary_id 'LOINC'); the concept table of the "
                "standard vocabularies is needed, such as CONCEPT.csv from athena.ohdsi.org"
            )

    def _views(self, connection: duckdb.DuckDBPyConnection) -> Iterator[TablePart]:
        for part in open_parts(connection, self.measurement):
            part.require("person_id", "measurement_concept_id", "measurement_datetime", "value_as_number")
            connection.execute(
                sql("omop/rows").format(
                    person=part.key("person_id"),
                    concept=part.whole("measurement_concept_id"),
                    unit_concept=part.whole("unit_concept_id"),
                    unit_text=part.text("unit_source_value"),
                    operator=part.whole("operator_concept_id"),
                    time=part.time("measurement_datetime"),
                    value=part.number_of("value_as_number"),
                    value_text=part.text("value_as_number"),
                    file_order=part.file_order,
                    rows=part.rows,
                )
            )
            yield part


def find_omop(place: Path) -> OmopLabs:
    """Finds the tables ``measurement`` and ``concept``; nothing is read yet.

    Args:
        place: the folder of the CDM's export, the file of ``measurement``, or a folder of its parts.

    Raises:
        InputError: one of the tables is missing; the message says where it was looked for.
    """
    if place.is_file():
        measurement, beside = [place], (place.parent,)
    elif place.is_dir():
        whole = find_parts(place, "measurement")
        export = whole or find_parts(place, "concept")
        measurement, beside = (whole, (place,)) if export else (table_files(place), (place.parent,))
    else:
        raise InputError(f"{place}: there is no such file or folder")
    if not measurement:
        raise InputError(f"{place}: holds neither measurement (.parquet, .csv.gz, .csv) nor parts of it")
    concept = next((found for folder in beside if (found := find_parts(folder, "concept"))), [])
    if not concept:
        raise InputError(
            f"{beside[0]}: concept (.parquet, .csv.gz or .csv) is missing; it must lie beside measurement, since it says which "
            "LOINC and UCUM codes the concept ids stand for (athena.ohdsi.org has it)"
        )
    return OmopLabs(tuple(measurement), tuple(concept))


def _read_code(code: str, unit: str) -> Meaning:
    known = loinc_codes().get(code.removeprefix(_LOINC)) if code.startswith(_LOINC) else None
    if known is not None:
        return Meaning(known.itemid, unit or None, known.analyte)
    if code == "concept 0":
        return Meaning(None, fault="measurement_concept_id is 0 or empty: the hospital mapped these results to no concept")
    if code.startswith(_LOINC):
        return Meaning(None, fault=f"LOINC code {code.removeprefix(_LOINC)} stands for none of the 50 items")
    return Meaning(None, fault=f"measurement_concept_id {code.removeprefix('concept ')} is no LOINC concept of the concept table")

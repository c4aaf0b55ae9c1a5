"""Results of an OMOP CDM: the tables measurement and concept, in every form in which they are exported."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest

from clinical_symile.errors import ConfigError, InputError

SODIUM, GLUCOSE, UREA, HEMOGLOBIN, PTT = "50983", "50931", "51006", "51222", "51275"
ADMITTED = "2024-05-31 14:00:00"

# Ids are invented: OMOP's own are known only through the concept table, and so a test must not depend on them.
CONCEPTS = [
    (101, "LOINC", "2951-2"),  # sodium
    (102, "LOINC", "2345-7"),  # glucose, mass
    (103, "LOINC", "14749-6"),  # glucose, moles
    (104, "LOINC", "3091-6"),  # urea, mass
    (105, "LOINC", "2339-0"),  # glucose in whole blood: none of the 50
    (106, "SNOMED", "271649006"),  # systolic blood pressure
    (107, "LOINC", "718-7"),
    (201, "UCUM", "mmol/L"),
    (202, "UCUM", "mg/dL"),
    (203, "UCUM", "g/dL"),
    (204, "UCUM", "mm[Hg]"),
]
EQUAL, LESS, MORE_OR_EQUAL = 4172703, 4171756, 4171755


class Cdm:
    """A folder with ``measurement`` and ``concept``; every patient has a sodium of 140."""

    def __init__(self, folder: Path, patients: int = 12) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.rows: list[dict[str, Any]] = []
        for person in range(1, patients + 1):
            self.measure(person, 101, 140, 201)

    def measure(self, person: Any, concept: Any, value: Any, unit: Any = None, time: str = ADMITTED, **more: Any) -> None:
        row = {"measurement_id": len(self.rows) + 1, "person_id": person, "measurement_concept_id": concept}
        row |= {
            "measurement_date": time[:10],
            "measurement_datetime": time,
            "operator_concept_id": None,
            "value_as_number": value,
        }
        self.rows.append(row | {"unit_concept_id": unit, "measurement_source_value": "x", "unit_source_value": None} | more)

    def write(self, form: str = "csv", *, upper: bool = False, parts: int = 0) -> Path:
        """Writes both tables; ``parts`` splits measurement into a folder of so many files."""
        concept = pd.DataFrame(CONCEPTS, columns=["concept_id", "vocabulary_id", "concept_code"])
        concept["concept_name"] = 'a "quoted" name'
        measurement = pd.DataFrame(self.rows)
        if form == "parquet":
            types = {"measurement_datetime": "datetime64[us]", "value_as_number": "float64", "unit_concept_id": "Int64"}
            measurement = measurement.astype(types | {"operator_concept_id": "Int64"})
        _save(concept, self.folder / f"{'CONCEPT' if upper else 'concept'}.{'csv' if upper else form}", tabs=upper)
        if not parts:
            _save(measurement, self.folder / f"{'MEASUREMENT' if upper else 'measurement'}.{form}")
            return self.folder
        folder = self.folder / "measurement"
        folder.mkdir()
        for number in range(parts):
            _save(measurement.iloc[number::parts], folder / f"part-{number:05}.{form}")
        return self.folder


def _save(table: pd.DataFrame, file: Path, *, tabs: bool = False) -> None:
    if file.suffix == ".parquet":
        table.to_parquet(file, index=False)
    elif tabs:  # as OHDSI Athena writes it: quotes mean nothing
        file.write_text("\n".join("\t".join(map(str, row)) for row in [table.columns, *table.itertuples(index=False)]) + "\n")
    else:
        table.to_csv(file, index=False)


@pytest.fixture
def cdm(coded_hospital) -> Cdm:
    return Cdm(coded_hospital.root / "cdm")


@pytest.mark.parametrize("form", ["csv", "csv.gz", "parquet"])
@pytest.mark.parametrize("parts", [0, 3])
def test_every_form_of_the_tables_gives_the_same(coded_hospital, cdm, form, parts):
    cdm.measure(1, 102, 99.5, 202)
    cdm.measure(2, 103, 5.5, 201)
    admissions = coded_hospital.build(labs_omop=cdm.write(form, parts=parts))
    assert admissions[SODIUM].tolist() == [140] * 12
    assert admissions[GLUCOSE].dropna().to_dict() == {1: 99.5, 2: pytest.approx(5.5 * 18.0156)}
    assert coded_hospital.rejects == []
    assert coded_hospital.manifest["inputs"].keys() >= {"measurement 1", "concept 1"}


def test_athena_s_concept_file_in_capitals_with_tabs_can_be_used(coded_hospital, cdm):
    assert coded_hospital.build(labs_omop=cdm.write(upper=True))[SODIUM].notna().all()


def test_the_file_itself_may_be_named_with_concept_beside_it(coded_hospital, cdm):
    cdm.write("csv.gz")
    assert coded_hospital.build(labs_omop=cdm.folder / "measurement.csv.gz")[SODIUM].notna().all()


def test_a_folder_of_parts_may_be_named_with_concept_beside_it(coded_hospital, cdm):
    cdm.write("parquet", parts=2)
    assert coded_hospital.build(labs_omop=cdm.folder / "measurement")[SODIUM].notna().all()


def test_the_earliest_result_counts_and_of_equal_times_the_earlier_row(coded_hospital, cdm):
    cdm.rows.clear()
    for person in range(1, 13):
        cdm.measure(person, 101, 141, 201, "2024-05-31 14:00:00")
        cdm.measure(person, 101, 142, 201, "2024-05-31 14:00:00")
        cdm.measure(person, 101, 143, 201, "2024-05-31 13:59:59" if person == 3 else "2024-05-31 14:00:01")
    admissions = coded_hospital.build(labs_omop=cdm.write("parquet"))
    assert admissions[SODIUM].to_dict() == {person: 143 if person == 3 else 141 for person in range(1, 13)}


def test_rows_count_through_the_parts_in_the_order_of_their_names(coded_hospital, cdm):
    cdm.measure(1, 101, 150, 201)  # the same time as the sodium of 140
    cdm.write("parquet")
    folder = cdm.folder / "measurement"
    folder.mkdir()
    table = pd.read_parquet(cdm.folder / "measurement.parquet")
    (cdm.folder / "measurement.parquet").unlink()
    table.iloc[-1:].to_parquet(folder / "a.parquet")
    table.iloc[:-1].to_parquet(folder / "b.parquet")
    assert coded_hospital.build(labs_omop=cdm.folder).loc[1, SODIUM] == 150


def test_what_cannot_be_used_is_listed_with_its_number(coded_hospital, cdm, caplog):
    cdm.measure(1, 101, 120, 201, operator_concept_id=LESS)
    cdm.measure(2, 101, 160, 201, operator_concept_id=MORE_OR_EQUAL)
    cdm.measure(3, 101, 141, 201, time="2024-05-31 13:50", operator_concept_id=EQUAL)
    cdm.measure(4, 101, 141, 201, time="2024-05-31")
    cdm.measure(5, 101, 141, 201, time="2024-05-31 13:50:00+02")
    cdm.measure(6, 101, "much", 201)
    cdm.measure(7, 101, None, 201)  # without a value there is nothing to reject
    cdm.measure(8, 105, 100, 202)
    cdm.measure(8, 105, 101, 202)
    cdm.measure(8, 106, 130, 204)
    cdm.measure(9, 0, 1, 202)
    cdm.measure(10, 102, 5, 203)
    cdm.measure(11, 102, 5)
    cdm.measure(99, 105, 5)  # nobody of the manifest
    with caplog.at_level("WARNING"):
        admissions = coded_hospital.build(labs_omop=cdm.write())
    assert admissions[SODIUM].to_dict() == {person: 141 if person == 3 else 140 for person in range(1, 13)}
    assert coded_hospital.rejects == [
        "2 rows: LOINC code 2339-0 stands for none of the 50 items",
        "2 rows: measurement_datetime is empty, has no time of day, or has an offset; a date alone is not enough",
        "1 rows: LOINC/2345-7: Glucose (50931) in 'g/dL', expected 'mg/dL'; convert it first",
        "1 rows: LOINC/2345-7: Glucose (50931) in no unit, expected 'mg/dL'; convert it first",
        "1 rows: measurement_concept_id 106 is no LOINC concept of the concept table",
        "1 rows: measurement_concept_id is 0 or empty: the hospital mapped these results to no concept",
        f"1 rows: the value is a bound and no number: operator_concept_id {MORE_OR_EQUAL}",
        f"1 rows: the value is a bound and no number: operator_concept_id {LESS}",
        "1 rows: value_as_number is not a finite number",
    ]
    assert "11 of 24 results were not used, for 9 reasons" in caplog.text


def test_a_unit_without_a_concept_is_taken_as_it_is_written(coded_hospital, cdm):
    cdm.measure(1, 107, 130, 0, unit_source_value="g/L")
    cdm.measure(2, 107, 13.1, None, unit_source_value="g/dl")
    cdm.measure(3, 107, 13.2, 203, unit_source_value="g/L")  # the concept counts
    cdm.measure(4, 107, 13.3, 999)
    admissions = coded_hospital.build(labs_omop=cdm.write())
    assert admissions[HEMOGLOBIN].dropna().to_dict() == {1: pytest.approx(13), 2: 13.1, 3: 13.2}
    assert coded_hospital.rejects == [
        "1 rows: LOINC/718-7: Hemoglobin (51222) in 'concept 999', expected 'g/dL'; convert it first"
    ]


def test_of_urea_the_nitrogen_is_kept(coded_hospital, cdm):
    cdm.measure(1, 104, 60.056, 202)
    assert coded_hospital.build(labs_omop=cdm.write())[UREA].dropna().to_dict() == {1: pytest.approx(28.014)}


def test_dates_in_a_typed_column_are_rejected_too(coded_hospital, cdm):
    cdm.measure(99, 101, 140, 201)
    for person in range(1, 13):  # in the other part than this patient's sodium
        cdm.measure(person, 102, 100, 202)
    cdm.write("parquet", parts=2)
    file = cdm.folder / "measurement" / "part-00000.parquet"
    table = pd.read_parquet(file)
    table["measurement_datetime"] = table["measurement_datetime"].dt.date
    table.to_parquet(file)
    with duckdb.connect() as check:
        assert check.execute(f"DESCRIBE SELECT measurement_datetime FROM '{file}'").fetchall()[0][1] == "DATE"
    admissions = coded_hospital.build(labs_omop=cdm.folder)
    assert admissions[SODIUM].dropna().index.tolist() == [2, 4, 6, 8, 10, 12]
    assert admissions[GLUCOSE].dropna().index.tolist() == [1, 3, 5, 7, 9, 11]
    assert coded_hospital.rejects[0].startswith("12 rows: measurement_datetime is empty, has no time of day")


def test_results_at_midnight_are_used_with_a_warning(coded_hospital, cdm, caplog):
    for row in cdm.rows:
        row["measurement_datetime"] = "2024-06-01 00:00:00"
    coded_hospital.build(labs_omop=cdm.write())
    assert "12 of 12 results are from exactly midnight" in caplog.text


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda folder: (folder / "concept.csv").unlink(), "concept (.parquet, .csv.gz or .csv) is missing; it must lie beside"),
        (lambda folder: (folder / "measurement.csv").unlink(), "holds neither measurement"),
        (lambda folder: (folder / "measurement.parquet").touch(), "has measurement.csv and measurement.parquet; leave one"),
        (lambda folder: _rename(folder / "measurement.csv", "person_id", "person"), "lacks the column(s) person_id. It has:"),
        (
            lambda folder: _rename(folder / "measurement.csv", "measurement_datetime", "when"),
            "lacks the column(s) measurement_da",
        ),
        (lambda folder: _rename(folder / "concept.csv", "vocabulary_id", "v"), "concept.csv: lacks the column(s) vocabulary_id"),
        (lambda folder: _rename(folder / "concept.csv", "LOINC", "local"), "has no LOINC concept of the 50 items"),
        (lambda folder: (folder / "measurement.csv").write_bytes(b"person_id\xff"), "cannot be read as CSV"),
    ],
)
def test_what_is_wrong_with_the_files_is_said_with_the_remedy(coded_hospital, cdm, break_it, message):
    break_it(cdm.write())
    with pytest.raises(InputError) as caught:
        coded_hospital.build(labs_omop=cdm.folder)
    assert message in str(caught.value)


def _rename(file: Path, old: str, new: str) -> None:
    file.write_text(file.read_text().replace(old, new))


def test_a_damaged_parquet_file_is_named(coded_hospital, cdm):
    cdm.write("parquet")
    file = cdm.folder / "measurement.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"measurement\.parquet: cannot be read as Parquet"):
        coded_hospital.build(labs_omop=cdm.folder)


def test_a_column_with_a_time_zone_or_of_another_type_is_refused(coded_hospital, cdm):
    cdm.write("parquet")
    file = cdm.folder / "measurement.parquet"
    table = pd.read_parquet(file)
    table.assign(measurement_datetime=table["measurement_datetime"].dt.tz_localize("UTC")).to_parquet(file)
    with pytest.raises(InputError, match=r"column measurement_datetime has a time zone"):
        coded_hospital.build(labs_omop=cdm.folder)
    table.assign(person_id=table["person_id"] + 0.5).to_parquet(file)
    with pytest.raises(InputError, match=r"column person_id is of type DOUBLE; it must hold whole numbers or text"):
        coded_hospital.build(labs_omop=cdm.folder)


def test_when_nothing_fits_the_reason_is_said_at_once(coded_hospital, cdm):
    for row in cdm.rows:
        row["person_id"] = f"00{row['person_id']}"
    with pytest.raises(
        InputError, match=r"has no result with a number of any patient of the manifest; the ids are compared as text"
    ):
        coded_hospital.build(labs_omop=cdm.write())
    for row in cdm.rows:
        row |= {"person_id": row["person_id"][2:], "unit_concept_id": 203}
    with pytest.raises(InputError, match=r"no row can be used; 12 rows: LOINC/2951-2: Sodium \(50983\) in 'g/dL'"):
        coded_hospital.build(labs_omop=cdm.write())


def test_the_labs_come_from_one_source(coded_hospital, cdm, tmp_path):
    cdm.write()
    with pytest.raises(ConfigError, match=r"hospital\.labs_omop and hospital\.labs_meds: .* from one source only"):
        coded_hospital.build(labs_omop=cdm.folder, labs_meds=tmp_path)
    with pytest.raises(ConfigError, match="--labs-omop or --labs-meds instead of --labs"):
        coded_hospital.build()
    with pytest.raises(ConfigError, match=r"hospital\.kind is 'mimic', so hospital\.labs_omop has no meaning"):
        coded_hospital.build(kind="mimic", manifest=None, labs_omop=cdm.folder)
    with pytest.raises(InputError, match="there is no such file or folder"):
        coded_hospital.build(labs_omop=tmp_path / "nowhere")


def test_text_ids_are_matched_as_text(coded_hospital, cdm):
    file = coded_hospital.root / "admissions.csv"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], *(f"P{line}" for line in lines[1:])]) + "\n")
    for row in cdm.rows:
        row["person_id"] = f"P{row['person_id']}"
    admissions = coded_hospital.build(labs_omop=cdm.write())
    assert admissions["subject_key"].tolist() == [f"P{line.split(',')[0]}" for line in sorted(lines[1:], key=_hadm)]
    assert admissions[SODIUM].notna().all()


def _hadm(line: str) -> int:
    return int(line.split(",")[1])


def test_a_patient_may_have_two_admissions(coded_hospital, cdm):
    file = coded_hospital.root / "admissions.csv"
    file.write_text(file.read_text() + "1,999,2024-05-31 13:00,,cxr/1.png\n")
    assert coded_hospital.build(labs_omop=cdm.write())["hadm_id"].tolist() == list(range(901, 913))


def test_labs_csv_is_converted_only_where_it_is_asked_for(coded_hospital):
    file = coded_hospital.root / "labs.csv"
    rows = [(n, ADMITTED, GLUCOSE, 5.5, "mmol/L") for n in range(1, 13)]
    rows += [(n, ADMITTED, SODIUM, 140, "mEq/L") for n in range(1, 13)]
    with file.open("w") as handle:
        csv.writer(handle).writerows([("subject_id", "charttime", "itemid", "valuenum", "valueuom"), *rows])
    admissions = coded_hospital.build(labs=file)
    assert admissions[GLUCOSE].isna().all()
    assert coded_hospital.rejects == [
        "12 rows, the first is data row 1: Glucose (50931) in 'mmol/L', expected 'mg/dL'; convert it first"
    ]
    converted = coded_hospital.build(labs=file, convert_units=True)
    assert converted[GLUCOSE].tolist() == pytest.approx([5.5 * 18.0156] * 12)
    assert converted.loc[1, SODIUM] == 140
    assert coded_hospital.manifest["hospital"]["convert_units"] is True


@pytest.mark.slow
def test_memory_does_not_grow_with_rows_of_other_patients(coded_hospital, cdm):
    """Five million rows of strangers beside those of the manifest's patients; DuckDB may hold 200 MB."""
    from clinical_symile.cohort.manifest import load_manifest
    from clinical_symile.cohort.omop import find_omop
    from clinical_symile.cohort.source import connect

    cdm.write("parquet", parts=1)
    with duckdb.connect() as writer:
        writer.execute(
            "COPY (SELECT i AS measurement_id, 1000 + i % 50000 AS person_id, 101 + i % 7 AS measurement_concept_id, "
            "TIMESTAMP '2024-05-31 12:00:00' + to_seconds(i % 9000) AS measurement_datetime, 100 + i % 60 AS value_as_number, "
            f"201 AS unit_concept_id FROM range(5000000) t(i)) TO '{cdm.folder}/measurement/strangers.parquet'"
        )
    with connect(coded_hospital.root / "spill", memory_limit="200MB") as connection:
        load_manifest(connection, coded_hospital.root / "admissions.csv", find_omop(cdm.folder), ("labs",))
        assert connection.execute("SELECT count(*) FROM lab_results").fetchone() == (12,)


def test_gzip_is_told_by_the_name(coded_hospital, cdm):
    cdm.write("csv.gz")
    with gzip.open(cdm.folder / "measurement.csv.gz", "rt") as handle:
        assert handle.readline().startswith("measurement_id,")

"""Results of a MEDS data set; one hospital through all its ways in; the cohort as MEDS labels."""

from __future__ import annotations

import datetime as dt
import json
import os
import stat
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clinical_symile.cohort.lab_codes import loinc_codes
from clinical_symile.cohort.meds_labels import export_meds_labels
from clinical_symile.errors import ConfigError, IncompleteStage, InputError
from clinical_symile.stage import Workspace
from clinical_symile.types import LAB_ITEM_IDS, LAB_ITEMS

SODIUM, GLUCOSE, HEMOGLOBIN, INR, PH = "50983", "50931", "51222", "51237", "50820"
ADMITTED = dt.datetime(2024, 5, 31, 14, 0)
SCHEMA = pa.schema(
    [("subject_id", pa.int64()), ("time", pa.timestamp("us")), ("code", pa.string()), ("numeric_value", pa.float32())]
)


class Meds:
    """A MEDS data set; every patient has a sodium of 140."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rows: list[dict[str, Any]] = []
        self.codes: list[dict[str, Any]] = []
        for subject in range(1, 13):
            self.event(subject, "LAB//50983//mEq/L", 140)

    def event(self, subject: int, code: str, value: float | None, time: dt.datetime | None = ADMITTED, **more: Any) -> None:
        self.rows.append({"subject_id": subject, "time": time, "code": code, "numeric_value": value} | more)

    def write(self) -> Path:
        """Two shards, as MEDS wants it: a subject is in one of them."""
        extra = [
            (name, pa.string()) for name in dict.fromkeys(name for row in self.rows for name in row) if name not in SCHEMA.names
        ]
        for shard in (0, 1):
            rows = [row for row in self.rows if row["subject_id"] % 2 == shard]
            file = self.root / "data" / ("train" if shard else "held_out") / "0.parquet"
            file.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema([*SCHEMA, *extra])), file)
        if self.codes:
            (self.root / "metadata").mkdir()
            pq.write_table(pa.Table.from_pylist(self.codes), self.root / "metadata" / "codes.parquet")
        return self.root


@pytest.fixture
def meds(coded_hospital) -> Meds:
    return Meds(coded_hospital.root / "meds")


def test_the_codes_of_mimic_iv_meds_are_read(coded_hospital, meds):
    meds.event(1, "LAB//RESULT//50931//mg/dL", 99)
    meds.event(2, "LAB//51237//UNK", 1.1)
    meds.event(3, "LAB//51237", 1.2)
    meds.event(3, "LAB//SPECIMEN_COLLECTED//50931", None)
    admissions = coded_hospital.build(labs_meds=meds.write())
    assert admissions[SODIUM].tolist() == [140] * 12
    assert admissions[GLUCOSE].dropna().to_dict() == {1: 99}
    assert admissions[INR].dropna().to_dict() == {2: 1.1, 3: 1.2}
    assert coded_hospital.rejects == []
    assert "meds data/train/0.parquet" in coded_hospital.manifest["inputs"]


def test_32_bits_are_read_as_the_decimal_that_they_stand_for(coded_hospital, meds):
    for subject, value in enumerate((7.35, 7.4, 0.1, 6.88, 7), 1):
        meds.event(subject, "LAB//50820//units", value)
    assert coded_hospital.build(labs_meds=meds.write())[PH].dropna().tolist() == [7.35, 7.4, 0.1, 6.88, 7]


def test_loinc_codes_with_units_in_the_code_the_row_or_the_metadata(coded_hospital, meds):
    for subject, code in enumerate(("LOINC//718-7//g/L", "LOINC/718-7//g/dL", "LOINC//59260-0//mmol/L"), 1):
        meds.event(subject, code, 8)
    meds.event(4, "LOINC/718-7", 130, unit="g/L")
    meds.event(5, "LOINC//718-7", 13)
    meds.event(6, "HGB", 14)
    meds.codes = [
        {"code": "LOINC//718-7", "description": "hemoglobin", "parent_codes": None, "unit": "g/dL"},
        {"code": "HGB", "description": "", "parent_codes": ["SNOMED/1", "LOINC/718-7"], "unit": "g/dL"},
    ]
    found = coded_hospital.build(labs_meds=meds.write())[HEMOGLOBIN].dropna().to_dict()
    assert found == pytest.approx({1: 0.8, 2: 8, 3: 8 * 1.61145, 4: 13, 5: 13, 6: 14})
    assert "meds metadata/codes.parquet" in coded_hospital.manifest["inputs"]


def test_what_cannot_be_used_is_listed_with_its_number(coded_hospital, meds):
    meds.event(1, "LAB//50983//mEq/L", 139, time=None)
    meds.event(2, "LAB//50983//mEq/L", float("inf"))
    meds.event(3, "LAB//51464//mg/dL", 1)  # bilirubin in urine
    meds.event(3, "LAB//51464//mg/dL", 2)
    meds.event(4, "LAB//220045//bpm", 80)
    meds.event(5, "LOINC//2339-0//mg/dL", 90)
    meds.event(6, "LAB//50931//mmol/mol", 5)
    meds.event(7, "HEIGHT", 180)
    meds.event(8, "GLUCOSE OR SODIUM", 5)
    meds.event(9, "DIAGNOSIS//ICD//10//I10", None)
    meds.event(99, "HEIGHT", 180)
    meds.codes = [{"code": "GLUCOSE OR SODIUM", "parent_codes": ["LOINC/2345-7", "LOINC/2951-2"]}]
    assert coded_hospital.build(labs_meds=meds.write())[SODIUM].tolist() == [140] * 12
    assert coded_hospital.rejects == [
        "2 rows: itemid 51464 (LAB//) is not one of the 50 items",
        "1 rows: LAB//50931//mmol/mol: Glucose (50931) in 'mmol/mol', expected 'mg/dL'; convert it first",
        "1 rows: LOINC code 2339-0 stands for none of the 50 items",
        "1 rows: code GLUCOSE OR SODIUM: its parent_codes stand for more than one item",
        "1 rows: code HEIGHT is neither LAB//<itemid> nor LOINC//<code>, and has no such parent code",
        "1 rows: itemid 220045 (LAB//) is not one of the 50 items",
        "1 rows: numeric_value is not a finite number",
        "1 rows: the row has no time (a static measurement)",
    ]


@pytest.mark.parametrize("missing", ["data", "all", "column"])
def test_what_is_wrong_with_the_folder_is_said_with_the_remedy(coded_hospital, meds, missing):
    if missing == "column":
        meds.write()
        file = meds.root / "data" / "train" / "0.parquet"
        pq.write_table(pq.read_table(file).drop_columns(["numeric_value"]), file)
        message = r"train/0\.parquet: lacks the column\(s\) numeric_value\. It has: subject_id, time, code"
    else:
        if missing == "data":
            (meds.root / "metadata").mkdir(parents=True)
        message = (
            r"has no data/\*\*/\*\.parquet" if missing == "data" else "there is no such folder; give the MEDS data set's folder"
        )
    with pytest.raises(InputError, match=message):
        coded_hospital.build(labs_meds=meds.root)


# One hospital, three ways in.


def _write_three_ways(root: Path, rows: pd.DataFrame) -> dict[str, Path]:
    """The same results as labs.csv, OMOP and MEDS.

    Args:
        root: folder.
        rows: subject_id, charttime (text), itemid (text), valuenum, valueuom (None for none), in the hospital's order.
    """
    exact = {code.itemid: code.loinc for code in loinc_codes().values() if code.relation == "exact"}
    rows.to_csv(root / "labs.csv", index=False)
    times = pd.to_datetime(rows["charttime"]).astype("datetime64[us]")

    data = root / "meds" / "data"
    data.mkdir(parents=True)
    codes = "LAB//" + rows["itemid"] + "//" + rows["valueuom"].fillna("UNK")
    events = [rows["subject_id"], times, codes, rows["valuenum"].astype("float32")]
    pq.write_table(pa.table([pa.array(column) for column in events], names=SCHEMA.names).cast(SCHEMA), data / "0.parquet")

    cdm = root / "cdm"
    cdm.mkdir()
    items, units = sorted(exact), sorted(rows["valueuom"].dropna().unique())
    concepts = [(1000 + number, "LOINC", exact[itemid], "") for number, itemid in enumerate(items)]
    concepts += [(5000 + number, "UCUM", unit, "") for number, unit in enumerate(units)]
    pd.DataFrame(concepts, columns=["concept_id", "vocabulary_id", "concept_code", "concept_name"]).to_csv(
        cdm / "CONCEPT.csv", sep="\t", index=False
    )
    measurement = pd.DataFrame(
        {
            "person_id": rows["subject_id"],
            "measurement_concept_id": rows["itemid"].map({itemid: 1000 + number for number, itemid in enumerate(items)}),
            "measurement_datetime": times,
            "value_as_number": rows["valuenum"],
            "unit_concept_id": rows["valueuom"].map({unit: 5000 + number for number, unit in enumerate(units)}).astype("Int64"),
        }
    )
    measurement.to_parquet(cdm / "measurement.parquet", index=False)
    return {"labs": root / "labs.csv", "labs_omop": cdm, "labs_meds": root / "meds"}


def test_one_hospital_gives_the_same_cohort_through_all_its_ways_in(coded_hospital):
    items = [item for item in LAB_ITEMS if item.itemid not in ("50934", "50947", "51678")]  # the indices have no LOINC code
    rows = []
    for subject in range(1, 13):
        for place, item in enumerate(items):
            for repeat in range(2):
                value = round(1 + subject * 0.37 + place * 1.13 + repeat, 2)
                minute = (subject * place + 7 * repeat) % 60
                rows.append((subject, f"2024-05-31 14:{minute:02}:00", item.itemid, value, item.unit or None))
    table = pd.DataFrame(rows, columns=["subject_id", "charttime", "itemid", "valuenum", "valueuom"])
    files = {}
    for name, place in _write_three_ways(coded_hospital.root, table).items():
        admissions = coded_hospital.build(workspace=name, **{name: place})
        assert coded_hospital.rejects == []
        assert admissions[[item.itemid for item in items]].notna().all(axis=None)
        files[name] = (coded_hospital.root / name / "cohort" / "admissions.parquet").read_bytes()
    assert files["labs"] == files["labs_omop"] == files["labs_meds"]


@pytest.mark.realdata
@pytest.mark.skipif("CLINICAL_SYMILE_REAL_DATA" not in os.environ, reason="needs CLINICAL_SYMILE_REAL_DATA")
def test_the_mimic_iv_demo_gives_the_same_cohort_through_all_its_ways_in(tmp_path):
    """The open MIMIC-IV demo 2.2, with its ties, missing units and rows out of order."""
    from clinical_symile.cohort import build_cohort
    from clinical_symile.config import ExperimentConfig
    from clinical_symile.stage import RunOptions

    hosp = Path(os.environ["CLINICAL_SYMILE_REAL_DATA"]) / "labs" / "mimic-iv-clinical-database-demo-2.2" / "hosp"
    with duckdb.connect() as connection:
        text = "auto_detect = true, all_varchar = true"
        admissions = connection.execute(
            f"SELECT subject_id, hadm_id, admittime FROM read_csv('{hosp}/admissions.csv.gz', {text}) ORDER BY 2"
        ).df()
        labs = connection.execute(
            "SELECT subject_id::BIGINT AS subject_id, charttime, itemid, valuenum::DOUBLE AS valuenum, valueuom "
            f"FROM read_csv('{hosp}/labevents.csv.gz', {text}) WHERE itemid IN {LAB_ITEM_IDS} AND valuenum IS NOT NULL "
            "AND itemid NOT IN ('50934', '50947', '51678')"
        ).df()
    admissions.to_csv(tmp_path / "admissions.csv", index=False)
    found = {}
    for name, place in _write_three_ways(tmp_path, labs).items():
        hospital = {"kind": "manifest", "manifest": tmp_path / "admissions.csv", name: place}
        config = ExperimentConfig.model_validate({"hospital": hospital, "cohort": {"require": ["labs"]}})
        build_cohort(config, Workspace(tmp_path / name), RunOptions(quiet=True, jobs=1))
        found[name] = pq.read_table(tmp_path / name / "cohort" / "admissions.parquet")
    assert len(found["labs"]) > 150
    assert found["labs_omop"].equals(found["labs"])
    assert found["labs_meds"].equals(found["labs"])


# The cohort as MEDS labels.


@pytest.fixture
def cohort(coded_hospital, meds) -> Workspace:
    """A finished cohort; its X-rays have the label Edema 1, 0, -1 or none in turn."""
    coded_hospital.build(labs_meds=meds.write())
    workspace = Workspace(coded_hospital.root / "ws")
    file = workspace.cohort / "admissions.parquet"
    table = pq.read_table(file)
    values = pa.array([(1.0, 0.0, -1.0, None)[number % 4] for number in range(len(table))], pa.float64())
    pq.write_table(table.set_column(table.column_names.index("Edema"), "Edema", values), file)
    manifest = json.loads((workspace.cohort / "manifest.json").read_text())
    manifest["outputs"]["admissions.parquet"]["bytes"] = file.stat().st_size
    (workspace.cohort / "manifest.json").write_text(json.dumps(manifest))
    return workspace


def _read(folder: Path) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(folder / f"{name}.parquet") for name in ("train", "tuning", "held_out")])


def test_the_prediction_time_is_the_end_of_the_window(cohort, tmp_path):
    manifest = export_meds_labels(cohort, tmp_path / "out")
    tables = {name: pq.read_table(tmp_path / "out" / f"{name}.parquet") for name in ("train", "tuning", "held_out")}
    for table in tables.values():
        assert table.schema.names == ["subject_id", "prediction_time"]
        assert table.schema.types == [pa.int64(), pa.timestamp("us")]
        assert not any(field.nullable for field in table.schema)
    admissions = pd.read_parquet(cohort.cohort / "admissions.parquet")
    expected = admissions.assign(prediction_time=admissions["admittime"] + pd.Timedelta(hours=24)).set_index("subject_id")
    assert _read(tmp_path / "out").set_index("subject_id")["prediction_time"].sort_index().equals(expected["prediction_time"])
    sizes = {"train": "train", "tuning": "val", "held_out": "test"}
    assert {name: len(table) for name, table in tables.items()} == {
        name: int((admissions["split"] == split).sum()) for name, split in sizes.items()
    }
    assert manifest["rows"] == {name: len(table) for name, table in tables.items()}
    assert manifest["access"] == "credentialed"
    assert manifest["subject_id"] == "the hospital's own"
    assert json.loads((tmp_path / "out" / "manifest.json").read_text()) == manifest
    for path in (tmp_path / "out", *(tmp_path / "out").iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_the_time_of_admission_can_be_asked_for(cohort, tmp_path):
    export_meds_labels(cohort, tmp_path / "out", at="admission")
    assert set(_read(tmp_path / "out")["prediction_time"].astype(str)) == {"2024-05-31 13:45:00"}


def test_a_label_is_true_or_false_and_uncertain_ones_are_left_out(cohort, tmp_path):
    manifest = export_meds_labels(cohort, tmp_path / "out", label="Edema")
    labels = _read(tmp_path / "out").set_index("subject_id")["boolean_value"]
    assert labels.sort_index().to_dict() == {1: True, 2: False, 5: True, 6: False, 9: True, 10: False}
    assert sum(manifest["left_out"].values()) == 6
    assert pq.read_schema(tmp_path / "out" / "train.parquet").field("boolean_value") == pa.field(
        "boolean_value", pa.bool_(), False
    )


def test_an_export_is_not_written_over(cohort, tmp_path):
    export_meds_labels(cohort, tmp_path / "out", label="Edema")
    with pytest.raises(InputError, match="holds an export already; --overwrite replaces it"):
        export_meds_labels(cohort, tmp_path / "out")
    export_meds_labels(cohort, tmp_path / "out", overwrite=True)
    assert len(_read(tmp_path / "out")) == 12
    (tmp_path / "out" / "thesis.docx").touch()
    with pytest.raises(InputError, match=r"holds files that are no MEDS labels \(thesis\.docx\)"):
        export_meds_labels(cohort, tmp_path / "out", overwrite=True)
    with pytest.raises(InputError, match="is a file"):
        export_meds_labels(cohort, tmp_path / "out" / "thesis.docx")


def test_wrong_wishes_are_refused(cohort, tmp_path):
    with pytest.raises(ConfigError, match="there is no such CheXpert label; the labels are: Atelectasis"):
        export_meds_labels(cohort, tmp_path / "out", label="Oedema")
    with pytest.raises(InputError, match="no admission is known to have or not to have 'Fracture'"):
        export_meds_labels(cohort, tmp_path / "out", label="Fracture")
    with pytest.raises(IncompleteStage, match="clinical-symile cohort"):
        export_meds_labels(Workspace(tmp_path / "empty"), tmp_path / "out")
    assert not (tmp_path / "out").exists()

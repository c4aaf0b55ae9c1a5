"""A hospital in MIMIC's layout, small enough to write by hand: each test says only what matters to it."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from clinical_symile.cohort import build_cohort
from clinical_symile.cohort.integrity import digest_tables
from clinical_symile.cohort.mimic import find_mimic, load_mimic
from clinical_symile.cohort.parquet_cache import ParquetCache
from clinical_symile.cohort.selection import select_admissions
from clinical_symile.cohort.source import connect
from clinical_symile.config import CohortConfig, ExperimentConfig
from clinical_symile.stage import RunOptions, Workspace
from clinical_symile.types import CHEXPERT_LABELS, EcgCondition

QUIET = RunOptions(quiet=True, jobs=1)
SODIUM, POTASSIUM = "50983", "50971"


@dataclass
class SmallHospital:
    """Rows of MIMIC's tables, in the order in which they will stand in the files. Hours count from ``admitted``."""

    root: Path
    admitted: datetime = datetime(2150, 3, 1, 22, 30)
    patients: dict[int, dict[str, Any]] = field(default_factory=dict)
    admissions: list[dict[str, Any]] = field(default_factory=list)
    images: list[dict[str, Any]] = field(default_factory=list)
    findings: list[dict[str, Any]] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    labs: list[dict[str, Any]] = field(default_factory=list)
    bad_ecgs: set[str] = field(default_factory=set)
    flat_ecgs: set[str] = field(default_factory=set)
    opened: list[str] = field(default_factory=list)
    notes: dict[tuple[str, str], int] = field(default_factory=dict)

    @property
    def mimic_iv(self) -> Path:
        return self.root / "mimic-iv"

    @property
    def mimic_cxr(self) -> Path:
        return self.root / "mimic-cxr"

    @property
    def mimic_ecg(self) -> Path:
        return self.root / "mimic-ecg"

    def admit(self, subject_id: int, hadm_id: int, hours: float = 0, *, stay: float | None = None, dies: bool = False) -> None:
        """``stay`` is in hours; without it, nothing is known of the admission's end."""
        person = {"subject_id": subject_id, "gender": "F", "anchor_age": 60, "anchor_year": 2148}
        self.patients.setdefault(subject_id, person)
        time = f"{self.admitted + timedelta(hours=hours):%Y-%m-%d %H:%M:%S}"
        row = {"subject_id": subject_id, "hadm_id": hadm_id, "admittime": time, "race": "WHITE"}
        if stay is not None:
            row["deathtime" if dies else "dischtime"] = f"{self.admitted + timedelta(hours=hours + stay):%Y-%m-%d %H:%M:%S}"
        self.admissions.append(row)

    def cxr(
        self,
        subject_id: int,
        hours: float,
        name: str,
        *,
        view: str = "AP",
        on_disk: bool = True,
        labels: bool = True,
        study: int | None = None,
    ) -> None:
        time = self.admitted + timedelta(hours=hours)
        study = study or 50_000_000 + len(self.images)
        seconds = f"{int(f'{time:%H%M%S}')}.0"  # leading zeros are lost in MIMIC-CXR
        columns = {"StudyDate": f"{time:%Y%m%d}", "StudyTime": seconds, "ViewPosition": view}
        self.images.append({"dicom_id": name, "subject_id": subject_id, "study_id": study, **columns})
        if labels and study not in {row["study_id"] for row in self.findings}:
            self.findings.append({"subject_id": subject_id, "study_id": study, "Edema": 1.0, "Pneumonia": -1.0})
        if on_disk:
            file = self.mimic_cxr / f"files/p{str(subject_id)[:2]}/p{subject_id}/s{study}/{name}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()

    def ecg(self, subject_id: int, hours: float, study_id: int, *, usable: bool = True, flat: bool = False) -> None:
        time = f"{self.admitted + timedelta(hours=hours):%Y-%m-%d %H:%M:%S}"
        path = f"files/p1000/p{subject_id}/s{study_id}/{study_id}"
        self.records.append({"subject_id": subject_id, "study_id": study_id, "ecg_time": time, "path": path})
        if not usable:
            self.bad_ecgs.add(path)
        if flat:
            self.flat_ecgs.add(path)

    def lab(
        self, subject_id: int, hours: float, value: float | str, itemid: str = SODIUM, hadm_id: int | str = "", unit: str = ""
    ) -> None:
        time = f"{self.admitted + timedelta(hours=hours):%Y-%m-%d %H:%M:%S}"
        row = {
            "subject_id": subject_id,
            "hadm_id": hadm_id,
            "itemid": itemid,
            "charttime": time,
            "valuenum": value,
            "valueuom": unit,
            "value": "___",
        }
        self.labs.append(row)

    def complete(self, subject_id: int, hadm_id: int, hours: float = 0, *, without: str = "") -> None:
        """An admission with an X-ray, an ECG and a lab, or without one of them."""
        self.admit(subject_id, hadm_id, hours)
        if without != "cxr":
            self.cxr(subject_id, hours + 30, f"image-{hadm_id}")
        if without != "ecg":
            self.ecg(subject_id, hours - 1, 40_000_000 + hadm_id % 1_000_000)
        if without != "labs":
            self.lab(subject_id, hours + 1, 140)

    def write(self) -> None:
        """Writes the files, gzipped where MIMIC's are."""
        hosp, cxr = self.mimic_iv / "hosp", self.mimic_cxr
        _write(hosp / "patients.csv.gz", ("subject_id", "gender", "anchor_age", "anchor_year"), list(self.patients.values()))
        _write(
            hosp / "admissions.csv.gz", ("subject_id", "hadm_id", "admittime", "race", "dischtime", "deathtime"), self.admissions
        )
        lab_columns = ("labevent_id", "subject_id", "hadm_id", "itemid", "charttime", "value", "valuenum", "valueuom")
        _write(hosp / "labevents.csv.gz", lab_columns, self.labs)
        image_columns = ("dicom_id", "subject_id", "study_id", "ViewPosition", "StudyDate", "StudyTime")
        _write(cxr / "mimic-cxr-2.0.0-metadata.csv.gz", image_columns, self.images)
        _write(cxr / "mimic-cxr-2.0.0-chexpert.csv.gz", ("subject_id", "study_id", *CHEXPERT_LABELS), self.findings)
        _write(self.mimic_ecg / "record_list.csv", ("subject_id", "study_id", "ecg_time", "path"), self.records)

    def config(self, **cohort: Any) -> ExperimentConfig:
        """Configuration that reads these files."""
        places = {"mimic_iv": self.mimic_iv, "mimic_cxr": self.mimic_cxr, "mimic_ecg": self.mimic_ecg}
        return ExperimentConfig.model_validate({"hospital": places, "cohort": cohort})

    def check_ecg(self, path: Path, root: Path) -> EcgCondition:
        """Stands for ``modalities.ecg.examine``; notes what was opened."""
        relative = path.relative_to(root).as_posix()
        self.opened.append(relative)
        if relative in self.bad_ecgs:
            return EcgCondition(fault="is flat")
        return EcgCondition(flat_leads=("V1",) if relative in self.flat_ecgs else ())

    def select(self, **cohort: Any) -> tuple[pd.DataFrame, list[Any], list[Any]]:
        """Applies the rules without splits; gives admissions (indexed by hadm_id), attrition and rejects."""
        self.write()
        tables = find_mimic(self.mimic_iv, self.mimic_cxr, self.mimic_ecg)
        with connect(self.root / "spill") as connection:
            cache = ParquetCache(self.root / "tables", digest_tables(tables, QUIET), QUIET)
            source = load_mimic(connection, tables, cache, self.mimic_cxr, self.mimic_ecg)
            table, attrition, rejects = select_admissions(connection, source, CohortConfig(**cohort), self.check_ecg, QUIET)
        self.notes = {(note["rule"], note["what"]): note["count"] for note in attrition.notes}
        return table.to_pandas().set_index("hadm_id"), attrition.steps, rejects


def _write(file: Path, columns: tuple[str, ...], rows: list[Mapping[str, Any]] | list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(file, "wt") if file.suffix == ".gz" else file.open("w") as handle:
        writer = csv.DictWriter(handle, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def hospital(tmp_path: Path) -> SmallHospital:
    """An empty hospital."""
    return SmallHospital(tmp_path / "hospital")


@pytest.fixture
def new_hospital() -> Callable[[Path], SmallHospital]:
    """Makes an empty hospital in a folder."""
    return SmallHospital


@dataclass
class CodedHospital:
    """``admissions.csv`` of twelve patients with all files, whose labs a test writes in the form it is about."""

    root: Path
    n: int = 12

    def __post_init__(self) -> None:
        (self.root / "cxr").mkdir(parents=True)
        rows = []
        for number in range(1, self.n + 1):
            (self.root / f"cxr/{number}.png").touch()
            row = {"subject_id": number, "hadm_id": 900 + number, "admittime": "2024-05-31 13:45"}
            rows.append(row | {"ecg_path": f"ecg/{number}", "cxr_path": f"cxr/{number}.png"})
        _write(self.root / "admissions.csv", tuple(rows[0]), rows)

    def build(self, workspace: str = "ws", **hospital: Any) -> pd.DataFrame:
        """The cohort's admissions by subject; ``manifest`` and ``rejects`` are kept."""
        rules = {"val_fraction": 0.3, "test_fraction": 0.3, "candidates": 2, "seed": 1}
        places = {"kind": "manifest", "manifest": self.root / "admissions.csv"} | hospital
        where = Workspace(self.root / workspace)
        self.manifest = build_cohort(ExperimentConfig.model_validate({"hospital": places, "cohort": rules}), where, QUIET)
        self.rejects: list[str] = pd.read_parquet(where.cohort / "rejects.parquet")["reason"].tolist()
        return pd.read_parquet(where.cohort / "admissions.parquet").set_index("subject_id")


@pytest.fixture
def coded_hospital(tmp_path: Path) -> CodedHospital:
    """A hospital without labs."""
    return CodedHospital(tmp_path / "coded")

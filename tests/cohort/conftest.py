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

from clinical_symile.cohort.mimic import find_mimic, load_mimic
from clinical_symile.cohort.selection import select_admissions
from clinical_symile.cohort.source import connect
from clinical_symile.config import CohortConfig, ExperimentConfig
from clinical_symile.stage import RunOptions
from clinical_symile.types import CHEXPERT_LABELS

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
    opened: list[str] = field(default_factory=list)

    @property
    def mimic_iv(self) -> Path:
        return self.root / "mimic-iv"

    @property
    def mimic_cxr(self) -> Path:
        return self.root / "mimic-cxr"

    @property
    def mimic_ecg(self) -> Path:
        return self.root / "mimic-ecg"

    def admit(self, subject_id: int, hadm_id: int, hours: float = 0) -> None:
        person = {"subject_id": subject_id, "gender": "F", "anchor_age": 60, "anchor_year": 2148}
        self.patients.setdefault(subject_id, person)
        time = f"{self.admitted + timedelta(hours=hours):%Y-%m-%d %H:%M:%S}"
        self.admissions.append({"subject_id": subject_id, "hadm_id": hadm_id, "admittime": time, "race": "WHITE"})

    def cxr(
        self, subject_id: int, hours: float, name: str, *, view: str = "AP", on_disk: bool = True, labels: bool = True
    ) -> None:
        time = self.admitted + timedelta(hours=hours)
        study = 50_000_000 + len(self.images)
        seconds = f"{int(f'{time:%H%M%S}')}.0"  # leading zeros are lost in MIMIC-CXR
        columns = {"StudyDate": f"{time:%Y%m%d}", "StudyTime": seconds, "ViewPosition": view}
        self.images.append({"dicom_id": name, "subject_id": subject_id, "study_id": study, **columns})
        if labels:
            self.findings.append({"subject_id": subject_id, "study_id": study, "Edema": 1.0, "Pneumonia": -1.0})
        if on_disk:
            file = self.mimic_cxr / f"files/p{str(subject_id)[:2]}/p{subject_id}/s{study}/{name}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()

    def ecg(self, subject_id: int, hours: float, study_id: int, *, usable: bool = True) -> None:
        time = f"{self.admitted + timedelta(hours=hours):%Y-%m-%d %H:%M:%S}"
        path = f"files/p1000/p{subject_id}/s{study_id}/{study_id}"
        self.records.append({"subject_id": subject_id, "study_id": study_id, "ecg_time": time, "path": path})
        if not usable:
            self.bad_ecgs.add(path)

    def lab(self, subject_id: int, hours: float, value: float | str, itemid: str = SODIUM, hadm_id: int | str = "") -> None:
        time = f"{self.admitted + timedelta(hours=hours):%Y-%m-%d %H:%M:%S}"
        row = {
            "subject_id": subject_id,
            "hadm_id": hadm_id,
            "itemid": itemid,
            "charttime": time,
            "valuenum": value,
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
        _write(hosp / "admissions.csv.gz", ("subject_id", "hadm_id", "admittime", "race"), self.admissions)
        lab_columns = ("labevent_id", "subject_id", "hadm_id", "itemid", "charttime", "value", "valuenum")
        _write(hosp / "labevents.csv.gz", lab_columns, self.labs)
        image_columns = ("dicom_id", "subject_id", "study_id", "ViewPosition", "StudyDate", "StudyTime")
        _write(cxr / "mimic-cxr-2.0.0-metadata.csv.gz", image_columns, self.images)
        _write(cxr / "mimic-cxr-2.0.0-chexpert.csv.gz", ("subject_id", "study_id", *CHEXPERT_LABELS), self.findings)
        _write(self.mimic_ecg / "record_list.csv", ("subject_id", "study_id", "ecg_time", "path"), self.records)

    def config(self, **cohort: Any) -> ExperimentConfig:
        """Configuration that reads these files."""
        places = {"mimic_iv": self.mimic_iv, "mimic_cxr": self.mimic_cxr, "mimic_ecg": self.mimic_ecg}
        return ExperimentConfig.model_validate({"hospital": places, "cohort": cohort})

    def check_ecg(self, path: Path, root: Path) -> str | None:
        """Stands for ``modalities.ecg.is_usable``; notes what was opened."""
        relative = path.relative_to(root).as_posix()
        self.opened.append(relative)
        return "is flat" if relative in self.bad_ecgs else None

    def select(self, **cohort: Any) -> tuple[pd.DataFrame, list[Any], list[Any]]:
        """Applies the rules without splits; gives admissions (indexed by hadm_id), attrition and rejects."""
        self.write()
        tables = find_mimic(self.mimic_iv, self.mimic_cxr, self.mimic_ecg)
        with connect(self.root / "spill") as connection:
            source = load_mimic(connection, tables, self.mimic_cxr, self.mimic_ecg)
            table, attrition, rejects = select_admissions(connection, source, CohortConfig(**cohort), self.check_ecg, QUIET)
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

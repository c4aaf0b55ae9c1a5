"""Builds a hospital of kind ``manifest`` out of openly licensed real files, with an invented pairing.

    python pipelines/real_files.py DATA_DIR OUT_DIR

Real chest X-rays (Hannover, covid-chestxray-dataset, NIH ChestX-ray14, DICOM samples), real 12-lead ECGs (LUDB, CinC 2021)
and real laboratory results (MIMIC-IV demo) come from different people: no open data set holds all three of one patient.
They are put together here, so that the whole path runs on real files. **Nothing can be learned about medicine from it**,
and ``OUT_DIR/README.md``, the ids in both tables and the folder's licence note say so.

Each X-ray becomes one admission. Its patient is joined with one patient of the MIMIC-IV demo, who lends the admission
times, laboratory results, sex, age and race; all X-rays of one patient go to different admissions of that same patient, so
patient-disjoint splits stay so. Each admission gets an ECG of its own. There is no randomness: sorted lists are zipped.
"""

from __future__ import annotations

import argparse
import csv
import logging
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import zip_longest
from pathlib import Path

import pandas as pd

from clinical_symile.errors import ClinicalSymileError, InputError
from clinical_symile.stage import atomic_path, write_text
from clinical_symile.types import LAB_ITEM_IDS

logger = logging.getLogger("real_files")

LAB_WINDOW = timedelta(hours=48)
"""Results this close to an admission are kept: twice the cohort's window, so that the window still has work to do."""

SAME_SIGNAL_TWICE = ("E07510",)
"""E07509 and E07510 of CinC 2021 hold the same signal; only the first is used."""

ATTRIBUTION = Path("cxr/covid-chestxray-dataset/attribution.csv")

README = """# Real files, invented pairing

**No row of these tables describes a person who exists.** Each admission joins a real chest X-ray, a real 12-lead ECG and real
laboratory results of *different* people (hence the ids `invented-…`), so that software can be run on real files. Do not draw
any medical conclusion from them, nor from a model trained on them.

{admissions} admissions of {subjects} invented subjects, {labs} laboratory results.

| file | what |
|---|---|
| `admissions.csv` | one row per admission; times and people as in the MIMIC-IV demo (shifted dates) |
| `labs.csv` | one row per result of the 50 items within 48 h of an admission |
| `cxr/`, `ecg/` | byte-identical copies of the source files; paths in `admissions.csv` are relative to this folder |

Made by `python pipelines/real_files.py DATA_DIR OUT_DIR`; the same files give the same bytes.

## Sources; their licences travel with the files
- `cxr/hannover`, `cxr/covid-chestxray-dataset`: COVID-19 image repository of Hannover Medical School, Winther et al.,
  doi 10.25835/0090041, CC BY 3.0; the article figures by others: `cxr/covid-chestxray-dataset/attribution.csv`, CC BY and
  CC BY-SA; collected by Cohen et al. 2020, arXiv 2006.11988.
- `cxr/nih-chestxray14`: provided by the NIH Clinical Center, https://nihcc.app.box.com/v/ChestXray-NIHCC, Wang et al., CVPR
  2017; no restrictions on use.
- `cxr/dicom`: compression samples of NEMA WG-04, republished by pydicom (MIT), and gdcmData (BSD-style).
- `ecg/ludb`: LUDB 1.0.1, Kalyakulina et al. 2020, doi 10.1109/ACCESS.2020.3029211, ODC-By 1.0.
- `ecg/cinc2021`: PhysioNet/CinC Challenge 2021, Reyna et al., doi 10.23919/CinC53138.2021.9662687, CC BY 4.0.
- `labs.csv`, admission times, sex, age, race: MIMIC-IV Clinical Database Demo 2.2, Johnson et al. 2023, doi
  10.13026/dp1f-ex47, ODbL 1.0. Both tables are a derivative database of it and stay under ODbL.
"""


@dataclass(frozen=True)
class XRay:
    """A frontal chest X-ray: its path in the data folder, whose it is, and AP or PA."""

    path: Path
    patient: str
    view: str


@dataclass(frozen=True)
class Stay:
    """One admission of the MIMIC-IV demo that has laboratory results near its beginning."""

    patient: int
    admittime: pd.Timestamp
    gender: str
    age: int
    race: str


@dataclass(frozen=True)
class Admission:
    """One row of the invented hospital."""

    subject_id: str
    hadm_id: str
    stay: Stay
    xray: XRay
    ecg: Path
    ecg_time: pd.Timestamp
    cxr_time: pd.Timestamp


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; gives its exit code."""
    parser = argparse.ArgumentParser(description="A hospital of real files with an invented pairing.")
    parser.add_argument("data_dir", type=Path, help="folder with cxr/, ecg/ and labs/")
    parser.add_argument("out_dir", type=Path, help="folder to write; created if need be")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        build(options.data_dir, options.out_dir)
    except ClinicalSymileError as error:
        logger.error("%s", error)
        return error.exit_code
    return 0


def build(data_dir: Path, out_dir: Path) -> None:
    """Writes the hospital.

    Args:
        data_dir: folder with ``cxr/``, ``ecg/`` and ``labs/``, laid out as its README says.
        out_dir: where ``admissions.csv``, ``labs.csv``, ``README.md`` and copies of the files go.

    Raises:
        InputError: a source is missing, or there are too few ECGs or laboratory patients for the X-rays.
    """
    results = read_results(data_dir)
    admissions = pair(find_xrays(data_dir), find_ecgs(data_dir), find_stays(data_dir, results))
    for admission in admissions:
        _copy(data_dir, out_dir, admission.xray.path)
        for path in sorted((data_dir / admission.ecg.parent).glob(f"{admission.ecg.name}.*")):
            if path.suffix in (".hea", ".dat", ".mat"):
                _copy(data_dir, out_dir, path.relative_to(data_dir))
    _copy(data_dir, out_dir, ATTRIBUTION)
    labs = select_results(results, admissions)
    _write_csv(out_dir / "admissions.csv", pd.DataFrame([_row(admission) for admission in admissions]))
    _write_csv(out_dir / "labs.csv", labs)
    subjects = len({admission.subject_id for admission in admissions})
    write_text(out_dir / "README.md", README.format(admissions=len(admissions), subjects=subjects, labs=len(labs)))
    logger.info("%s: %d admissions of %d invented subjects, %d laboratory results", out_dir, len(admissions), subjects, len(labs))


def find_xrays(data_dir: Path) -> list[XRay]:
    """All ordinary frontal X-rays, in order of path."""
    hannover = {row["image_id"]: row for row in _rows(data_dir / "cxr/hannover/data.csv")}
    attribution = {row["filename"]: row for row in _rows(data_dir / ATTRIBUTION)}
    nih = {row["Image Index"]: row for row in _rows(data_dir / "cxr/nih-chestxray14/Data_Entry_2017_v2020.csv")}
    found = []
    for folder in ("hannover/png", "covid-chestxray-dataset/images", "nih-chestxray14", "dicom"):
        for path in sorted((data_dir / "cxr" / folder).glob("*.*")):
            if path.stem in hannover:  # its images are also in covid-chestxray-dataset, under the same names
                row = hannover[path.stem]
                patient, view = f"hannover {row['patient_id']}", row["projection"]
            elif path.name in attribution:
                row = attribution[path.name]
                # Figures of one article show one patient.
                patient, view = f"article {row['doi'] or row['source']}", row["projection"]
            elif path.name in nih:
                patient, view = f"nih {nih[path.name]['Patient ID']}", nih[path.name]["View Position"]
            elif path.suffix == ".dcm":
                patient, view = f"dicom {path.name}", "PA"  # as their ViewPosition says
            else:
                continue
            found.append(XRay(path.relative_to(data_dir), patient, view.upper()))
    return found


def find_ecgs(data_dir: Path) -> list[Path]:
    """All ordinary 12-lead records, without extension, the two sources taking turns so that neither fills one split."""
    sources = [
        sorted(path.relative_to(data_dir).with_suffix("") for path in (data_dir / folder).glob("*.hea"))
        for folder in ("ecg/ludb/data", "ecg/cinc2021")
    ]
    turns = [record for pair_of in zip_longest(*sources) for record in pair_of if record is not None]
    return [record for record in turns if record.name not in SAME_SIGNAL_TWICE]


def read_results(data_dir: Path) -> pd.DataFrame:
    """The demo's numeric results of the 50 items, in file order."""
    results = _table(data_dir, "labevents", ["subject_id", "charttime", "itemid", "valuenum", "valueuom"], "charttime")
    return results[results.itemid.astype(str).isin(LAB_ITEM_IDS) & results.valuenum.notna()]


def find_stays(data_dir: Path, results: pd.DataFrame) -> list[list[Stay]]:
    """The admissions with a result within 24 h, patient by patient, patients with the most admissions first."""
    columns = ["subject_id", "hadm_id", "admittime", "race"]
    people = _table(data_dir, "patients", ["subject_id", "gender", "anchor_age", "anchor_year"])
    stays: dict[int, list[Stay]] = {}
    times = dict(iter(results.groupby("subject_id").charttime))
    for row in (
        _table(data_dir, "admissions", columns, "admittime").merge(people, on="subject_id").sort_values("admittime").itertuples()
    ):
        near = (times[row.subject_id] - row.admittime).abs() <= pd.Timedelta(hours=24) if row.subject_id in times else None
        if near is not None and near.any():
            age = int(row.anchor_age + row.admittime.year - row.anchor_year)
            stays.setdefault(int(row.subject_id), []).append(Stay(int(row.subject_id), row.admittime, row.gender, age, row.race))
    return sorted(stays.values(), key=lambda of_patient: (-len(of_patient), of_patient[0].patient))


def pair(xrays: Sequence[XRay], ecgs: Sequence[Path], stays: Sequence[Sequence[Stay]]) -> list[Admission]:
    """Invents the pairing: the patient with the most X-rays gets the laboratory patient with the most admissions, and so on.

    Raises:
        InputError: there are not enough ECGs, laboratory patients, or admissions of one of them.
    """
    of_patient: dict[str, list[XRay]] = {}
    for xray in xrays:
        of_patient.setdefault(xray.patient, []).append(xray)
    groups = sorted(of_patient.values(), key=lambda group: (-len(group), group[0].patient))
    if len(ecgs) < len(xrays) or len(stays) < len(groups) or not xrays:
        raise InputError(
            f"{len(xrays)} X-rays of {len(groups)} patients, {len(ecgs)} ECGs and {len(stays)} laboratory patients were found: "
            "at least one X-ray, an ECG for each and a laboratory patient for each of their patients are needed"
        )
    admissions: list[Admission] = []
    for number, (group, of_one) in enumerate(zip(groups, stays, strict=False), 1):
        if len(of_one) < len(group):
            raise InputError(f"a patient has {len(group)} X-rays, but no laboratory patient is left with as many admissions")
        for visit, (xray, stay) in enumerate(zip(group, of_one, strict=False), 1):
            k = len(admissions)
            # Steps that share no factor with 47 visit every hour of the windows: ECG -23…+23 h, X-ray +25…+71 h.
            ecg_time = stay.admittime + timedelta(hours=7 * k % 47 - 23)
            cxr_time = stay.admittime + timedelta(hours=11 * k % 47 + 25)
            subject = f"invented-{number:03d}"
            admissions.append(Admission(subject, f"{subject}-{visit}", stay, xray, ecgs[k], ecg_time, cxr_time))
    return admissions


def select_results(results: pd.DataFrame, admissions: Sequence[Admission]) -> pd.DataFrame:
    """The results near any of the admissions, under the invented subjects, in file order."""
    kept = []
    for admission in admissions:
        own = results[results.subject_id == admission.stay.patient]
        near = own[(own.charttime - admission.stay.admittime).abs() <= LAB_WINDOW]
        kept.append(near.assign(subject_id=admission.subject_id))
    together = pd.concat(kept)
    # Two admissions of one subject may share results; the index is the line of labevents.
    return together[~together.index.duplicated()].sort_index()


def _row(admission: Admission) -> dict[str, object]:
    stay = admission.stay
    return {
        "subject_id": admission.subject_id,
        "hadm_id": admission.hadm_id,
        "admittime": stay.admittime,
        "ecg_path": admission.ecg.as_posix(),
        "ecg_time": admission.ecg_time,
        "cxr_path": admission.xray.path.as_posix(),
        "cxr_time": admission.cxr_time,
        "cxr_view": admission.xray.view,
        "gender": stay.gender,
        "age": stay.age,
        "race": stay.race,
    }


def _table(data_dir: Path, name: str, columns: list[str], time: str | None = None) -> pd.DataFrame:
    path = data_dir / "labs/mimic-iv-clinical-database-demo-2.2/hosp" / f"{name}.csv.gz"
    if not path.is_file():
        raise InputError(f"{path}: is missing; DATA_DIR must hold the MIMIC-IV demo")
    return pd.read_csv(path, usecols=columns, parse_dates=[time] if time else [])[columns]


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise InputError(f"{path}: is missing; it says whose each X-ray is")
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def _copy(data_dir: Path, out_dir: Path, relative: Path) -> None:
    with atomic_path(out_dir / relative) as temporary:
        shutil.copyfile(data_dir / relative, temporary)


def _write_csv(path: Path, table: pd.DataFrame) -> None:
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, date_format="%Y-%m-%d %H:%M:%S", lineterminator="\n")


if __name__ == "__main__":
    sys.exit(main())

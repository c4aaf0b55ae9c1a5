"""Writes tables in MIMIC's layout, as many rows as all of MIMIC has or a share of them: for measuring, not for training.

    python tests/benchmarks/mimic_tables.py OUT [--share 1.0] [--seed 0] [--files]

``OUT/mimic-iv/hosp`` gets patients, admissions and labevents, ``OUT/mimic-cxr`` the metadata and CheXpert tables,
``OUT/mimic-ecg`` the record list. With a share of 1: 299,712 patients, about 431,000 admissions, 118 million laboratory
results, 377,000 images and 800,000 ECGs. Patients are made in groups, each with a generator seeded by the seed and the group,
and written as they come: memory does not grow with the share, and a smaller share is the beginning of a larger one.

The numbers that decide the cost follow MIMIC-IV (share of patients with admissions, results per draw, share of the 50 items,
of missing hadm_id, of missing values, of comments; the MIMIC-IV demo); the clinical content is noise.

With ``--files``, each frontal image that lies in the rules' window becomes an empty file, and each ECG of an admission with
such an image becomes a readable WFDB record of MIMIC's size (122 kB); about 1 in 76 has a missing sample, 1 in 400 is flat.
"""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc

from clinical_symile.types import CHEXPERT_LABELS, LAB_ITEMS

PATIENTS: Final = 299_712
GROUP: Final = 2_000
"""Patients made at a time: about 90 MB of laboratory results."""

_ADMITTED = 0.603  # of the patients have an admission; the number of admissions is geometric with this mean
_ADMISSIONS_EACH = 2.387
_DRAWS_PER_DAY = 2.785
_RESULTS_PER_DRAW = 18.4
_OUTPATIENT_DRAWS = 3.0
_IMAGES_EACH = 1.34  # per admission, of patients who have images
_WITH_IMAGES = 0.36  # of the admitted patients
_ECGS_EACH = 1.545  # per admission, before or after it
_ECG_OUTSIDE = 0.45  # per patient
_HOUR = 3600

_QUOTED = "VERIFIED @"
"""Stands for a comment with a comma and quotes until the CSV is written: pyarrow quotes all cells or none, MIMIC some."""


class Group(NamedTuple):
    """The tables of a group of patients, and the files that an admission could be given."""

    tables: dict[str, pa.Table]
    images: list[str]
    records: list[str]


def make_group(seed: int, group: int, patients: int) -> Group:
    """All tables of patients ``group * GROUP`` and the following."""
    rng = np.random.default_rng([seed, group])
    subject = 10_000_000 + 33 * (group * GROUP + np.arange(patients))
    anchor_year = rng.integers(2110, 2200, patients)
    person = {
        "subject_id": subject,
        "gender": rng.choice(["F", "M"], patients),
        "anchor_age": rng.integers(18, 92, patients),
        "anchor_year": anchor_year,
        "anchor_year_group": rng.choice(["2008 - 2010", "2011 - 2013", "2014 - 2016", "2017 - 2019"], patients),
        "dod": pa.nulls(patients, pa.string()),
    }
    stays = np.where(rng.random(patients) < _ADMITTED, rng.geometric(1 / _ADMISSIONS_EACH, patients), 0)
    who = np.repeat(np.arange(patients), stays)
    first = (anchor_year - 1970) * 31_557_600
    admit = (first[who] + rng.integers(0, 5 * 31_557_600, len(who))) // 60 * 60
    days = np.minimum(rng.lognormal(1.05, 0.9, len(who)), 90)
    discharge = admit + (days * 24 * _HOUR).astype(np.int64) // 60 * 60
    hadm = 20_000_000 + group * 20_000 + rng.permutation(20_000)[: len(who)]
    tables = {
        "patients": pa.table(person),
        "admissions": _admissions(rng, subject[who], hadm, admit, discharge),
        "labevents": _labs(rng, group, subject, who, hadm, admit, days, first),
    }
    images, image_paths, pictured = _images(rng, group, subject, who, admit, days)
    records, record_paths = _records(rng, group, subject, who, admit, pictured)
    return Group(tables | images | {"record_list": records}, image_paths, record_paths)


def _admissions(
    rng: np.random.Generator, subject: np.ndarray, hadm: np.ndarray, admit: np.ndarray, discharge: np.ndarray
) -> pa.Table:
    n = len(subject)
    died = rng.random(n) < 0.02
    return pa.table(
        {
            "subject_id": subject,
            "hadm_id": hadm,
            "admittime": _times(admit),
            "dischtime": _times(discharge),
            "deathtime": _times(discharge, ~died),
            "admission_type": rng.choice(["EW EMER.", "URGENT", "ELECTIVE", "EU OBSERVATION"], n),
            "admit_provider_id": _codes("P", rng, n),
            "admission_location": rng.choice(["EMERGENCY ROOM", "PHYSICIAN REFERRAL", "TRANSFER FROM HOSPITAL"], n),
            "discharge_location": rng.choice(["HOME", "HOME HEALTH CARE", "SKILLED NURSING FACILITY"], n),
            "insurance": rng.choice(["Medicare", "Medicaid", "Other"], n),
            "language": rng.choice(["ENGLISH", "?"], n, p=[0.9, 0.1]),
            "marital_status": rng.choice(["MARRIED", "SINGLE", "WIDOWED", "DIVORCED"], n),
            "race": rng.choice(["WHITE", "BLACK/AFRICAN AMERICAN", "ASIAN", "HISPANIC OR LATINO", "UNKNOWN"], n),
            "edregtime": _times(admit - 5 * _HOUR, rng.random(n) < 0.3),
            "edouttime": _times(admit - _HOUR, rng.random(n) < 0.3),
            "hospital_expire_flag": died.astype(np.int8),
        }
    )


class _Panel(NamedTuple):
    """What a result may look like, apart from whose it is and when: drawn from, row by row."""

    itemid: pa.Array
    value: pa.Array
    valuenum: pa.Array
    unit: pa.Array
    low: pa.Array
    high: pa.Array
    flag: pa.Array
    priority: pa.Array
    comment: pa.Array


def _panel(size: int = 60_000) -> _Panel:
    rng = np.random.default_rng(20)
    listed = rng.random(size) < 0.772
    item = rng.integers(0, len(LAB_ITEMS), size)
    low = np.array([1.0 if lab.reference_low is None else lab.reference_low for lab in LAB_ITEMS])[item]
    high = np.array([9.0 if lab.reference_high is None else lab.reference_high for lab in LAB_ITEMS])[item]
    number = np.round(np.abs((low + high) / 2 + (high - low) * rng.normal(0, 0.5, size)), 1)
    unknown = rng.random(size) < np.where(listed, 0.003, 0.52)
    text = [f"{value:g}" for value in number]
    other = rng.integers(52_200, 52_600, size)
    remark = rng.choice(["NEG.", "HOLD.  DISCARD GREATER THAN 4 HOURS OLD.", _QUOTED], size)
    return _Panel(
        itemid=pa.array(
            [LAB_ITEMS[i].itemid if is_listed else str(o) for i, is_listed, o in zip(item, listed, other, strict=True)]
        ),
        value=pa.array(np.where(unknown, "___", text)),
        valuenum=pa.array(text, mask=unknown),
        unit=pa.array([LAB_ITEMS[i].unit or None for i in item]),
        low=pa.array(low),
        high=pa.array(high),
        flag=pa.array(["abnormal"] * size, mask=rng.random(size) > 0.37),
        priority=pa.array(rng.choice(["ROUTINE", "STAT"], size)),
        comment=pa.array(remark, mask=rng.random(size) > 0.18),
    )


_PANEL = _panel()


def _labs(
    rng: np.random.Generator,
    group: int,
    subject: np.ndarray,
    who: np.ndarray,
    hadm: np.ndarray,
    admit: np.ndarray,
    days: np.ndarray,
    first: np.ndarray,
) -> pa.Table:
    """Draws of blood during admissions and outside of them; all results of one draw have one time. Sorted by patient."""
    inside = rng.poisson(np.minimum(days, 30) * _DRAWS_PER_DAY + 1)
    stay = np.repeat(np.arange(len(who)), inside)
    inside_time = admit[stay] + (rng.uniform(-0.25, 1, len(stay)) * days[stay] * 24 * _HOUR).astype(np.int64)
    outside = np.repeat(np.arange(len(subject)), rng.poisson(_OUTPATIENT_DRAWS, len(subject)))
    outside_time = first[outside] + rng.integers(0, 5 * 31_557_600, len(outside))
    owner = np.concatenate([who[stay], outside])
    admission = np.concatenate([np.where(rng.random(len(stay)) < 0.8, hadm[stay], 0), np.zeros(len(outside), np.int64)])
    time = np.concatenate([inside_time, outside_time]) // 60 * 60
    order = np.argsort(owner, kind="stable")
    results = 1 + rng.poisson(_RESULTS_PER_DRAW - 1, len(order))
    draw = np.repeat(order, results)
    n = len(draw)
    tail = pa.array(rng.integers(0, len(_PANEL.itemid), n))
    return pa.table(
        {
            "labevent_id": group * 10_000_000 + np.arange(n),
            "subject_id": subject[owner[draw]],
            "hadm_id": pa.array(admission[draw], mask=admission[draw] == 0),
            "specimen_id": group * 1_000_000 + draw,
            "itemid": _PANEL.itemid.take(tail),
            "order_provider_id": pa.nulls(n, pa.string()),
            "charttime": _times(time[draw]),
            "storetime": _times(time[draw] + 5400, rng.random(n) < 0.01),
            "value": _PANEL.value.take(tail),
            "valuenum": _PANEL.valuenum.take(tail),
            "valueuom": _PANEL.unit.take(tail),
            "ref_range_lower": _PANEL.low.take(tail),
            "ref_range_upper": _PANEL.high.take(tail),
            "flag": _PANEL.flag.take(tail),
            "priority": _PANEL.priority.take(tail),
            "comments": _PANEL.comment.take(tail),
        }
    )


def _images(
    rng: np.random.Generator, group: int, subject: np.ndarray, who: np.ndarray, admit: np.ndarray, days: np.ndarray
) -> tuple[dict[str, pa.Table], list[str], np.ndarray]:
    """Also gives the files that the rules could choose, and the admissions that could be given one."""
    pictured = np.isin(who, np.flatnonzero(rng.random(len(subject)) < _WITH_IMAGES))
    stay = np.repeat(np.arange(len(who)), np.where(pictured, rng.poisson(_IMAGES_EACH * 1.82, len(who)), 0))
    n = len(stay)
    # Most on the first day (in the emergency department), the others through the stay and after it.
    late = rng.random(n) < 0.4
    hours = np.where(late, rng.uniform(0, 1.3, n) * days[stay] * 24, rng.exponential(8, n))
    time = admit[stay] + (hours * _HOUR).astype(np.int64)
    study = 50_000_000 + group * 20_000 + np.arange(n)
    view = rng.choice(np.array(["AP", "PA", "LATERAL", ""], dtype=object), n, p=[0.39, 0.26, 0.31, 0.04])
    patient = subject[who[stay]]
    stamp = time.astype("datetime64[s]")
    day = stamp.astype("datetime64[D]")
    clock = (stamp - day).astype(np.int64)
    number = clock // 3600 * 10_000 + clock // 60 % 60 * 100 + clock % 60
    dicom = [f"{s:08x}-{group:08x}-{i:08x}-{p:08x}" for i, (s, p) in enumerate(zip(study, patient, strict=True))]
    metadata = {
        "dicom_id": dicom,
        "subject_id": patient,
        "study_id": study,
        "PerformedProcedureStepDescription": rng.choice(["CHEST (PORTABLE AP)", "CHEST (PA AND LAT)"], n),
        "ViewPosition": pa.array(view, mask=view == ""),
        "Rows": np.full(n, 3056),
        "Columns": np.full(n, 2544),
        "StudyDate": [str(d).replace("-", "") for d in day],
        "StudyTime": [f"{t}.{m:03d}" for t, m in zip(number, rng.integers(0, 1000, n), strict=True)],
        "ProcedureCodeSequence_CodeMeaning": rng.choice(["CHEST (PORTABLE AP)", "CHEST (PA AND LAT)"], n),
        "ViewCodeSequence_CodeMeaning": rng.choice(["antero-posterior", "postero-anterior"], n),
        "PatientOrientationCodeSequence_CodeMeaning": rng.choice(["Erect", "Recumbent"], n),
    }
    labelled = rng.random(n) < 0.995
    labels = {
        name: pa.array(rng.choice([1.0, 0.0, -1.0], labelled.sum()), mask=rng.random(labelled.sum()) < 0.8)
        for name in sorted(CHEXPERT_LABELS)
    }
    chexpert = {"subject_id": patient[labelled], "study_id": study[labelled]} | labels
    after = time - admit[stay]
    possible = np.isin(view, ("AP", "PA")) & (after > 24 * _HOUR) & (after <= 72 * _HOUR)
    paths = [f"files/p{str(patient[i])[:2]}/p{patient[i]}/s{study[i]}/{dicom[i]}.jpg" for i in np.flatnonzero(possible)]
    return {"metadata": pa.table(metadata), "chexpert": pa.table(chexpert)}, paths, np.unique(stay[possible])


def _records(
    rng: np.random.Generator, group: int, subject: np.ndarray, who: np.ndarray, admit: np.ndarray, pictured: np.ndarray
) -> tuple[pa.Table, list[str]]:
    """Also gives the records that the rules could choose."""
    stay = np.repeat(np.arange(len(who)), rng.poisson(_ECGS_EACH, len(who)))
    near = admit[stay] + (rng.normal(0, 30, len(stay)) * _HOUR).astype(np.int64)
    other = np.repeat(np.arange(len(subject)), rng.poisson(_ECG_OUTSIDE, len(subject)))
    far = (2110 - 1970 + rng.uniform(0, 90, len(other))) * 31_557_600
    patient = subject[np.concatenate([who[stay], other])]
    time = np.concatenate([near, far.astype(np.int64)])
    study = 40_000_000 + group * 30_000 + rng.permutation(30_000)[: len(patient)]
    path = np.array([f"files/p{str(p)[:4]}/p{p}/s{s}/{s}" for p, s in zip(patient, study, strict=True)], dtype=object)
    order = np.argsort(patient, kind="stable")
    possible = np.isin(stay, pictured) & (np.abs(near - admit[stay]) <= 24 * _HOUR)
    columns = {"subject_id": patient, "study_id": study, "file_name": study, "ecg_time": _times(time), "path": path}
    table = pa.table({name: pa.array(column).take(pa.array(order)) for name, column in columns.items()})
    return table, path[: len(stay)][possible].tolist()


def _times(seconds: np.ndarray, missing: np.ndarray | None = None) -> pa.Array:
    return pa.array(seconds, mask=missing).cast(pa.timestamp("s"))


def _codes(letter: str, rng: np.random.Generator, n: int) -> list[str]:
    return [f"{letter}{number:05d}" for number in rng.integers(0, 100_000, n)]


class _Table:
    """One gzipped CSV file that grows; MIMIC's own files are one gzip member each, too."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = file.open("wb")
        self._is_plain = file.suffix == ".csv"
        self._zip = zlib.compressobj(6, zlib.DEFLATED, 31)
        self._empty = True

    def write(self, table: pa.Table) -> None:
        text = pa.BufferOutputStream()
        options = pc.WriteOptions(include_header=self._empty, quoting_style="none", quoting_header="none")
        pc.write_csv(table, text, options)
        self._empty = False
        data = text.getvalue().to_pybytes().replace(_QUOTED.encode(), b'"VERIFIED, ""SEE REPORT"""')
        self._file.write(data if self._is_plain else self._zip.compress(data))

    def close(self) -> None:
        if not self._is_plain:
            self._file.write(self._zip.flush())
        self._file.close()


_FILES: Final = {
    "patients": "mimic-iv/hosp/patients.csv.gz",
    "admissions": "mimic-iv/hosp/admissions.csv.gz",
    "labevents": "mimic-iv/hosp/labevents.csv.gz",
    "metadata": "mimic-cxr/mimic-cxr-2.0.0-metadata.csv.gz",
    "chexpert": "mimic-cxr/mimic-cxr-2.0.0-chexpert.csv.gz",
    "record_list": "mimic-ecg/record_list.csv",
}


def _write_files(out: Path, made: Group, rng: np.random.Generator) -> None:
    for image in made.images:
        file = out / "mimic-cxr" / image
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    for record in made.records:
        header = out / "mimic-ecg" / f"{record}.hea"
        header.parent.mkdir(parents=True, exist_ok=True)
        signal = rng.integers(-400, 400, (5000, 12)).astype("<i2")
        if rng.random() < 1 / 76:
            signal[rng.integers(5000), rng.integers(12)] = -32768  # WFDB's code for a missing sample
        elif rng.random() < 1 / 400:
            signal[:] = 0
        name = header.stem
        leads = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")
        sums = signal.astype(np.int64).sum(axis=0).astype("<i2")
        lines = [f"{name}.dat 16 200.0(0)/mV 16 0 {signal[0, i]} {sums[i]} 0 {lead}" for i, lead in enumerate(leads)]
        header.write_text("\n".join([f"{name} 12 500 5000 8:15:00 01/01/2150", *lines]) + "\n")
        header.with_suffix(".dat").write_bytes(signal.tobytes())


def groups(seed: int, patients: int, jobs: int) -> Iterator[Group]:
    """All groups in order; some are made ahead, each in a process of its own."""
    sizes = [min(GROUP, patients - start) for start in range(0, patients, GROUP)]
    with ProcessPoolExecutor(jobs) as pool:
        waiting = []
        for group, size in enumerate(sizes):
            waiting.append(pool.submit(make_group, seed, group, size))
            if len(waiting) > jobs:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()


def write_tables(out: Path, share: float, seed: int, *, with_files: bool = False, jobs: int = 1) -> dict[str, int]:
    """Writes all tables; gives the number of rows of each, and of the files."""
    tables = {name: _Table(out / file) for name, file in _FILES.items()}
    counts = dict.fromkeys((*tables, "image files", "ECG files"), 0)
    for number, made in enumerate(groups(seed, round(PATIENTS * share), jobs)):
        for name, table in made.tables.items():
            tables[name].write(table)
            counts[name] += len(table)
        counts["image files"] += len(made.images)
        counts["ECG files"] += len(made.records)
        if with_files:
            _write_files(out, made, np.random.default_rng([seed, number, 1]))
    for file in tables.values():
        file.close()
    return counts


def main() -> None:
    """Reads the command line and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--share", type=float, default=1.0, help="of MIMIC's patients")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--files", action="store_true", help="also write the image and ECG files that could be chosen")
    parser.add_argument("--jobs", type=int, default=1, help="processes that make groups ahead")
    options = parser.parse_args()
    counts = write_tables(options.out, options.share, options.seed, with_files=options.files, jobs=options.jobs)
    for name, count in counts.items():
        print(f"{name:12s} {count:>12,}")


if __name__ == "__main__":
    main()

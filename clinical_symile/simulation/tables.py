"""The tables of MIMIC-IV, MIMIC-CXR-JPG and MIMIC-IV-ECG for a plan, column by column as the originals have them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from clinical_symile.simulation.law import CHANNEL_NAMES, Signs
from clinical_symile.simulation.plan import CxrImage, Plan, Severities, generator
from clinical_symile.types import CHEXPERT_LABELS

_VIEW_NAMES = {"AP": "antero-posterior", "PA": "postero-anterior", "LATERAL": "lateral", "": None}
_TYPES = ("EW EMER.", "OBSERVATION ADMIT", "URGENT", "EU OBSERVATION", "SURGICAL SAME DAY ADMISSION", "DIRECT EMER.", "ELECTIVE")
_FROM = ("EMERGENCY ROOM", "PHYSICIAN REFERRAL", "TRANSFER FROM HOSPITAL", "WALK-IN/SELF REFERRAL", "CLINIC REFERRAL")
_TO = ("HOME HEALTH CARE", "HOME", "SKILLED NURSING FACILITY", "REHAB", "CHRONIC/LONG TERM ACUTE CARE", None)


def patients_table(plan: Plan) -> pa.Table:
    """``hosp/patients.csv.gz``: one row per patient."""
    patients = {admission.patient.subject_id: admission.patient for admission in plan.admissions}
    rows = [
        {
            "subject_id": patient.subject_id,
            "gender": patient.gender,
            "anchor_age": patient.anchor_age,
            "anchor_year": patient.anchor_year,
            "anchor_year_group": patient.anchor_year_group,
            "dod": patient.dod or None,
        }
        for _, patient in sorted(patients.items())
    ]
    return _table(rows, ("subject_id", "gender", "anchor_age", "anchor_year", "anchor_year_group", "dod"))


def admissions_table(plan: Plan) -> pa.Table:
    """``hosp/admissions.csv.gz``: 16 columns, one row per admission."""
    rows = []
    for index, admission in enumerate(plan.admissions):
        rng = generator(plan.seed, "administration", index)
        emergency = rng.random() < 0.55
        patient = admission.patient
        arrival = admission.admittime - np.timedelta64(int(rng.integers(60, 600)), "m")
        rows.append(
            {
                "subject_id": patient.subject_id,
                "hadm_id": admission.hadm_id,
                "admittime": timestamp(admission.admittime),
                "dischtime": timestamp(admission.dischtime),
                "deathtime": None,
                "admission_type": _TYPES[0] if emergency else str(rng.choice(_TYPES[1:])),
                "admit_provider_id": _provider(rng),
                "admission_location": _FROM[0] if emergency else str(rng.choice(_FROM[1:])),
                "discharge_location": rng.choice(np.array(_TO, dtype=object)),
                "insurance": patient.insurance,
                "language": patient.language,
                "marital_status": patient.marital_status or None,
                "race": patient.race,
                "edregtime": timestamp(arrival) if emergency else None,
                "edouttime": timestamp(admission.admittime + np.timedelta64(97, "m")) if emergency else None,
                "hospital_expire_flag": 0,
            }
        )
    return _table(rows, tuple(rows[0]))


def record_list(plan: Plan) -> pa.Table:
    """``record_list.csv`` of MIMIC-IV-ECG 1.0: one row per ECG, path without extension."""
    # By id: a quirk lets two admissions share an ECG.
    once = {study.study_id: study for admission in plan.admissions for study in admission.ecgs}
    studies = sorted(once.values(), key=lambda study: (study.subject_id, study.study_id))
    rows = [
        {
            "subject_id": study.subject_id,
            "study_id": study.study_id,
            "file_name": study.study_id,
            "ecg_time": timestamp(study.time),
            "path": study.path,
        }
        for study in studies
    ]
    return _table(rows, ("subject_id", "study_id", "file_name", "ecg_time", "path"))


def metadata_table(plan: Plan, sizes: dict[str, tuple[int, int]]) -> pa.Table:
    """``mimic-cxr-2.0.0-metadata.csv.gz``: one row per image.

    Args:
        plan: the hospital.
        sizes: dicom_id -> rows and columns of the image.
    """
    images = sorted((i for a in plan.admissions for i in a.images), key=lambda i: (i.subject_id, i.study_id, i.dicom_id))
    rows = [_metadata(image, sizes[image.dicom_id]) for image in images]
    return _table(rows, tuple(rows[0]))


def chexpert_table(plan: Plan) -> pa.Table:
    """``mimic-cxr-2.0.0-chexpert.csv.gz``: one row per study, labels as a report of these findings would give them."""
    rows: dict[int, dict[str, Any]] = {}
    for admission in plan.admissions:
        for image in admission.images:
            if image.study_id not in admission.unlabelled_studies and image.study_id not in rows:
                labels = chexpert_labels(image.shows, image.devices, generator(plan.seed, "report", image.study_id))
                rows[image.study_id] = {"subject_id": image.subject_id, "study_id": image.study_id, **labels}
    ordered = sorted(rows.values(), key=lambda row: (row["subject_id"], row["study_id"]))
    return _table(ordered, ("subject_id", "study_id", *CHEXPERT_LABELS), floats=CHEXPERT_LABELS)


def truth_table(plan: Plan) -> pa.Table:
    """``truth.parquet``: what each admission's modalities show; severities in columns ``<modality>_<channel>_severity``."""
    columns: dict[str, Any] = {
        "hadm_id": pa.array([admission.hadm_id for admission in plan.admissions], pa.int64()),
        "subject_id": pa.array([admission.patient.subject_id for admission in plan.admissions], pa.int64()),
        "kind": pa.array([admission.kind for admission in plan.admissions], pa.string()),
    }
    for modality in Signs._fields:
        severities = np.array([getattr(admission, modality) for admission in plan.admissions], dtype=np.float32)
        for channel, name in enumerate(CHANNEL_NAMES):
            columns[f"{modality}_{name}"] = pa.array((severities[:, channel] > 0).astype(np.int8))
            columns[f"{modality}_{name}_severity"] = pa.array(severities[:, channel])
    return pa.table(columns)


def chexpert_labels(shows: Severities, devices: bool, rng: np.random.Generator) -> dict[str, float | None]:
    """Labels of one report: 1 present, 0 denied, -1 uncertain, None not mentioned (the commonest).

    Args:
        shows: severity of each channel's sign on the X-ray.
        devices: whether a catheter and electrodes are seen.
        rng: decides what the report mentions; independent of everything that the models see.
    """
    severity = dict(zip(CHANNEL_NAMES, shows, strict=True))
    labels: dict[str, float | None] = dict.fromkeys(CHEXPERT_LABELS)
    finding = {
        "Cardiomegaly": severity["cardiomegaly"],
        "Edema": severity["edema"],
        "Pleural Effusion": severity["effusion"],
        "Consolidation": severity["consolidation"],
        "Pneumonia": severity["consolidation"],
        "Lung Opacity": max(severity["consolidation"], severity["edema"]),
    }
    for label, amount in finding.items():
        chance = rng.random()
        if amount > 0:
            labels[label] = 1.0 if chance < 0.85 else -1.0 if chance < 0.92 else None
        else:
            labels[label] = 0.0 if chance < 0.3 else None
    labels["Pneumothorax"] = 0.0 if rng.random() < 0.3 else None
    labels["Support Devices"] = 1.0 if devices else None
    labels["Atelectasis"] = -1.0 if rng.random() < 0.06 else None
    # Hyperinflation is no CheXpert label: such a study may well be "No Finding".
    if all(amount == 0 for amount in finding.values()) and labels["Atelectasis"] is None:
        labels["No Finding"] = 1.0
    return labels


def timestamp(time: np.datetime64) -> str:
    """MIMIC's format: YYYY-MM-DD HH:MM:SS."""
    return str(time.astype("datetime64[s]")).replace("T", " ")


def study_time(time: np.datetime64) -> float:
    """MIMIC-CXR's StudyTime: HHMMSS.fff as a number, so that leading zeros are lost (00:00:03 is 3.0)."""
    moment = time.astype("datetime64[ms]").item()
    return round(moment.hour * 10_000 + moment.minute * 100 + moment.second + moment.microsecond / 1e6, 3)


def _metadata(image: CxrImage, size: tuple[int, int]) -> dict[str, Any]:
    procedure = "CHEST (PORTABLE AP)" if image.view == "AP" else "CHEST (PA AND LAT)"
    recumbent = image.key % 3 == 0
    return {
        "dicom_id": image.dicom_id,
        "subject_id": image.subject_id,
        "study_id": image.study_id,
        "PerformedProcedureStepDescription": procedure,
        "ViewPosition": image.view or None,
        "Rows": size[0],
        "Columns": size[1],
        "StudyDate": int(str(image.time)[:10].replace("-", "")),
        "StudyTime": study_time(image.time),
        "ProcedureCodeSequence_CodeMeaning": procedure,
        "ViewCodeSequence_CodeMeaning": _VIEW_NAMES[image.view],
        "PatientOrientationCodeSequence_CodeMeaning": "Recumbent" if image.view == "AP" and recumbent else "Erect",
    }


def _provider(rng: np.random.Generator) -> str:
    """An identifier like MIMIC's P54UB6."""
    letters = "".join(rng.choice(list("ABCDEFGHKLMNPRSTVWXYZ"), 2))
    return f"P{rng.integers(10, 99)}{letters}{rng.integers(0, 9)}"


def _table(rows: list[dict[str, Any]], names: tuple[str, ...], floats: tuple[str, ...] = ()) -> pa.Table:
    columns = {}
    for name in names:
        values = [row[name] for row in rows]
        columns[name] = pa.array(values, pa.float64() if name in floats else None)
    return pa.table(columns)

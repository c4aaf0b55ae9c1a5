"""Which patient: one of the held-out split, or uploaded files."""

from __future__ import annotations

import hashlib

import streamlit as st

from app.records import Patient
from app.services import Review

_DATASET, _UPLOAD = "Held-out patients", "Upload files"


def choose_patient(review: Review) -> tuple[Patient, str] | None:
    """Asks for a patient.

    Returns:
        The patient and a key that changes when the patient does; None while there is nothing to look at.

    Raises:
        InputError: the uploaded files cannot be used.
    """
    source = st.segmented_control(
        "Patient", [_DATASET, _UPLOAD], default=_DATASET, required=True, key="source", label_visibility="collapsed"
    )
    return _from_dataset(review) if source == _DATASET else _from_files(review)


def _from_dataset(review: Review) -> tuple[Patient, str] | None:
    labels = review.patient_labels()
    if not labels:
        st.info("The dataset has no held-out patient.")
        return None
    number = st.selectbox(
        "Patient",
        range(len(labels)),
        format_func=lambda index: labels[index],
        key="patient",
        width=420,
        help="Patients of the test split: the model was not trained on them.",
    )
    return review.patient(number), f"row-{number}"


def _from_files(review: Review) -> tuple[Patient, str] | None:
    left, right = st.columns(2, gap="medium")
    with left:
        ecg = st.file_uploader(
            "ECG: the header (.hea) and the signals (.dat or .mat)",
            type=["hea", "dat", "mat"],
            accept_multiple_files=True,
            key="ecg_files",
            help="A WFDB record with 12 leads and at least 10 s, as PhysioNet distributes them.",
        )
    with right:
        labs = st.file_uploader(
            "Laboratory results (.csv)",
            type=["csv"],
            key="labs_file",
            help="One row for each test, with the columns itemid or name, value, and unit.",
        )
    if not ecg and labs is None:
        st.caption("Upload an ECG, laboratory results, or both. The files stay on this machine and are not kept.")
        return None
    files = {file.name: file.getvalue() for file in ecg}
    table = labs.getvalue() if labs is not None else None
    key = hashlib.sha256(
        b"".join([*(name.encode() + content for name, content in sorted(files.items())), table or b""])
    ).hexdigest()
    return review.uploaded(files, table), f"upload-{key}"

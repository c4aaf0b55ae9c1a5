"""The patient's ECG on paper, and the laboratory results."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from app.components.text import safe_text
from app.records import Patient
from app.services import LabRow, ecg_svg, lab_table

_LABS_HEIGHT = 300
NO_BREAK = "\N{NO-BREAK SPACE}"
_WORD_JOINER = "\N{WORD JOINER}"
_FLAGS = {"L": ":blue-badge[**L**]", "H": ":orange-badge[**H**]", "": ""}
_ALL, _MEASURED, _FLAGGED = "All", "Measured", "Outside the range"


def show_ecg(patient: Patient) -> None:
    """The 12-lead page, or a word that there is none."""
    if patient.ecg_mv is None:
        st.info("No ECG was uploaded.")
        return
    amplitude = "10 millimetres per millivolt" if patient.ecg_is_calibrated else "amplitude in arbitrary units"
    st.image(
        ecg_svg(patient),
        width="stretch",
        alt=f"12-lead ECG of {patient.label} on paper, 25 millimetres per second, {amplitude}",
    )


def show_labs(patient: Patient) -> None:
    """The laboratory table, or a word that there is none, and how an uploaded file was read."""
    st.subheader("Laboratory results")
    if patient.labs_values is None:
        st.info("No laboratory results were uploaded.")
        return
    for note in patient.notes:
        st.info(safe_text(note))
    rows = lab_table(patient)
    shown = st.segmented_control(
        "Show",
        [_ALL, _MEASURED, _FLAGGED],
        default=_ALL if patient.row is not None else _MEASURED,
        required=True,
        key="labs_shown" if patient.row is not None else "uploaded_labs_shown",
        label_visibility="collapsed",
    )
    measured = sum(row.measured for row in rows)
    st.caption(f"{measured} of {len(rows)} tests measured. L: below, H: above the reference range.")
    with st.container(height=_LABS_HEIGHT, border=False):
        for category in dict.fromkeys(row.category for row in rows):
            chosen = [row for row in rows if row.category == category and _is_shown(row, shown)]
            if chosen:
                st.table(lab_frame(chosen, category), border="horizontal", hide_index=True, alt=f"{category} results")


def lab_frame(rows: list[LabRow], category: str) -> pd.DataFrame:
    """The rows as they are shown: the flag is a letter, and a missing result says so."""
    return pd.DataFrame(
        {
            category: [safe_text(row.name) for row in rows],
            "Result": [
                _together(safe_text(f"{row.value} {row.unit}")) if row.measured else f":gray[{_together(row.value)}]"
                for row in rows
            ],
            "Flag": [_FLAGS[row.flag] for row in rows],
            "Reference": [_together(safe_text(f"{row.reference} {row.unit}")) if row.reference else "" for row in rows],
        }
    )


def _together(text: str) -> str:
    """Keeps a range and its unit on one line."""
    return text.replace(" ", NO_BREAK).replace("–", f"{_WORD_JOINER}–{_WORD_JOINER}")


def _is_shown(row: LabRow, shown: str | None) -> bool:
    return shown in (None, _ALL) or (row.measured and (shown == _MEASURED or bool(row.flag)))

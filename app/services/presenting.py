"""Data as a person reads it: figures, tables, words, and errors without identifiers."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from app.records import VIEWS, Patient
from clinical_symile.errors import ClinicalSymileError, InputError
from clinical_symile.figures import LabRow, ecg_page_svg, lab_rows

if TYPE_CHECKING:
    from clinical_symile.governance import IntendedUse


def intended_use() -> IntendedUse:
    """The statement of intended use."""
    from clinical_symile.governance import load_intended_use

    return load_intended_use()


def ecg_svg(patient: Patient) -> str:
    """The patient's 12-lead ECG page.

    Raises:
        InputError: the patient has no ECG.
    """
    if patient.ecg_mv is None:
        raise InputError("this patient has no ECG")
    return ecg_page_svg(patient.ecg_mv, title=patient.label, calibrated=patient.ecg_is_calibrated)


def lab_table(patient: Patient) -> list[LabRow]:
    """The patient's laboratory results, empty without a panel."""
    return [] if patient.labs_values is None else lab_rows(patient.labs_values)


def explain_error(error: ClinicalSymileError) -> str:
    """The message of an error as it may be shown: a sentence, without identifiers."""
    from clinical_symile.governance.privacy import redact

    message = redact(str(error))
    return message[:1].upper() + message[1:]


def redact_logs() -> None:
    """Removes identifiers from everything that any logger of this process writes, tracebacks included."""
    from clinical_symile.governance.privacy import RedactingFilter

    loggers = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    for handler in {handler for logger in loggers if isinstance(logger, logging.Logger) for handler in logger.handlers}:
        if not any(isinstance(present, RedactingFilter) for present in handler.filters):
            handler.addFilter(RedactingFilter())


def age_text(age: float | None) -> str:
    """An age in years; MIMIC writes 91 for everyone over 89."""
    if age is None or not 0 <= age < 130:  # NaN is not either
        return "age unknown"
    return "over 89 y" if age > 89 else f"{age:.0f} y"


def view_text(view: object) -> str:
    """AP, PA, or a word for anything else."""
    return str(view) if view in VIEWS else "view unknown"


def sex_text(sex: str | None) -> str:
    """F, M, or a word for anything else."""
    return sex if sex in ("F", "M") else "sex unknown"

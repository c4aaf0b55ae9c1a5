"""The only door from the dashboard to ``clinical_symile``: pages and components import nothing else of it.

Everything heavy (torch, MLflow) is imported inside functions, after the page's first lines are on the screen.
"""

from app.services.opening import known_access, open_review
from app.services.presenting import LabRow, ecg_svg, explain_error, intended_use, lab_table, redact_logs
from app.services.review import Review
from clinical_symile.errors import ClinicalSymileError

__all__ = [
    "ClinicalSymileError",
    "LabRow",
    "Review",
    "ecg_svg",
    "explain_error",
    "intended_use",
    "known_access",
    "lab_table",
    "open_review",
    "redact_logs",
]

"""Hospital tables -> admissions with an ECG, labs and a chest X-ray; patient-disjoint splits; candidate sets; attrition."""

from clinical_symile.cohort.attrition import format_attrition, read_attrition
from clinical_symile.cohort.build import build_cohort
from clinical_symile.cohort.imported import is_imported

__all__ = ["build_cohort", "format_attrition", "is_imported", "read_attrition"]

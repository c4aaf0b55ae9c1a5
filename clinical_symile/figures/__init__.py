"""What a person looks at: the ECG on paper, the X-ray at a window, the laboratory table."""

from clinical_symile.figures.cxr import cxr_data_uri, cxr_png, letterbox, window
from clinical_symile.figures.ecg_page import ecg_page_svg
from clinical_symile.figures.labs_table import LabRow, lab_rows

__all__ = ["LabRow", "cxr_data_uri", "cxr_png", "ecg_page_svg", "lab_rows", "letterbox", "window"]

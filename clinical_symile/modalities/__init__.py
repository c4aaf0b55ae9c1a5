"""One file per modality: raw file -> array -> tensor. ``cxr``, ``ecg`` and ``labs`` hold the pure functions.

``lab_encoder`` (scikit-learn) and ``transforms`` (MONAI) wrap them for those libraries, which are imported only there.
"""

from clinical_symile.modalities.ecg import EcgRecord, read_ecg
from clinical_symile.modalities.intake import resolve_inside
from clinical_symile.modalities.labs import LabStatistics

__all__ = ["EcgRecord", "LabStatistics", "read_ecg", "resolve_inside"]

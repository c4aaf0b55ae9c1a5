"""The columns of the cohort's tables and their types: the same for every hospital and whatever the rules require."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from clinical_symile.types import CHEXPERT_LABELS, LAB_ITEM_IDS

_TIME: Final = pa.timestamp("us")

ADMISSIONS: Final = pa.schema(
    [
        ("subject_id", pa.int64()),
        ("hadm_id", pa.int64()),
        ("split", pa.string()),
        ("subject_key", pa.string()),
        ("hadm_key", pa.string()),
        ("admittime", _TIME),
        ("gender", pa.string()),
        ("age", pa.int64()),
        ("race", pa.string()),
        ("cxr_dicom_id", pa.string()),
        ("cxr_study_id", pa.int64()),
        ("cxr_path", pa.string()),
        ("cxr_view", pa.string()),
        ("cxr_time", _TIME),
        ("ecg_study_id", pa.int64()),
        ("ecg_path", pa.string()),
        ("ecg_time", _TIME),
        *((itemid, pa.float64()) for itemid in LAB_ITEM_IDS),
        *((label, pa.float64()) for label in CHEXPERT_LABELS),
    ]
)
"""One row per admission, sorted by hadm_id. Null: not measured, not mentioned, not known, or not required.

``subject_key`` and ``hadm_key`` are a hospital's own ids where they had to be replaced (see ``manifest.py``). Lab values are in
the units of ``types.LAB_ITEMS``; CheXpert labels are 1 positive, 0 negative, -1 uncertain. Paths are relative to their root.
"""

CANDIDATES: Final = pa.schema(
    [
        ("split", pa.string()),
        ("query_hadm_id", pa.int64()),
        ("position", pa.int64()),
        ("candidate_hadm_id", pa.int64()),
        ("is_positive", pa.bool_()),
    ]
)
"""One row per candidate of each query of val and test."""

"""Units are compared, never converted."""

from __future__ import annotations

import pytest

from clinical_symile.cohort.units import unit_fault
from clinical_symile.types import LAB_ITEMS


def test_every_item_accepts_the_unit_that_types_states():
    assert {item.itemid: unit_fault(item.itemid, item.unit or None) for item in LAB_ITEMS} == dict.fromkeys(
        (item.itemid for item in LAB_ITEMS), None
    )


@pytest.mark.parametrize(
    ("itemid", "unit"),
    [
        ("51301", "10^9/L"),
        ("51301", "K/µL"),
        ("51301", "K/μL"),
        ("51279", "10^12/L"),
        ("50818", "mmHg"),
        ("50861", "U/L"),
        ("50983", "mmol/L"),
        ("51249", "%"),
        ("51222", " G/DL "),
        ("51237", None),
        ("50820", ""),
        ("50934", "U"),
    ],
)
def test_another_spelling_of_the_same_unit_is_accepted(itemid, unit):
    assert unit_fault(itemid, unit) is None


@pytest.mark.parametrize(
    ("itemid", "unit", "fault"),
    [
        ("50912", "umol/L", "Creatinine (50912) in 'umol/L', expected 'mg/dL'; convert it first"),
        ("51222", "g/L", "Hemoglobin (51222) in 'g/L', expected 'g/dL'; convert it first"),
        ("51222", None, "Hemoglobin (51222) in no unit, expected 'g/dL'; convert it first"),
        ("50893", "mmol/L", "Calcium, Total (50893) in 'mmol/L', expected 'mg/dL'; convert it first"),
        ("50960", "mEq/L", "Magnesium (50960) in 'mEq/L', expected 'mg/dL'; convert it first"),
        ("51301", "10e3/uL", "White Blood Cells (51301) in '10e3/uL', expected 'K/uL'; convert it first"),
        ("50809", "mg/dL", "itemid 50809 is not one of the 50 items"),
        (None, "mg/dL", "itemid is empty"),
    ],
)
def test_another_unit_is_refused_with_the_remedy(itemid, unit, fault):
    assert unit_fault(itemid, unit) == fault

"""The laboratory table can be read without colour, and never takes an absent result for a zero."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinical_symile.errors import InputError
from clinical_symile.figures import lab_rows
from clinical_symile.types import LAB_ITEM_IDS, LAB_ITEMS


def panel(**values: float) -> np.ndarray:
    array = np.full(len(LAB_ITEMS), np.nan, dtype=np.float32)
    for key, value in values.items():
        array[LAB_ITEM_IDS.index(key.removeprefix("i"))] = value
    return array


def row(values: np.ndarray, itemid: str):
    return lab_rows(values)[LAB_ITEM_IDS.index(itemid)]


def test_not_measured_is_not_zero():
    zero, absent = row(panel(i51146=0.0), "51146"), row(panel(), "51146")
    assert (zero.value, zero.measured) == ("0", True)
    assert (absent.value, absent.measured, absent.flag) == ("not measured", False, "")


@pytest.mark.parametrize(
    ("value", "flag"),
    [(3.29, "L"), (3.3, ""), (4.2, ""), (5.1, ""), (5.11, "H"), (-1.0, "L")],
)
def test_flags_follow_the_reference_range_of_potassium(value, flag):
    assert row(panel(i50971=value), "50971").flag == flag


@pytest.mark.parametrize("item", [item for item in LAB_ITEMS if item.reference_low is not None], ids=lambda item: item.itemid)
def test_limits_belong_to_the_range_despite_float32(item):
    for limit in (item.reference_low, item.reference_high):
        assert row(panel(**{f"i{item.itemid}": limit}), item.itemid).flag == "", f"{item.name} = {limit} is flagged"


def test_values_are_printed_as_they_were_reported():
    assert row(panel(i50820=7.36), "50820").value == "7.36", "float32 noise is printed"
    assert row(panel(i51265=1234), "51265").value == "1234"


def test_test_without_a_range_has_neither_reference_nor_flag():
    base_excess = row(panel(i50802=-12.0), "50802")
    assert (base_excess.reference, base_excess.flag, base_excess.value) == ("", "", "-12")


def test_rows_name_what_mimic_calls_h_l_and_i():
    assert row(panel(), "50934").name == "Hemolysis index"
    assert row(panel(), "51678").name == "Lipemia index"


@given(st.lists(st.one_of(st.just(float("nan")), st.floats(-1e5, 1e5, width=32)), min_size=50, max_size=50))
def test_every_test_has_a_row_in_tensor_order(values):
    rows = lab_rows(np.array(values, dtype=np.float32))
    assert [line.name for line in rows] == [item.name for item in LAB_ITEMS]
    assert [line.measured for line in rows] == [not np.isnan(value) for value in values]


def test_wrong_number_of_values_is_refused():
    with pytest.raises(InputError, match="50 values"):
        lab_rows(np.zeros(49))

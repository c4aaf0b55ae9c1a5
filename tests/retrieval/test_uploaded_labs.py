"""Uploaded laboratory results: what is understood, and what is refused rather than guessed."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinical_symile.errors import InputError
from clinical_symile.retrieval import read_uploaded_labs
from clinical_symile.types import LAB_ITEM_IDS, LAB_ITEMS


def text_table(*rows: str) -> bytes:
    return "\n".join(rows).encode()


def value_of(result, itemid: str) -> float:
    return float(result.values[LAB_ITEM_IDS.index(itemid)])


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.integers(0, 49), st.floats(-1e4, 1e4, width=32), min_size=1), st.sampled_from([",", ";", "\t"]))
def test_what_is_written_is_read_back(results, separator):
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=separator)
    writer.writerow(["itemid", "value", "unit"])
    for position, value in results.items():
        writer.writerow([LAB_ITEMS[position].itemid, repr(float(value)), LAB_ITEMS[position].unit])
    read = read_uploaded_labs(buffer.getvalue().encode())
    expected = np.full(50, np.nan, dtype=np.float32)
    expected[list(results)] = list(results.values())
    np.testing.assert_array_equal(read.values, expected)
    assert read.ignored == ()
    assert read.without_unit == ()


@pytest.mark.parametrize("name", ["Creatinine", "creatinine", " CREATININE "])
def test_tests_are_found_by_name(name):
    assert value_of(read_uploaded_labs(text_table("name,value,unit", f"{name},1.3,mg/dL")), "50912") == pytest.approx(1.3)


def test_quoted_names_with_commas():
    assert value_of(read_uploaded_labs(text_table("name,value", '"Bilirubin, Total",0.4')), "50885") == pytest.approx(0.4)


def test_mimic_labels_are_names_too():
    read = read_uploaded_labs(text_table("label,value", "H,12", "Asparate Aminotransferase (AST),30"))
    assert value_of(read, "50934") == 12
    assert value_of(read, "50878") == 30


def test_excerpt_of_labevents_is_understood():
    """MIMIC's ``value`` is text and may be ``___``; ``valuenum`` is the number."""
    read = read_uploaded_labs(
        text_table("labevent_id,itemid,charttime,value,valuenum,valueuom", "1,50912,2150-01-01 00:00:00,___,1.3,mg/dL")
    )
    assert value_of(read, "50912") == pytest.approx(1.3)


def test_file_of_a_spreadsheet_with_a_byte_order_mark():
    assert value_of(read_uploaded_labs("\ufeffitemid;value;unit\r\n50912;1.3;mg/dL\r\n".encode()), "50912") == pytest.approx(1.3)


@pytest.mark.parametrize("empty", ["", "___", "NA", "nan"])
def test_empty_results_are_not_measured(empty):
    read = read_uploaded_labs(text_table("itemid,value", f"50912,{empty}", "50971,4.1"))
    assert np.isnan(value_of(read, "50912"))
    assert value_of(read, "50971") == pytest.approx(4.1)


def test_zero_is_a_result():
    assert value_of(read_uploaded_labs(text_table("itemid,value", "51146,0")), "51146") == 0


def test_unknown_tests_are_reported_not_used():
    read = read_uploaded_labs(text_table("name,value", "Creatinine,1", "Troponin T,0.01"))
    assert read.ignored == ("Troponin T",)
    assert np.isfinite(read.values).sum() == 1


def test_absent_units_are_reported():
    read = read_uploaded_labs(text_table("itemid,value,unit", "50912,1,", "50971,4,mEq/L", "51237,1.1,"))
    assert read.without_unit == ("Creatinine",), "INR has no unit that could be missing"


@pytest.mark.parametrize(
    ("itemid", "unit"),
    [
        ("50971", "mmol/L"),
        ("50983", "meq/l"),
        ("50861", "U/L"),
        ("51301", "10^9/L"),
        ("51249", "%"),
        ("50818", "mmHg"),
        ("50820", "units"),
        ("51237", "ratio"),
    ],
)
def test_other_spellings_of_the_same_unit(itemid, unit):
    assert value_of(read_uploaded_labs(text_table("itemid,value,unit", f"{itemid},5,{unit}")), itemid) == 5


@pytest.mark.parametrize(
    ("itemid", "unit"),
    [("50912", "umol/L"), ("50893", "mmol/L"), ("50960", "mEq/L"), ("50931", "mmol/L"), ("51222", "g/L"), ("51237", "mg/dL")],
)
def test_another_unit_is_refused_never_converted(itemid, unit):
    with pytest.raises(InputError, match=r"line 2: .* convert it first"):
        read_uploaded_labs(text_table("itemid,value,unit", f"{itemid},5,{unit}"))


@pytest.mark.parametrize("value", ["<0.5", "7,4", "high", "inf", "1e999", "1e39", "1_000"])
def test_a_result_that_is_no_number_is_refused(value):
    with pytest.raises(InputError, match=r"line 2: Creatinine = .* is not a number"):
        read_uploaded_labs(text_table("itemid;value", f"50912;{value}"))


def test_a_test_given_twice_is_refused():
    with pytest.raises(InputError, match="line 4: Creatinine is in line 2 already"):
        read_uploaded_labs(text_table("itemid,value", "50912,1", "50971,4", "50912,2"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "columns"),
        (b"itemid,unit\n50912,mg/dL", "'value'"),
        (b"value,unit\n1,mg/dL", "'itemid' or 'name'"),
        (b"itemid,value\n99999,1", "no result of a known test"),
        (b"itemid,value\n50912,", "no result of a known test"),
        (b"\xff\xfe\x00i\x00t", "UTF-8"),
        (b"itemid,value\n\x0050912,1", "text file"),
        (b'itemid,value\n"50912,1', "cannot be read"),
        (b"x" * (1024 * 1024 + 1), "larger than 1 MB"),
    ],
)
def test_what_is_no_laboratory_table_is_refused(content, message):
    with pytest.raises(InputError, match=message):
        read_uploaded_labs(content)

"""Identifiers are found in every shape MIMIC has, and numbers that are none of them are left alone."""

from __future__ import annotations

import io
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinical_symile.governance import RedactingFilter, find_identifiers, redact, suppress_small_cells, suppress_table

IDENTIFIERS = [
    ("subject_id", "subject 10032725 was read"),
    ("subject_id", "/data/10032725.csv"),
    ("subject_folder", "files/p10/p10032725/"),
    ("study_id", "s50331901 is missing"),
    ("study_id", "ecg s40000123"),
    ("study_id", "study 40689238"),
    ("hadm_id", "hadm_id=20626031"),
    ("hadm_id", '{"hadm_id": 20626031}'),
    ("hadm_id", "admission 20626031 has no ECG"),
    ("dicom_id", "02aa804e-bde0afdd-112c0b34-7bc16630-4e384014.jpg"),
    ("dicom_uid", "1.2.840.10008.5.1.4.1.1.1"),
]


@pytest.mark.parametrize(("kind", "text"), IDENTIFIERS)
def test_each_shape_is_found_and_removed(kind: str, text: str) -> None:
    assert kind in [found.kind for found in find_identifiers(text)]
    assert f"[{kind}]" in redact(text)
    assert find_identifiers(redact(text)) == []


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-24 11:46:49",
        "20160304 is a date",
        "11.5 s, 12345 files",
        "sha256 1003272510032725100327251003272510032725100327251003272510032725",
        "mlflow 3.17.2, torch 2.13.0",
        "learning rate 0.00012345678",
        "model m-7ff651b4a82f4607bedff05bc5932acb",
    ],
)
def test_other_numbers_stay(text: str) -> None:
    assert redact(text) == text


@given(st.text(), st.sampled_from(IDENTIFIERS), st.text(alphabet=" ,;()[]", max_size=3))
def test_an_identifier_does_not_survive_any_surroundings(before: str, example: tuple[str, str], gap: str) -> None:
    """Whatever stands before it, the identifier's digits are gone from the redacted text."""
    identifier = "10032725"
    assert identifier not in redact(f"{before} {gap}{identifier}{gap} {example[1]}")


def test_redacting_twice_changes_nothing() -> None:
    text = " | ".join(example for _, example in IDENTIFIERS)
    assert redact(redact(text)) == redact(text)


def test_log_records_lose_identifiers_everywhere() -> None:
    """In the message, in its arguments, in the traceback, and from loggers of other packages."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(RedactingFilter())
    logger = logging.getLogger("some.other.package")
    logger.addHandler(handler)
    logger.propagate = False
    try:
        logger.warning("reading subject 10032725")
        logger.warning("reading %s and %d", "files/p10/p10032725/s50331901", 10032725)
        try:
            raise ValueError("no such file: p10032725")
        except ValueError:
            logger.exception("failed on hadm_id %s", 20626031)
        logger.warning("stack", stack_info=True)
    finally:
        logger.removeHandler(handler)
        logger.propagate = True
    written = stream.getvalue()
    assert "Traceback" in written
    assert "ValueError: no such file: [subject_folder]" in written
    for secret in ("10032725", "50331901", "20626031"):
        assert secret not in written


def test_a_lone_small_cell_takes_another_with_it() -> None:
    shown = suppress_small_cells({"train": 400, "val": 60, "test": 7, "unused": 0}, minimum=11)
    assert shown == {"train": "400", "val": "hidden", "test": "hidden", "unused": "0"}


@given(st.dictionaries(st.text(min_size=1, max_size=3), st.integers(0, 40), max_size=6), st.integers(2, 15))
def test_no_small_count_is_shown_or_can_be_worked_out(counts: dict[str, int], minimum: int) -> None:
    shown = suppress_small_cells(counts, minimum)
    hidden = [name for name, text in shown.items() if text == "hidden"]
    assert all(int(text) == counts[name] for name, text in shown.items() if text != "hidden")
    assert not [name for name, text in shown.items() if text != "hidden" and 0 < counts[name] < minimum]
    if hidden and any(text not in ("hidden", "0") for text in shown.values()):
        # Who knows the total learns the sum of what is hidden: it must be more than one cell, and not small.
        assert len(hidden) > 1
        assert sum(counts[name] for name in hidden) >= minimum


def test_a_column_does_not_give_away_what_a_row_hides() -> None:
    """F in test is 5. Its row hides it, and its column must too: 60 in all minus 55 men would be 5 women."""
    shown = suppress_table({"F": {"train": 200, "val": 40, "test": 5}, "M": {"train": 210, "val": 45, "test": 55}}, minimum=11)
    assert shown == {
        "F": {"train": "200", "val": "hidden", "test": "hidden"},
        "M": {"train": "210", "val": "hidden", "test": "hidden"},
    }


@given(
    st.lists(st.lists(st.integers(0, 30), min_size=3, max_size=3), min_size=1, max_size=4),
    st.integers(2, 12),
)
def test_no_line_of_a_table_has_a_lone_hidden_cell(cells: list[list[int]], minimum: int) -> None:
    table = {f"r{i}": {f"c{j}": count for j, count in enumerate(row)} for i, row in enumerate(cells)}
    shown = suppress_table(table, minimum)
    lines = [(table[row], shown[row]) for row in table]
    for column in table["r0"]:
        lines.append(({row: table[row][column] for row in table}, {row: shown[row][column] for row in table}))
    for counts, texts in lines:
        hidden = [name for name, text in texts.items() if text == "hidden"]
        visible = [counts[name] for name, text in texts.items() if text != "hidden"]
        assert not [count for count in visible if 0 < count < minimum]
        if hidden and any(visible):
            assert len(hidden) > 1
            assert sum(counts[name] for name in hidden) >= minimum

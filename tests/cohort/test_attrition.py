"""The flow of admissions: sums that hold, a table, and a picture whose text is complete, escaped and always the same."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinical_symile.cohort.attrition import Attrition, format_attrition, read_attrition, write_attrition
from clinical_symile.cohort.flow_chart import draw_flow_chart
from clinical_symile.errors import InputError

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str, kind: str = "text") -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}{kind}")]


@pytest.fixture
def attrition() -> Attrition:
    attrition = Attrition(1200, 900)
    attrition.keep("frontal X-ray", 40, "no AP or PA X-ray <within> 72 h & more " + "of a long reason " * 8, patients=30)
    attrition.keep("plausible labs", 40, "each result lies beyond the limits", patients=30, left_out={"Lab results": 1234})
    attrition.keep("in a split", 5, "in no file")
    attrition.notes.append({"rule": "no_flat_ecg_leads", "count": 7, "what": "ECGs with a flat lead"})
    return attrition


def test_what_is_written_is_read_again(attrition: Attrition, tmp_path: Path) -> None:
    write_attrition(tmp_path, attrition, [(1, "train"), (1, "train"), (2, "train"), (3, "val"), (4, "test")])
    found = read_attrition(tmp_path)
    assert found == json.loads((tmp_path / "attrition.json").read_text())
    assert [step["included"] for step in found["steps"]] == [1200, 40, 40, 5]
    assert found["steps"][-1]["patients"] == 4
    assert found["splits"] == [
        {"split": "train", "admissions": 3, "patients": 2},
        {"split": "val", "admissions": 1, "patients": 1},
        {"split": "test", "admissions": 1, "patients": 1},
    ]
    table = format_attrition(tmp_path).splitlines()
    assert table[1].split() == ["admissions", "1,200", "0", "900"]
    assert table[3].endswith("each result lies beyond the limits; Lab results left out: 1,234")
    assert table[-1] == "note: ECGs with a flat lead: 7 (cohort.strict.no_flat_ecg_leads)"


def test_a_cohort_of_before_there_were_notes_can_be_shown(tmp_path: Path) -> None:
    old = [
        {"step": "admissions", "included": 9, "excluded": 0, "reason": ""},
        {"step": "ECG", "included": 4, "excluded": 5, "reason": "no ECG"},
    ]
    (tmp_path / "attrition.json").write_text(json.dumps(old))
    assert format_attrition(tmp_path).splitlines()[-1].split() == ["ECG", "4", "5", "no", "ECG"]


def test_sums_that_do_not_hold_are_refused(attrition: Attrition, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="after the step 'more' there are more"):
        attrition.keep("more", 6, "")
    with pytest.raises(ValueError, match="after the step 'more' there are more"):
        Attrition(5, 3).keep("more", 4, "", patients=4)
    with pytest.raises(ValueError, match="the cohort has 2 admissions, but the last step 'in a split' left 5"):
        write_attrition(tmp_path, attrition, [(1, "train"), (1, "val")])
    with pytest.raises(ValueError, match="the splits do not add up to the 5 admissions"):
        draw_flow_chart(attrition.steps, [{"split": "train", "admissions": 4, "patients": 4}])
    attrition.steps[2]["excluded"] = 1
    with pytest.raises(ValueError, match="the step 'plausible labs' does not add up"):
        draw_flow_chart(attrition.steps, [])
    with pytest.raises(InputError, match="after the step 'none'"):
        attrition.keep("none", 0, "nothing is left")


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=12), st.text())
def test_every_number_and_reason_is_in_the_picture(counts: list[int], reason: str) -> None:
    counts = sorted(counts, reverse=True)
    attrition = Attrition(counts[0])
    for number, count in enumerate(counts[1:]):
        attrition.keep(f"step {number}", count, reason)
    svg = draw_flow_chart(attrition.steps, [])
    assert svg == draw_flow_chart(attrition.steps, [])
    shown = texts(svg)
    for before, after in pairwise(counts):
        assert any(line.startswith(f"{before - after:,} admission") for line in shown)
    for count in counts:
        assert any(line.startswith(f"{count:,} admission") for line in shown)


def test_the_picture_is_accessible_wrapped_and_needs_nothing_else(attrition: Attrition) -> None:
    splits = [{"split": name, "admissions": n, "patients": n} for name, n in (("train", 3), ("val", 1), ("test", 1))]
    svg = draw_flow_chart(attrition.steps, splits)
    root = ElementTree.fromstring(svg)
    assert root.get("role") == "img"
    assert set(root.get("aria-labelledby", "").split()) == {child.get("id") for child in root} - {None}
    assert texts(svg, "title") == ["Flow of admissions into the cohort"]
    assert texts(svg, "desc")[0].startswith("Of 1,200 admissions, 5 take part. 1,160 left at the step frontal X-ray: no AP or PA")
    assert "http" not in svg.replace("http://www.w3.org/2000/svg", "")
    shown = texts(svg)
    assert "<within> 72 h & more" in " ".join(shown)
    assert max(map(len, shown)) <= 52
    assert shown[-9:] == [
        *("train", "3 admissions", "of 3 patients"),
        *("val", "1 admission", "of 1 patient"),
        *("test", "1 admission", "of 1 patient"),
    ]


def test_no_two_boxes_overlap(attrition: Attrition) -> None:
    svg = draw_flow_chart(attrition.steps, [{"split": "train", "admissions": 5, "patients": 4}])
    root = ElementTree.fromstring(svg)
    boxes = [
        tuple(float(box.get(name, 0)) for name in ("x", "y", "width", "height"))
        for box in root.iter(f"{SVG}rect")
        if box.get("class")
    ]
    assert len(boxes) == 4 + 3 + 1
    for number, (x, y, width, height) in enumerate(boxes):
        assert x >= 0
        assert x + width <= float(root.get("width", 0))
        assert y + height <= float(root.get("height", 0))
        for other_x, other_y, other_width, other_height in boxes[:number]:
            apart = x + width <= other_x or other_x + other_width <= x or y + height <= other_y or other_y + other_height <= y
            assert apart

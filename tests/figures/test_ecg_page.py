"""The ECG page is measured as a cardiologist would: with a ruler, in millimetres, on the parsed SVG."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinical_symile.errors import InputError
from clinical_symile.figures import ecg_page_svg
from clinical_symile.figures.ecg_page import LAYOUT
from clinical_symile.types import ECG_FS_HZ, ECG_LEADS, ECG_SAMPLES

SVG = "{http://www.w3.org/2000/svg}"


@dataclass(frozen=True)
class Trace:
    """One lead on the page: where its baseline starts, and its points in mm (y upwards from the baseline)."""

    lead: str
    kind: str
    origin: tuple[float, float]
    x_mm: np.ndarray
    y_mm: np.ndarray


def traces(svg: str) -> list[Trace]:
    found = []
    for path in ET.fromstring(svg).iter(f"{SVG}path"):
        if path.get("class") not in ("lead", "rhythm"):
            continue
        move = re.fullmatch(r"translate\((\S+) (\S+)\) scale\((\S+) (\S+)\)", path.get("transform"))
        left, top, scale_x, scale_y = map(float, move.groups())
        points = []
        for start, steps in re.findall(r"M([-\d ]+)l?([-\d ]*)", path.get("d")):
            here = np.array(start.split(), dtype=float)
            deltas = np.array(steps.split(), dtype=float).reshape(-1, 2)
            points.append(here + np.vstack([np.zeros((1, 2)), np.cumsum(deltas, axis=0)]))
        xy = np.vstack(points)
        found.append(Trace(path.get("data-lead"), path.get("class"), (left, top), xy[:, 0] * scale_x, xy[:, 1] * -scale_y))
    return found


def quiet() -> np.ndarray:
    return np.zeros((ECG_SAMPLES, len(ECG_LEADS)), dtype=np.float32)


def pulse(sample: int, mv: float, width: int = 3, lead: str = "II") -> np.ndarray:
    ecg = quiet()
    ecg[sample : sample + width, ECG_LEADS.index(lead)] = mv
    return ecg


def test_view_box_is_in_millimetres():
    root = ET.fromstring(ecg_page_svg(quiet()))
    _, _, width, height = map(float, root.get("viewBox").split())
    assert root.get("width") == f"{width:g}mm"
    assert root.get("height") == f"{height:g}mm"


@pytest.mark.parametrize("mv", [1.0, 0.5, -1.5, 2.35])
def test_one_millivolt_is_ten_millimetres(mv):
    rhythm = next(trace for trace in traces(ecg_page_svg(pulse(600, mv))) if trace.kind == "rhythm")
    height = rhythm.y_mm.max() if mv > 0 else rhythm.y_mm.min()
    assert height == pytest.approx(10 * mv, abs=0.01), "a pulse is not drawn at 10 mm/mV"


def test_one_second_is_25_millimetres():
    ecg = pulse(500, 1.0) + pulse(1500, 1.0)
    rhythm = next(trace for trace in traces(ecg_page_svg(ecg)) if trace.kind == "rhythm")
    high = rhythm.x_mm[rhythm.y_mm > 9]
    assert high[high > high.min() + 5].min() - high.min() == pytest.approx(50.0), "two pulses 2 s apart are not 50 mm apart"
    assert rhythm.x_mm.max() == pytest.approx(250.0, abs=0.06), "the rhythm strip does not show the whole 10 s"


def test_calibration_pulse_is_one_millivolt_and_a_fifth_of_a_second():
    paths = [path for path in ET.fromstring(ecg_page_svg(quiet())).iter(f"{SVG}path") if path.get("class") == "calibration"]
    assert len(paths) == 4, "each row starts with a calibration pulse"
    for path in paths:
        assert re.fullmatch(r"M\S+ \S+h2v-10h5v10h2", path.get("d")), "the pulse is not 10 mm high and 5 mm wide"


def test_a_page_without_calibration_does_not_pretend_to_millivolts():
    svg = ecg_page_svg(quiet(), calibrated=False)
    root = ET.fromstring(svg)
    assert not [path for path in root.iter(f"{SVG}path") if path.get("class") == "calibration"]
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert "25 mm/s; amplitude in arbitrary units, not mV" in texts
    assert "mm/mV" not in svg


def test_grid_has_lines_each_millimetre_and_each_five():
    root = ET.fromstring(ecg_page_svg(quiet()))
    lines: dict[str, set[float]] = {}
    for name in ("grid-1mm", "grid-5mm"):
        path = next(path for path in root.iter(f"{SVG}path") if path.get("class") == name)
        lines[name] = {float(x) for x in re.findall(r"M(\S+) \S+v", path.get("d"))}
    every = sorted(lines["grid-1mm"] | lines["grid-5mm"])
    assert {b - a for a, b in pairwise(every)} == {1.0}
    assert {b - a for a, b in pairwise(sorted(lines["grid-5mm"]))} == {5.0}
    thick = next(path.get("d") for path in root.iter(f"{SVG}path") if path.get("class") == "grid-5mm")
    baselines = {trace.origin[1] for trace in traces(ecg_page_svg(quiet()))}
    assert baselines <= {float(y) for y in re.findall(r"M\S+ (\S+)h", thick)}, "baselines do not lie on thick lines"


def test_three_rows_of_four_leads_in_time_order():
    """Each lead gets a pulse in its own quarter of the 10 s, which must be the quarter that its column shows."""
    ecg = quiet()
    quarter = ECG_SAMPLES // 4
    for row in LAYOUT:
        for column, lead in enumerate(row):
            ecg[column * quarter + 100, ECG_LEADS.index(lead)] = 1.0
    drawn = [trace for trace in traces(ecg_page_svg(ecg)) if trace.kind == "lead"]
    by_place = sorted(drawn, key=lambda trace: (trace.origin[1], trace.origin[0]))
    assert [trace.lead for trace in by_place] == [lead for row in LAYOUT for lead in row]
    for trace in drawn:
        assert trace.y_mm.max() == pytest.approx(10.0), f"{trace.lead} shows another part of the record"
        assert trace.x_mm[trace.y_mm.argmax()] == pytest.approx(100 / ECG_FS_HZ * 25)
        assert trace.x_mm.max() <= 62.5


def test_offset_of_a_lead_is_removed_and_its_gain_is_not():
    ecg = pulse(600, 1.0) + 3.0
    rhythm = next(trace for trace in traces(ecg_page_svg(ecg)) if trace.kind == "rhythm")
    assert np.median(rhythm.y_mm) == 0
    assert rhythm.y_mm.max() == pytest.approx(10.0)


@settings(max_examples=25, deadline=None)
@given(sample=st.integers(0, ECG_SAMPLES - 1), mv=st.floats(0.2, 5))
def test_no_peak_is_lost_wherever_it_is(sample, mv):
    """A spike of one sample (2 ms) survives the decimation, at its own time."""
    rhythm = next(trace for trace in traces(ecg_page_svg(pulse(sample, mv, width=1))) if trace.kind == "rhythm")
    assert rhythm.y_mm.max() == pytest.approx(10 * mv, abs=0.01)
    assert rhythm.x_mm[rhythm.y_mm.argmax()] == pytest.approx(sample / ECG_FS_HZ * 25, abs=0.01)


def test_missing_samples_leave_a_gap():
    ecg = quiet()
    ecg[1000:1500, ECG_LEADS.index("II")] = np.nan
    rhythm = next(trace for trace in traces(ecg_page_svg(ecg)) if trace.kind == "rhythm")
    assert not np.any((rhythm.x_mm > 50.1) & (rhythm.x_mm < 74.8))
    root = ET.fromstring(ecg_page_svg(ecg))
    data = next(path.get("d") for path in root.iter(f"{SVG}path") if path.get("class") == "rhythm")
    assert data.count("M") == 2, "the gap is bridged by a line"


def test_lead_without_any_sample_is_empty():
    ecg = quiet()
    ecg[:, ECG_LEADS.index("V2")] = np.nan
    root = ET.fromstring(ecg_page_svg(ecg))
    assert next(path.get("d") for path in root.iter(f"{SVG}path") if path.get("data-lead") == "V2") == ""


def test_page_says_its_scale_and_names_its_leads():
    root = ET.fromstring(ecg_page_svg(quiet(), title="Patient 1"))
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert "25 mm/s 10 mm/mV" in texts
    assert set(ECG_LEADS) <= set(texts)
    assert root.get("role") == "img"
    assert root.find(f"{SVG}title").text == "Patient 1"


@pytest.mark.parametrize("title", ["<script>alert(1)</script>", 'A & "B" <C>', "bell \x07 and null \x00", "]]>", "é ü 心"])
def test_title_cannot_break_out(title):
    root = ET.fromstring(ecg_page_svg(quiet(), title=title))
    assert not list(root.iter(f"{SVG}script"))
    printed = next(element.text for element in root.iter(f"{SVG}text") if element.get("class") == "title")
    assert printed == "".join(character for character in title if character.isprintable())


def test_noisy_page_is_light():
    noise = np.random.default_rng(0).normal(0, 0.5, size=(ECG_SAMPLES, len(ECG_LEADS))).astype(np.float32)
    assert len(ecg_page_svg(noise).encode()) < 150_000


@pytest.mark.parametrize("shape", [(5000,), (12, 5000), (2500, 12), (5000, 8)])
def test_wrong_shape_is_refused(shape):
    with pytest.raises(InputError, match=r"\(5000, 12\)"):
        ecg_page_svg(np.zeros(shape))


@pytest.mark.realdata
def test_real_ecgs_make_light_pages(real_data):
    from clinical_symile.modalities import read_ecg

    headers = sorted((real_data / "ecg" / "ludb").rglob("*.hea"))[:10]
    assert headers
    for header in headers:
        ecg_mv = read_ecg(header).to_mv()
        svg = ecg_page_svg(ecg_mv)
        rhythm = next(trace for trace in traces(svg) if trace.kind == "rhythm")
        span_mm = 10 * np.ptp(ecg_mv[:, ECG_LEADS.index("II")])
        assert np.ptp(rhythm.y_mm) == pytest.approx(span_mm, abs=0.02), "the tallest QRS is not drawn to scale"
        assert len(svg.encode()) < 150_000

"""``labevents`` and ``d_labitems``: the rows that the laboratory would have filed for a plan's blood draws."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from clinical_symile.simulation.labs import ITEMS, lab_values
from clinical_symile.simulation.plan import LabDraw, Plan, generator
from clinical_symile.types import LAB_ITEM_IDS, LAB_ITEMS

COLUMNS: Final = (
    "labevent_id",
    "subject_id",
    "hadm_id",
    "specimen_id",
    "itemid",
    "order_provider_id",
    "charttime",
    "storetime",
    "value",
    "valuenum",
    "valueuom",
    "ref_range_lower",
    "ref_range_upper",
    "flag",
    "priority",
    "comments",
)


class TextItem(NamedTuple):
    """An item whose result is a word: ``valuenum`` is null."""

    itemid: int
    label: str
    fluid: str
    category: str
    results: tuple[str, ...]
    rate: float


TEXT_ITEMS: Final = (
    TextItem(50920, "Estimated GFR (MDRD equation)", "Blood", "Chemistry", ("___",), 0.45),
    TextItem(52033, "Specimen Type", "Blood", "Blood Gas", ("ART.", "VEN.", "MIX."), 0.3),
    TextItem(51508, "Urine Color", "Urine", "Hematology", ("Yellow", "Straw", "Amber"), 0.35),
    TextItem(51506, "Urine Appearance", "Urine", "Hematology", ("Clear", "Hazy", "Cloudy"), 0.35),
    TextItem(51492, "Protein", "Urine", "Hematology", ("NEG", "TR", "30"), 0.35),
    TextItem(51478, "Glucose", "Urine", "Hematology", ("NEG", "TR"), 0.35),
)
_OTHER_LABELS: Final = (
    (50808, "Free Calcium", "Blood", "Blood Gas"),
    (50826, "Tidal Volume", "Blood", "Blood Gas"),
    (51003, "Troponin T", "Blood", "Chemistry"),
    (50963, "NTproBNP", "Blood", "Chemistry"),
    (50889, "C-Reactive Protein", "Blood", "Chemistry"),
    (51491, "pH", "Urine", "Hematology"),
    (51498, "Specific Gravity", "Urine", "Hematology"),
    (51790, "Glucose, CSF", "Cerebrospinal Fluid", "Chemistry"),
)
_PANEL_OF: Final = np.array([ITEMS[item.itemid].panel for item in LAB_ITEMS])
_DECIMALS: Final = np.array([ITEMS[itemid].decimals for itemid in LAB_ITEM_IDS])
_LOW: Final = np.array([np.nan if item.reference_low is None else item.reference_low for item in LAB_ITEMS])
_HIGH: Final = np.array([np.nan if item.reference_high is None else item.reference_high for item in LAB_ITEMS])
_UNIT: Final = np.array([item.unit or None for item in LAB_ITEMS], dtype=object)
_MCHC: Final = LAB_ITEM_IDS.index("51249")


def labevents_table(plan: Plan) -> pa.Table:
    """``hosp/labevents.csv.gz``: 16 columns, long.

    As in MIMIC: rows are in no order of time, ``hadm_id`` is null in a quarter of them, ``value`` is sometimes ``___``
    where ``valuenum`` is good, MCHC comes in two units that mean the same, and a few results are filed twice.
    """
    draws = [draw for admission in plan.admissions for draw in admission.draws]
    rng = generator(plan.seed, "labevents")
    admission_of = np.unique([draw.hadm_id for draw in draws], return_inverse=True)[1]
    values = _values(plan, draws, admission_of)
    reported = np.array([[panel in draw.panels for panel in _PANEL_OF] for draw in draws])
    # An item that fails stays unmeasured in this admission; else a later draw, which drifts, would be its earliest.
    reported &= (rng.random((admission_of.max(initial=0) + 1, len(LAB_ITEMS))) < 0.998)[admission_of]
    draw_of, item_of = np.nonzero(reported)
    draw_of, item_of, number, value = _faults(draws, draw_of, item_of, values[draw_of, item_of], rng)
    text_draws, text_items = _text_results(draws, rng)
    rows = _numeric_columns(item_of, number, value, rng)
    texts = _text_columns(text_items, rng)
    draw_index = np.concatenate([draw_of, text_draws])
    columns = {name: np.concatenate([rows[name], texts[name]]) for name in rows}
    return _filed(draws, draw_index, columns, rng)


def d_labitems_table() -> pa.Table:
    """``hosp/d_labitems.csv.gz``: the 50 items and some others."""
    rows: list[tuple[int, str, str, str]] = [(int(item.itemid), item.label, "Blood", item.category) for item in LAB_ITEMS]
    rows += [(item.itemid, item.label, item.fluid, item.category) for item in TEXT_ITEMS]
    rows += list(_OTHER_LABELS)
    names = ("itemid", "label", "fluid", "category")
    return pa.table({name: [row[column] for row in rows] for column, name in enumerate(names)})


def _values(plan: Plan, draws: list[LabDraw], admission_of: NDArray[np.intp]) -> NDArray[np.float64]:
    male = {admission.patient.subject_id: admission.patient.gender == "M" for admission in plan.admissions}
    severities = np.array([draw.shows for draw in draws])
    sexes = np.array([male[draw.subject_id] for draw in draws])
    return lab_values(severities, sexes, admission_of, generator(plan.seed, "lab values"))


def _faults(
    draws: list[LabDraw],
    draw_of: NDArray[np.intp],
    item_of: NDArray[np.intp],
    number: NDArray[np.float64],
    rng: np.random.Generator,
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64], NDArray[np.object_]]:
    """Adds results that are filed twice, texts instead of values, and the faults of quirky draws."""
    doubled = np.array([draw.fault == "double_values" for draw in draws])[draw_of]
    twice = np.flatnonzero((rng.random(len(draw_of)) < 0.003) | doubled)
    second = np.where(doubled[twice], number[twice] * 1.25 + 0.1, number[twice])
    draw_of, item_of = np.concatenate([draw_of, draw_of[twice]]), np.concatenate([item_of, item_of[twice]])
    number = np.concatenate([number, second])
    value = np.array([f"{x:.{d}f}" for x, d in zip(number, _DECIMALS[item_of], strict=True)], dtype=object)
    number = value.astype(np.float64)
    value[rng.random(len(value)) < 0.06] = "___"
    null = np.array([draw.fault == "null_values" for draw in draws])[draw_of]
    number = np.where(null, np.nan, number)
    value[null] = "HEMOLYZED"
    return draw_of, item_of, number, value


def _text_results(draws: list[LabDraw], rng: np.random.Generator) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    ordered = rng.random((len(draws), len(TEXT_ITEMS))) < np.array([item.rate for item in TEXT_ITEMS])
    draw_of, item_of = np.nonzero(ordered)
    return draw_of, item_of


def _numeric_columns(
    item_of: NDArray[np.intp],
    number: NDArray[np.float64],
    value: NDArray[np.object_],
    rng: np.random.Generator,
) -> dict[str, NDArray[Any]]:
    unit = _UNIT[item_of]
    unit[(item_of == _MCHC) & (rng.random(len(unit)) < 0.4)] = "%"
    with np.errstate(invalid="ignore"):
        abnormal = (number < _LOW[item_of]) | (number > _HIGH[item_of])
    return {
        "itemid": np.array(LAB_ITEM_IDS, dtype=np.int64)[item_of],
        "value": value,
        "valuenum": number,
        "valueuom": unit,
        "ref_range_lower": _LOW[item_of],
        "ref_range_upper": _HIGH[item_of],
        "flag": _where(abnormal, "abnormal"),
        "comments": _where(value == "___", "___"),
    }


def _text_columns(item_of: NDArray[np.intp], rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    nothing = np.full(len(item_of), None, dtype=object)
    missing = np.full(len(item_of), np.nan)
    words = [TEXT_ITEMS[item].results[int(rng.integers(len(TEXT_ITEMS[item].results)))] for item in item_of]
    return {
        "itemid": np.array([item.itemid for item in TEXT_ITEMS], dtype=np.int64)[item_of],
        "value": np.array(words, dtype=object),
        "valuenum": missing,
        "valueuom": nothing,
        "ref_range_lower": missing,
        "ref_range_upper": missing,
        "flag": nothing,
        "comments": nothing,
    }


def _filed(
    draws: list[LabDraw], draw_of: NDArray[np.intp], columns: dict[str, NDArray[Any]], rng: np.random.Generator
) -> pa.Table:
    """Adds who, when and which specimen, and brings the rows into the file's order: by patient, otherwise shuffled."""
    count = len(draw_of)
    subject = np.array([draw.subject_id for draw in draws])[draw_of]
    linked = np.array([draw.linked for draw in draws])[draw_of]
    charttime = np.array([draw.time for draw in draws], dtype="datetime64[s]")[draw_of]
    delay = (60 * (rng.gamma(2.0, 40.0, count).astype(np.int64) + 5)).astype("timedelta64[s]")
    priority = rng.choice(np.array(["STAT", "ROUTINE", None], dtype=object), count, p=[0.52, 0.39, 0.09])
    specimen = rng.integers(1_000_000, 99_999_999, len(draws))
    order = np.lexsort((rng.random(count), subject))
    by_time = np.lexsort((columns["itemid"], charttime, subject))
    event = np.empty(count, dtype=np.int64)
    event[by_time] = np.arange(1, count + 1)
    all_columns: dict[str, Any] = {
        **columns,
        "labevent_id": event,
        "subject_id": subject,
        "hadm_id": pa.array(np.array([draw.hadm_id for draw in draws])[draw_of][order], mask=~linked[order]),
        "specimen_id": specimen[draw_of],
        "order_provider_id": _where(rng.random(count) < 0.17, "P54UB6"),
        "charttime": _text_times(charttime),
        "storetime": _text_times(charttime + delay),
        "priority": priority,
    }
    arrays = []
    for name in COLUMNS:
        column = all_columns[name]
        arrays.append(column if isinstance(column, pa.Array) else pa.array(column[order], from_pandas=True))
    return pa.table(arrays, names=list(COLUMNS))


def _where(mask: NDArray[np.bool_], text: str) -> NDArray[np.object_]:
    """``text`` where the mask holds, else None."""
    return np.array([None, text], dtype=object)[mask.astype(np.intp)]


def _text_times(times: NDArray[np.datetime64]) -> NDArray[np.object_]:
    return np.char.replace(np.datetime_as_string(times, unit="s"), "T", " ").astype(object)

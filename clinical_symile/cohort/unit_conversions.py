"""Results in other units than MIMIC's. ``unit_conversions.csv`` is the table, with its molar masses and sources.

Every conversion is a product: zero stays zero. The pairs of units are listed one by one, so that a unit which merely has the
right dimension (grams of what? moles of what?) is never converted by accident.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from typing import Final, NamedTuple

from clinical_symile.cohort.lab_codes import SELF, read_package_table
from clinical_symile.cohort.units import same_unit, unit_fault
from clinical_symile.types import LAB_ITEMS

_SCALE: Final[dict[str, tuple[str, Fraction]]] = {
    **{unit: ("g/L", Fraction(scale)) for unit, scale in {"g/dL": "10", "g/L": "1", "mg/dL": "1/100", "mg/L": "1/1000"}.items()},
    **{
        unit: ("mol/L", Fraction(scale)) for unit, scale in {"mmol/L": "1/1000", "mEq/L": "1/1000", "umol/L": "1/1000000"}.items()
    },
    **{
        unit: ("1/L", Fraction(scale))
        for unit, scale in {"/uL": "1e6", "10*6/L": "1e6", "K/uL": "1e9", "10*4/uL": "1e10", "m/uL": "1e12"}.items()
    },
    **{unit: ("U/L", Fraction(scale)) for unit, scale in {"IU/L": "1", "ukat/L": "60", "nkat/L": "0.06"}.items()},
    **{unit: ("Pa", Fraction(scale)) for unit, scale in {"mm Hg": "133.322387415", "kPa": "1000"}.items()},
    **{unit: ("1", Fraction(scale)) for unit, scale in {"%": "1/100", "L/L": "1"}.items()},
    "pg": ("g", Fraction("1e-12")),
    "fmol": ("mol", Fraction("1e-15")),
}
"""Unit -> its dimension and how many SI units (or litres) it is."""

_UNIT: Final = {item.itemid: item.unit for item in LAB_ITEMS}


class Conversion(NamedTuple):
    """One row of the table.

    Attributes:
        from_unit: of the result.
        factor: what the result is multiplied by.
        to_unit: MIMIC's unit.
        reported: g/mol of what MIMIC reports; None where no moles become grams.
        measured: g/mol of what was measured; None where it is what is reported, in grams.
        formula: chemical formulas of the two, separated by a comma; empty where no molar mass takes part or it is a convention.
    """

    from_unit: str
    factor: float
    to_unit: str
    reported: Fraction | None
    measured: Fraction | None
    formula: str


class UnitReading(NamedTuple):
    """How a result is brought to MIMIC's unit: by a factor, or not at all.

    Attributes:
        factor: multiply by it; None where the unit cannot be used.
        fault: why not; None where it can.
    """

    factor: float | None
    fault: str | None


def read_unit(itemid: str, unit: str | None, analyte: str = SELF) -> UnitReading:
    """How a result in some unit becomes one in MIMIC's unit.

    Args:
        itemid: one of the 50 items.
        unit: as the laboratory or the vocabulary (UCUM) writes it; None when it is missing.
        analyte: what was measured, where it is not what the item reports (``LabCode.analyte``).

    Example:
        >>> read_unit("50931", "mmol/L").factor  # glucose
        18.0156
        >>> read_unit("50931", "mmol/mol").fault
        "Glucose (50931) in 'mmol/mol', expected 'mg/dL'; convert it first"
    """
    for conversion in conversions()[analyte or itemid]:
        if same_unit(unit or "", conversion.from_unit):
            return UnitReading(conversion.factor, None)
    fault = unit_fault(itemid, unit)
    if fault is None and analyte:  # the item's own unit says nothing about another analyte
        fault = f"{analyte} as {itemid} in {unit!r}: this unit is not converted"
    return UnitReading(1.0 if fault is None else None, fault)


@cache
def conversions() -> dict[str, tuple[Conversion, ...]]:
    """Analyte (an item id, or ``LabCode.analyte``) -> its conversions; for every item, though it may be none.

    Raises:
        ValueError: the table is wrong: a dimension does not fit.
    """
    found: dict[str, list[Conversion]] = {itemid: [] for itemid in _UNIT}
    for row in read_package_table("unit_conversions.csv"):
        reported, measured = (Fraction(row[name]) if row[name] else None for name in ("reported", "measured"))
        factor = _factor(row["from_unit"], row["to_unit"], reported, measured)
        conversion = Conversion(row["from_unit"], factor, row["to_unit"], reported, measured, row["formula"])
        for analyte in row["analyte"].split():
            found.setdefault(analyte, []).append(conversion)
    return {analyte: tuple(rows) for analyte, rows in found.items()}


def _factor(from_unit: str, to_unit: str, reported: Fraction | None, measured: Fraction | None) -> float:
    (given, scale), (wanted, unit) = _SCALE[from_unit], _SCALE[to_unit]
    moles_in, moles_out = given.startswith("mol"), wanted.startswith("mol")
    same = given == wanted and (reported is None) == (measured is None)
    molar = given.removeprefix("mol") == wanted.removeprefix("g") and moles_in and reported is not None and measured is None
    inverse = given.removeprefix("g") == wanted.removeprefix("mol") and moles_out and measured is not None and reported is None
    if not (same or molar or inverse):
        raise ValueError(f"unit_conversions.csv: {from_unit} cannot become {to_unit} with these molar masses")
    return float(scale / unit * (reported or 1) / (measured or 1))

"""The laboratory panel as a table that can be read without colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clinical_symile.errors import InputError
from clinical_symile.types import LAB_ITEMS, LabItem

NOT_MEASURED: Final = "not measured"


@dataclass(frozen=True)
class LabRow:
    """One test as a person reads it.

    ``flag`` is ``"L"`` below, ``"H"`` above the reference range, empty within it, without a range or without a value.
    """

    name: str
    value: str
    unit: str
    reference: str
    flag: str
    category: str
    measured: bool


def lab_rows(values: NDArray[np.floating], items: Sequence[LabItem] = LAB_ITEMS) -> list[LabRow]:
    """One row for each of the tests, in the given order.

    Args:
        values: (k,) results in the items' units; NaN = not measured, which is not the same as 0.
        items: what each value is.

    Raises:
        InputError: there is not one value for each item.
    """
    if values.shape != (len(items),):
        raise InputError(f"a laboratory panel needs {len(items)} values, not an array of shape {values.shape}")
    return [_row(item, float(value)) for item, value in zip(items, values, strict=True)]


def _row(item: LabItem, value: float) -> LabRow:
    measured = not np.isnan(value)
    return LabRow(
        name=item.name,
        # Six digits show each result as it was reported, not the tail of its float32.
        value=f"{value:.6g}" if measured else NOT_MEASURED,
        unit=item.unit,
        reference=_reference(item),
        flag=_flag(item, value) if measured else "",
        category=item.category,
        measured=measured,
    )


def _reference(item: LabItem) -> str:
    low, high = item.reference_low, item.reference_high
    if low is not None and high is not None:
        return f"{low:g}–{high:g}"
    if high is not None:
        return f"≤ {high:g}"
    return f"≥ {low:g}" if low is not None else ""


def _flag(item: LabItem, value: float) -> str:
    # The value comes from float32: rounding it as it is printed keeps 7.35 inside a range that starts at 7.35.
    printed = float(f"{value:.6g}")
    if item.reference_low is not None and printed < item.reference_low:
        return "L"
    if item.reference_high is not None and printed > item.reference_high:
        return "H"
    return ""

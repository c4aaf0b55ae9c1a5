"""Uploaded laboratory results: a CSV with one row for each test."""

from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clinical_symile.cohort.units import unit_fault
from clinical_symile.errors import InputError
from clinical_symile.types import LAB_ITEMS, LabItem

MAX_LAB_BYTES = 1024 * 1024


@dataclass(frozen=True)
class UploadedLabs:
    """Results read from a CSV.

    Attributes:
        values: (50,) float32 in the order and units of ``types.LAB_ITEMS``; NaN = not measured.
        ignored: tests in the file that the model does not know.
        without_unit: tests whose unit was not given, so that the model's unit was taken for granted.
    """

    values: NDArray[np.float32]
    ignored: tuple[str, ...]
    without_unit: tuple[str, ...]


_COLUMNS = {
    "itemid": ("itemid", "item"),
    "name": ("name", "label", "test"),
    "value": ("valuenum", "value"),
    "unit": ("unit", "valueuom", "units"),
}
"""Column names in order of preference: an excerpt of MIMIC's labevents can be uploaded as it is."""

_ABSENT = ("", "___", "na", "nan", "null")
_LARGEST = float(np.finfo(np.float32).max)


def read_uploaded_labs(content: bytes) -> UploadedLabs:
    """Reads a laboratory CSV.

    One row for each test, with the columns ``itemid`` (MIMIC's) or ``name``, ``value`` and, if possible, ``unit``. Comma,
    semicolon and tab are understood as separators. An empty value means not measured.

    Args:
        content: the file.

    Raises:
        InputError: no table, a column is missing, no test is known, a value is no number, a test comes twice, or a unit is
            not the one the model was trained with. Values are never converted: a wrong conversion would go unnoticed.
    """
    lines, header = _table(content)
    values = np.full(len(LAB_ITEMS), np.nan, dtype=np.float32)
    seen: dict[str, int] = {}
    ignored: list[str] = []
    without_unit: list[str] = []
    for number, line in enumerate(lines, 2):
        cell = {key: line[column].strip() if column < len(line) else "" for key, column in header.items()}
        label = cell.get("itemid") or cell.get("name", "")
        if not label:
            continue
        position = _find_item(cell.get("itemid", ""), cell.get("name", ""))
        if position is None:
            ignored.append(label)
            continue
        item = LAB_ITEMS[position]
        if cell["value"].lower() in _ABSENT:
            continue
        if item.itemid in seen:
            raise InputError(f"line {number}: {item.name} is in line {seen[item.itemid]} already; give each test once")
        seen[item.itemid] = number
        values[position] = _number(cell["value"], item, number)
        unit = cell.get("unit", "")
        if unit:
            fault = unit_fault(item.itemid, unit)
            if fault is not None:
                raise InputError(f"line {number}: {fault}")
        elif item.unit:
            without_unit.append(item.name)
    if not seen:
        raise InputError(
            "no result of a known test is in the file; tests are recognised by MIMIC's item id (such as 50912) or by their name "
            f"(such as {LAB_ITEMS[16].name})"
        )
    return UploadedLabs(values, tuple(ignored), tuple(without_unit))


def _table(content: bytes) -> tuple[list[list[str]], dict[str, int]]:
    """The rows below the header, and where each of our columns is."""
    if len(content) > MAX_LAB_BYTES:
        raise InputError(
            f"the laboratory CSV is larger than {MAX_LAB_BYTES // 1024 // 1024} MB; give one row for each of the 50 tests"
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError("the laboratory CSV is not UTF-8 text; save it as 'CSV UTF-8'") from None
    if "\0" in text:
        raise InputError("the laboratory file is not a text file")
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    try:
        lines = list(csv.reader(io.StringIO(text), delimiter=separator, strict=True))
    except csv.Error as error:
        raise InputError(f"the laboratory CSV cannot be read: {error}") from None
    names = [name.strip().lower() for name in lines[0]] if lines else []
    header = {}
    for key, spellings in _COLUMNS.items():
        present = [names.index(spelling) for spelling in spellings if spelling in names]
        if present:
            header[key] = present[0]
    if "value" not in header or not {"itemid", "name"} & set(header):
        raise InputError(
            "the laboratory CSV needs a first line with the columns 'itemid' or 'name', 'value' and, if possible, 'unit'"
        )
    return lines[1:], header


def _find_item(itemid: str, name: str) -> int | None:
    if itemid:
        return next((position for position, item in enumerate(LAB_ITEMS) if item.itemid == itemid), None)
    wanted = _squeeze(name)
    return next(
        (position for position, item in enumerate(LAB_ITEMS) if wanted in {_squeeze(item.name), _squeeze(item.label)}), None
    )


def _number(text: str, item: LabItem, line: int) -> float:
    try:
        value = float(text.replace("_", "?"))  # Python reads 1_000 as 1000
    except ValueError:
        value = math.nan
    if not abs(value) <= _LARGEST:  # NaN is not either
        raise InputError(f"line {line}: {item.name} = {text!r} is not a number; write it with a decimal point, or leave it empty")
    return value


def _squeeze(text: str) -> str:
    """Text for comparison: lower case, without spaces."""
    return re.sub(r"\s+", "", text).lower()

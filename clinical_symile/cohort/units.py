"""Which spellings of a laboratory unit mean the unit that the model was trained with. No number is ever converted."""

from __future__ import annotations

import re
from typing import Final

from clinical_symile.types import LAB_ITEMS, LabItem

_ITEMS: Final[dict[str, LabItem]] = {item.itemid: item for item in LAB_ITEMS}

_SAME_UNIT: Final[tuple[frozenset[str], ...]] = (
    frozenset({"mmhg", "mm[hg]", "torr"}),
    frozenset({"iu/l", "[iu]/l", "u/l"}),
    frozenset({"k/ul", "10^3/ul", "x10^3/ul", "10*3/ul", "10*3/mm3", "10^9/l", "x10^9/l", "10*9/l", "/nl"}),
    frozenset({"m/ul", "10^6/ul", "x10^6/ul", "10*6/ul", "10*6/mm3", "10^12/l", "x10^12/l", "10*12/l", "/pl"}),
    frozenset({"/ul", "/mm3", "cells/ul", "#/ul"}),
    frozenset({"sec", "s", "seconds"}),
    frozenset({"fl", "um3", "um^3"}),
    frozenset({"%", "/100"}),
)
"""Spellings of one unit, UCUM's among them, in the form that ``_squeeze`` gives; the same number in each."""

_SAME_UNIT_FOR: Final[dict[str, frozenset[str]]] = {
    # An ion of charge 1 has as many equivalents as moles; calcium and magnesium do not.
    **dict.fromkeys(("50802", "50804", "50868", "50882", "50902", "50971", "50983"), frozenset({"meq/l", "mmol/l"})),
    "51249": frozenset({"g/dl", "%"}),  # MCHC, grams in 100 mL; MIMIC has both
    "50820": frozenset({"units", "unit", "1", "ph", "[ph]", ""}),  # pH
    "51237": frozenset({"", "1", "ratio", "inr"}),
    # The serum indices, in arbitrary units; MIMIC has both.
    **dict.fromkeys(("50934", "50947", "51678"), frozenset({"", "u"})),
}


def unit_fault(itemid: str | None, unit: str | None) -> str | None:
    """What is wrong with a result's item or unit, or None when the number can be taken as it is.

    Args:
        itemid: MIMIC's item id.
        unit: as the laboratory wrote it; None when it is missing.
    """
    item = _ITEMS.get(itemid or "")
    if item is None:
        return f"itemid {itemid} is not one of the 50 items" if itemid else "itemid is empty"
    pair = {_squeeze(unit or ""), _squeeze(item.unit)}
    if same_unit(unit or "", item.unit) or pair <= _SAME_UNIT_FOR.get(item.itemid, frozenset()):
        return None
    written, wanted = (repr(text) if text else "no unit" for text in (unit, item.unit))
    return f"{item.name} ({item.itemid}) in {written}, expected {wanted}; convert it first"


def same_unit(one: str, other: str) -> bool:
    """Whether two spellings mean the same unit, whatever is measured.

    Example:
        >>> same_unit("mm Hg", "mm[Hg]")
        True
    """
    pair = {_squeeze(one), _squeeze(other)}
    return len(pair) == 1 or any(pair <= group for group in _SAME_UNIT)


def _squeeze(text: str) -> str:
    """Text for comparison: lower case, one spelling of micro, without blanks and without UCUM's remarks in braces."""
    return re.sub(r"\s+|\{[^{}]*\}", "", text).lower().replace("µ", "u").replace("μ", "u")

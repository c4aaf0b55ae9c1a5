"""Which of the 50 items a LOINC code stands for. ``loinc.csv`` is the table, with its sources."""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files
from typing import Final, NamedTuple

SELF: Final = ""
"""The analyte of a code that measures the item's own quantity."""


class LabCode(NamedTuple):
    """What a LOINC code measures.

    Attributes:
        loinc: the code, such as ``718-7``.
        itemid: MIMIC's item.
        analyte: what is measured where it is not what the item reports (``urea``, of which 51006 reports the nitrogen).
        name: LOINC's long common name.
        relation: to MIMIC's own code of the item: exact, method, moles or vessel.
    """

    loinc: str
    itemid: str
    analyte: str
    name: str
    relation: str


@cache
def loinc_codes() -> dict[str, LabCode]:
    """LOINC code -> what it measures, for every code that stands for one of the 50 items.

    Example:
        >>> loinc_codes()["14749-6"].itemid
        '50931'
    """
    rows = read_package_table("loinc.csv")
    return {
        row["loinc"]: LabCode(row["loinc"], row["itemid"], row["analyte"], row["long_common_name"], row["relation"])
        for row in rows
    }


def read_package_table(name: str) -> list[dict[str, str]]:
    """The rows of a CSV file of this package; lines that start with # are remarks."""
    text = files("clinical_symile.cohort").joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))

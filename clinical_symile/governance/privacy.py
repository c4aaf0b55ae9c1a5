"""Identifiers in text: found, redacted from logs; and small cells, hidden in tables.

The shapes are those of MIMIC-IV, MIMIC-CXR and MIMIC-IV-ECG. A shape is a suspicion, not a proof: an eight-digit number
that begins with 1 may be a file size. Logs lose such a number, which does no harm; a release is refused and a person looks.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

HIDDEN = "hidden"

# A hadm_id looks like a date (20160304), so it counts only near its name. \b does not break at "_", hence the lookarounds.
_SHAPES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("dicom_id", re.compile(r"(?<![0-9a-f])[0-9a-f]{8}(?:-[0-9a-f]{8}){4}(?![0-9a-f])", re.IGNORECASE)),
    ("dicom_uid", re.compile(r"(?<![\d.])[0-2](?:\.\d+){5,}(?![\d.])")),
    ("subject_folder", re.compile(r"(?<![A-Za-z0-9])p1\d{7}(?!\d)")),
    ("study_id", re.compile(r"(?<![A-Za-z0-9])s[45]\d{7}(?!\d)|(?<![A-Za-z0-9])4\d{7}(?![A-Za-z0-9])")),
    ("hadm_id", re.compile(r"(?i:hadm|admission).{0,24}?(?<!\d)(2\d{7})(?!\d)", re.DOTALL)),
    ("subject_id", re.compile(r"(?<![A-Za-z0-9])1\d{7}(?![A-Za-z0-9])")),
)


@dataclass(frozen=True)
class Identifier:
    """Where text seems to hold an identifier. Deliberately without the identifier itself."""

    kind: str
    start: int
    end: int


def find_identifiers(text: str) -> list[Identifier]:
    """All places in a text that look like an identifier, from left to right and without overlap."""
    found: list[Identifier] = []
    for kind, shape in _SHAPES:
        for match in shape.finditer(text):
            start, end = match.span(1) if shape.groups else match.span()
            if all(end <= other.start or start >= other.end for other in found):
                found.append(Identifier(kind, start, end))
    return sorted(found, key=lambda identifier: identifier.start)


def redact(text: str) -> str:
    """The text with every suspected identifier replaced by its kind in square brackets."""
    pieces, position = [], 0
    for identifier in find_identifiers(text):
        pieces += [text[position : identifier.start], f"[{identifier.kind}]"]
        position = identifier.end
    return "".join([*pieces, text[position:]])


class RedactingFilter(logging.Filter):
    """Redacts the message, its arguments and the traceback of every record; put it on a handler.

    On a handler, not on a logger: a logger's filter does not see the records of the loggers below it.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Redacts the record in place and lets it through."""
        record.msg, record.args = redact(record.getMessage()), None
        if record.exc_info:
            # A formatter uses the text that is already there instead of formatting the exception again.
            record.exc_text = redact(logging.Formatter().formatException(record.exc_info))
        if record.stack_info:
            record.stack_info = redact(record.stack_info)
        return True


def suppress_small_cells(counts: Mapping[str, int], minimum: int, hidden: Collection[str] = ()) -> dict[str, str]:
    """A row of counts of patients, fit to be shown: nothing below ``minimum``, shown or worked out from a known total.

    Counts from 1 to ``minimum - 1`` are hidden. If what is hidden adds up to less than ``minimum``, or if it is a single
    cell, the total would give it away: then the smallest of the other cells is hidden too.

    Args:
        counts: group -> number of patients; the groups are disjoint and their total is known.
        minimum: the smallest count that may be shown (11: the cell size policy of the US CMS).
        hidden: groups that are hidden anyway.

    Returns:
        group -> the count as text, or ``"hidden"``.
    """
    gone = {name for name, count in counts.items() if 0 < count < minimum or name in hidden}
    while gone and (len(gone) == 1 or sum(counts[name] for name in gone) < minimum):
        rest = [name for name in counts if name not in gone and counts[name] > 0]
        if not rest:
            break
        gone.add(min(rest, key=lambda name: counts[name]))
    return {name: HIDDEN if name in gone else str(count) for name, count in counts.items()}


def suppress_table(table: Mapping[str, Mapping[str, int]], minimum: int) -> dict[str, dict[str, str]]:
    """A table of counts whose row and column totals are known, fit to be shown.

    Rows and columns are suppressed in turn until neither gives away what the other hides.

    Args:
        table: row -> column -> number of patients.
        minimum: see ``suppress_small_cells``.
    """
    shown = {row: suppress_small_cells(counts, minimum) for row, counts in table.items()}
    while True:
        before = shown
        columns: dict[str, dict[str, str]] = {}
        for column in {name: None for counts in table.values() for name in counts}:
            counts = {row: table[row][column] for row in table}
            columns[column] = suppress_small_cells(counts, minimum, [row for row in table if shown[row][column] == HIDDEN])
        shown = {
            row: suppress_small_cells(counts, minimum, [column for column in counts if columns[column][row] == HIDDEN])
            for row, counts in table.items()
        }
        if shown == before:
            return shown

"""The flow of admissions as a picture in the manner of CONSORT: plain SVG text, the same bytes for the same numbers.

Nothing is measured when the picture is drawn: lines are wrapped at a number of letters that fits the boxes in any common
sans-serif font.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple
from xml.sax.saxutils import escape

_MARGIN: Final = 24
_BOX: Final = 300
_GAP: Final = 56
_SIDE: Final = 372
_WIDTH: Final = 2 * _MARGIN + _BOX + _GAP + _SIDE
_LINE: Final = 18
_PADDING: Final = 11
_STEP_GAP: Final = 15
_BOX_LETTERS: Final = 38
_SIDE_LETTERS: Final = 52

_STYLE: Final = (
    "text{font-family:Helvetica,Arial,'Liberation Sans',sans-serif;font-size:13px;fill:#1b2733}"
    ".title{font-weight:bold}"
    ".muted{fill:#52616f}"
    ".box{fill:#eef3f8;stroke:#4a6785;stroke-width:1.2}"
    ".side{fill:#fff;stroke:#9aa8b5;stroke-width:1}"
    ".end{fill:#e4f1ea;stroke:#3c7a5a;stroke-width:1.2}"
    ".line{fill:none;stroke:#4a6785;stroke-width:1.2}"
)


class _Text(NamedTuple):
    text: str
    style: str = ""


def draw_flow_chart(steps: Sequence[Mapping[str, Any]], splits: Sequence[Mapping[str, Any]]) -> str:
    """Boxes down the middle with what is left, boxes at the side with what left and why, at the end the splits.

    Args:
        steps: of ``attrition.Step``.
        splits: of ``attrition.SplitCount``.

    Returns:
        An SVG document with a title and a description for screen readers; it needs no font, script or network.

    Raises:
        ValueError: there is no step, or the numbers of a step do not add up.
    """
    _require_sums(steps, splits)
    parts: list[str] = []
    top: float = _MARGIN
    middle = _MARGIN + _BOX / 2
    for position, step in enumerate(steps):
        if position:
            side = _exclusion(step)
            height = _height(side)
            centre = top + _STEP_GAP + height / 2
            bottom = top + 2 * _STEP_GAP + height
            left = _MARGIN + _BOX + _GAP
            parts += [_arrow(middle, top, middle, bottom), _arrow(middle, centre, left, centre)]
            parts.append(_box(left, top + _STEP_GAP, _SIDE, side, "side", centred=False))
            top = bottom
        lines = [*_wrap(_sentence(step["step"]), _BOX_LETTERS, "title"), _Text(_size(step["included"], step.get("patients")))]
        parts.append(_box(_MARGIN, top, _BOX, lines, "box"))
        top += _height(lines)
    if splits:
        drawn, top = _draw_splits(splits, middle, top)
        parts += drawn
    height = round(top + _MARGIN)
    first, last = steps[0], steps[-1]
    summary = f"Of {first['included']:,} admissions, {last['included']:,} take part. " + " ".join(
        f"{step['excluded']:,} left at the step {step['step']}: {step['reason']}." for step in steps[1:]
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}" '
            'role="img" aria-labelledby="flow-title flow-description">',
            '<title id="flow-title">Flow of admissions into the cohort</title>',
            f'<desc id="flow-description">{escape(_printable(summary))}</desc>',
            f"<style>{_STYLE}</style>",
            '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            '<path d="M0,0.8 L7,4 L0,7.2 Z" fill="#4a6785"/></marker></defs>',
            f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
            *parts,
            "</svg>\n",
        ]
    )


def _require_sums(steps: Sequence[Mapping[str, Any]], splits: Sequence[Mapping[str, Any]]) -> None:
    if not steps:
        raise ValueError("a flow chart needs at least one step")
    for before, after in pairwise(steps):
        if after["included"] + after["excluded"] != before["included"]:
            raise ValueError(f"the step '{after['step']}' does not add up: {after} follows {before}")
    if splits and sum(split["admissions"] for split in splits) != steps[-1]["included"]:
        raise ValueError(f"the splits do not add up to the {steps[-1]['included']} admissions that are left: {splits}")


def _draw_splits(splits: Sequence[Mapping[str, Any]], middle: float, top: float) -> tuple[list[str], float]:
    """The boxes of the splits side by side, below the last step, and where they end."""
    gap = 20
    width = (_WIDTH - 2 * _MARGIN - gap * (len(splits) - 1)) / len(splits)
    fork, row = top + _STEP_GAP, top + 2 * _STEP_GAP + 4
    centres = [_MARGIN + width / 2 + number * (width + gap) for number in range(len(splits))]
    ends = (min(middle, centres[0]), max(middle, centres[-1]))
    parts = [_path(f"M{middle:g},{top:g} V{fork:g} M{ends[0]:g},{fork:g} H{ends[1]:g}")]
    height = 0
    for split, centre in zip(splits, centres, strict=True):
        counts = (_count(split["admissions"], "admission"), f"of {_count(split['patients'], 'patient')}")
        lines = [_Text(split["split"], "title"), *map(_Text, counts)]
        parts += [_arrow(centre, fork, centre, row), _box(centre - width / 2, row, width, lines, "end")]
        height = max(height, _height(lines))
    return parts, row + height


def _exclusion(step: Mapping[str, Any]) -> list[_Text]:
    lines = [_Text(f"{_count(step['excluded'], 'admission')} excluded", "title")]
    lines += _wrap(_sentence(step["reason"]), _SIDE_LETTERS)
    for what, count in (step.get("left_out") or {}).items():
        lines += _wrap(f"{what} left out: {count:,}", _SIDE_LETTERS, "muted")
    return lines


def _size(admissions: int, patients: int | None) -> str:
    text = _count(admissions, "admission")
    return text if patients is None else f"{text} of {_count(patients, 'patient')}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _wrap(text: str, letters: int, style: str = "") -> list[_Text]:
    return [_Text(line, style) for line in textwrap.wrap(_printable(text), letters)]


def _printable(text: str) -> str:
    """XML forbids most control characters, and a file's name in a reason may hold some."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _height(lines: Sequence[_Text]) -> int:
    return _LINE * len(lines) + 2 * _PADDING - 4


def _box(left: float, top: float, width: float, lines: Sequence[_Text], style: str, *, centred: bool = True) -> str:
    rectangle = f'<rect class="{style}" x="{left:g}" y="{top:g}" width="{width:g}" height="{_height(lines)}" rx="4"/>'
    place = left + width / 2 if centred else left + 12
    anchor = ' text-anchor="middle"' if centred else ""
    texts = []
    for number, line in enumerate(lines):
        kind = f' class="{line.style}"' if line.style else ""
        baseline = top + _PADDING + 11 + _LINE * number
        texts.append(f'<text x="{place:g}" y="{baseline:g}"{anchor}{kind}>{escape(line.text)}</text>')
    return "\n".join([rectangle, *texts])


def _arrow(left: float, top: float, right: float, bottom: float) -> str:
    return f'<path class="line" marker-end="url(#head)" d="M{left:g},{top:g} L{right:g},{bottom:g}"/>'


def _path(description: str) -> str:
    return f'<path class="line" d="{description}"/>'

"""The 12-lead ECG on standard paper, as an SVG whose user unit is one millimetre.

The page is the one that an ECG machine prints: 25 mm/s, 10 mm/mV, three rows of four leads for 2.5 s each, which follow
one another in time, and lead II over the whole 10 s below them. Each lead's median lies on its row's baseline, as on a
machine, whose input is AC-coupled; the gain is the same for all leads and nothing is filtered.
"""

from __future__ import annotations

from html import escape
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clinical_symile.errors import InputError
from clinical_symile.types import ECG_FS_HZ, ECG_LEADS, ECG_SAMPLES

MM_PER_S: Final = 25.0
MM_PER_MV: Final = 10.0
LAYOUT: Final = (("I", "aVR", "V1", "V4"), ("II", "aVL", "V2", "V5"), ("III", "aVF", "V3", "V6"))
RHYTHM_LEAD: Final = "II"

# The page, in mm. On the paper every edge is a multiple of 5 from its corner, so that each trace starts on a thick line.
_MARGIN = 1
_HEADER = 7
_FOOTER = 5
_CALIBRATION = 10
_END = 5
_STRIP = int(MM_PER_S * ECG_SAMPLES / ECG_FS_HZ)
_ROW = 30
_PAPER_WIDTH = _CALIBRATION + _STRIP + _END
_PAPER_HEIGHT = (len(LAYOUT) + 1) * _ROW
_PAGE_WIDTH = _PAPER_WIDTH + 2 * _MARGIN
_PAGE_HEIGHT = _HEADER + _PAPER_HEIGHT + _FOOTER

_UNITS_PER_MM = 100
"""Traces are drawn in whole hundredths of a millimetre (1 µV, 0.4 ms): shorter than decimals, and free of drift."""

_BUCKET = 4
"""Samples per 0.2 mm of paper. Of each bucket the lowest and the highest sample are drawn, so no peak is lost."""


def ecg_page_svg(
    ecg_mv: NDArray[np.floating],
    title: str = "",
    description: str = "12-lead electrocardiogram",
    *,
    calibrated: bool = True,
) -> str:
    """Draws a 12-lead ECG page.

    Args:
        ecg_mv: (5000, 12) millivolts at 500 Hz, leads in the order of ``types.ECG_LEADS``. NaN leaves a gap.
        title: printed at the top left; any text, it is escaped.
        description: what a screen reader says; any text, it is escaped.
        calibrated: whether the amplitudes are mV. If not, 1 unit is drawn as 10 mm, no pulse of 1 mV is, and the page says so.

    Returns:
        An SVG document of about 60 to 120 kB with ``viewBox`` in millimetres; printed at 100 % it is to scale.

    Raises:
        InputError: the array does not have the shape (5000, 12).
    """
    if ecg_mv.shape != (ECG_SAMPLES, len(ECG_LEADS)):
        raise InputError(f"an ECG page needs an array of shape ({ECG_SAMPLES}, {len(ECG_LEADS)}) in mV, not {ecg_mv.shape}")
    top, left = _HEADER, _MARGIN
    body = [_grid(left, top)]
    for row, leads in enumerate(LAYOUT):
        y = top + row * _ROW + _ROW // 2
        body.append(_calibration(left, y) if calibrated else "")
        for column, lead in enumerate(leads):
            samples = ECG_SAMPLES // len(leads)
            span = slice(column * samples, (column + 1) * samples)
            x = left + _CALIBRATION + column * _STRIP / len(leads)
            body.append(_lead(lead, ecg_mv[span, ECG_LEADS.index(lead)], x, y, separator=column > 0))
    y = top + len(LAYOUT) * _ROW + _ROW // 2
    body.append(_calibration(left, y) if calibrated else "")
    body.append(_lead(RHYTHM_LEAD, ecg_mv[:, ECG_LEADS.index(RHYTHM_LEAD)], left + _CALIBRATION, y, kind="rhythm"))
    footer_y = _PAGE_HEIGHT - 1.2
    scale = "25 mm/s 10 mm/mV" if calibrated else "25 mm/s; amplitude in arbitrary units, not mV"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_PAGE_WIDTH}mm" height="{_PAGE_HEIGHT}mm" '
        f'viewBox="0 0 {_PAGE_WIDTH} {_PAGE_HEIGHT}" role="img" font-family="Helvetica, Arial, sans-serif" fill="#1c2530">'
        f"<title>{_xml_text(title or 'ECG')}</title><desc>{_xml_text(description)}</desc>"
        f'<rect width="{_PAGE_WIDTH}" height="{_PAGE_HEIGHT}" fill="#fff"/>'
        f'<clipPath id="paper"><rect x="{left}" y="{top}" width="{_PAPER_WIDTH}" height="{_PAPER_HEIGHT}"/></clipPath>'
        f'<text class="title" x="{left}" y="{_HEADER - 2}" font-size="4.5" font-weight="600">{_xml_text(title)}</text>'
        f'<g clip-path="url(#paper)">{"".join(body)}</g>'
        f'<text class="scale" x="{left}" y="{footer_y}" font-size="3.2">{scale}</text>'
        f'<text class="filter" x="{left + _PAPER_WIDTH}" y="{footer_y}" font-size="3.2" text-anchor="end">'
        "No filter. Columns follow one another in time; rhythm strip: lead II</text>"
        "</svg>"
    )


def _grid(left: int, top: int) -> str:
    """Paper with thin lines each millimetre and thick lines each 5 mm."""
    thin: list[str] = []
    thick: list[str] = []
    for x in range(_PAPER_WIDTH + 1):
        (thin if x % 5 else thick).append(f"M{left + x} {top}v{_PAPER_HEIGHT}")
    for y in range(_PAPER_HEIGHT + 1):
        (thin if y % 5 else thick).append(f"M{left} {top + y}h{_PAPER_WIDTH}")
    return (
        f'<rect x="{left}" y="{top}" width="{_PAPER_WIDTH}" height="{_PAPER_HEIGHT}" fill="#fffaf8"/>'
        f'<path class="grid-1mm" d="{"".join(thin)}" stroke="#f7ddd6" stroke-width=".1" fill="none"/>'
        f'<path class="grid-5mm" d="{"".join(thick)}" stroke="#ecb7aa" stroke-width=".18" fill="none"/>'
    )


def _calibration(x: float, y: float) -> str:
    """The pulse of 1 mV and 0.2 s at the start of a row."""
    return (
        f'<path class="calibration" d="M{x + 1} {y}h2v{-MM_PER_MV:g}h{0.2 * MM_PER_S:g}v{MM_PER_MV:g}h2" '
        'stroke="#1c2530" stroke-width=".3" fill="none"/>'
    )


def _lead(lead: str, trace_mv: NDArray[np.floating], x: float, y: float, *, kind: str = "lead", separator: bool = False) -> str:
    """One lead: its name, its trace, and a short line between it and the lead before it in the row."""
    tick = f'<path d="M{x:g} {y - 7}v4M{x:g} {y + 3}v4" stroke="#1c2530" stroke-width=".3"/>' if separator else ""
    units = _UNITS_PER_MM
    return (
        f'{tick}<text class="label" x="{x + 1.2:g}" y="{y - _ROW / 2 + 4.4:g}" font-size="3.6" font-weight="600" '
        f'paint-order="stroke" stroke="#fffaf8" stroke-width=".8">{lead}</text>'
        f'<path class="{kind}" data-lead="{lead}" transform="translate({x:g} {y:g}) scale({1 / units:g} {-1 / units:g})" '
        f'd="{_path(trace_mv)}" stroke="#1c2530" stroke-width="{0.32 * units:g}" stroke-linejoin="round" fill="none"/>'
    )


def _path(trace_mv: NDArray[np.floating]) -> str:
    """SVG path data of a trace: one subpath for each run of finite samples, y upwards, in 1/100 mm."""
    kept = _peaks(trace_mv)
    finite = np.isfinite(trace_mv)
    baseline_mv = np.median(trace_mv[finite]) if finite.any() else 0.0
    x = np.rint(kept * (MM_PER_S / ECG_FS_HZ * _UNITS_PER_MM)).astype(int)
    y = np.rint((np.where(finite, trace_mv, baseline_mv)[kept] - baseline_mv) * (MM_PER_MV * _UNITS_PER_MM)).astype(int)
    gaps = np.flatnonzero(~finite)
    run_of = np.searchsorted(gaps, kept)
    data = []
    for run in np.unique(run_of[finite[kept]]):
        points = np.flatnonzero((run_of == run) & finite[kept])
        steps = zip(np.diff(x[points]), np.diff(y[points]), strict=True)
        data.append(f"M{x[points[0]]} {y[points[0]]}l" + " ".join(f"{dx} {dy}" for dx, dy in steps))
    return "".join(data)


def _peaks(trace: NDArray[np.floating]) -> NDArray[np.intp]:
    """Ascending indices of each bucket's lowest and highest sample, and of both ends."""
    buckets = len(trace) // _BUCKET
    shaped = trace[: buckets * _BUCKET].reshape(buckets, _BUCKET)
    start = np.arange(buckets) * _BUCKET
    low = start + np.argmin(np.where(np.isnan(shaped), np.inf, shaped), axis=1)
    high = start + np.argmax(np.where(np.isnan(shaped), -np.inf, shaped), axis=1)
    return np.unique(np.concatenate([[0], low, high, [len(trace) - 1]]))


def _xml_text(text: str) -> str:
    """Text for an XML element: escaped, and without the control characters that XML 1.0 forbids."""
    return escape("".join(character for character in text if character.isprintable()))

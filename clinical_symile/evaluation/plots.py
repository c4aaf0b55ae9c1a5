"""The figures of a report, as SVG in data URIs: nothing to load, sharp on paper, and the same bytes for the same numbers."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clinical_symile.evaluation.metrics import metric_label
from clinical_symile.evaluation.ranks import Ranks, Values
from clinical_symile.evaluation.schema import Estimate

# Okabe & Ito's colours, which stay apart for colour-blind readers; markers and dashes say the same without colour.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v")
_DASHES = ("-", "--", "-.", (0, (5, 1)), (0, (3, 1, 1, 1)))
_ORACLE, _CHANCE, _INK = "#111111", "#7a7a7a", "#26323c"

_STYLE = {
    "svg.hashsalt": "clinical-symile",
    "svg.fonttype": "path",
    # A run's name is text, not a formula.
    "text.parse_math": False,
    "font.size": 9,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": "#9aa5ad",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Curve:
    """A line with its band.

    Attributes:
        x: (p,).
        y: (p,).
        low: (p,).
        high: (p,).
    """

    x: Values
    y: Values
    low: Values
    high: Values


def accuracy_forest(metric: str, lines: Mapping[str, Estimate], chance: float, oracle: Estimate | None) -> str:
    """One metric of every run, with its interval, between chance and the oracle."""
    with mpl.rc_context(_STYLE):
        entries = [*lines.items()] + ([("oracle", oracle)] if oracle is not None else [])
        figure = Figure(figsize=(7.2, 0.9 + 0.42 * len(entries)), layout="constrained")
        axes = figure.subplots()
        for row, (_, estimate) in enumerate(entries):
            is_oracle = oracle is not None and row == len(entries) - 1
            colour = _ORACLE if is_oracle else _COLOURS[row % len(_COLOURS)]
            axes.plot([estimate.low, estimate.high], [row, row], color=colour, linewidth=2, solid_capstyle="butt")
            axes.plot(estimate.value, row, marker="d" if is_oracle else _MARKERS[row % len(_MARKERS)], color=colour, markersize=7)
            text = f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"
            axes.annotate(text, (1.02, row), xycoords=("axes fraction", "data"), va="center", annotation_clip=False)
        axes.axvline(chance, color=_CHANCE, linestyle="--", linewidth=1)
        axes.annotate("chance", (chance, 1.0), xycoords=("data", "axes fraction"), ha="center", va="bottom", color=_CHANCE)
        if oracle is not None:
            axes.axvline(oracle.value, color=_ORACLE, linestyle=":", linewidth=1)
        axes.set(xlim=(0, 1), ylim=(len(entries) - 0.5, -0.5), xlabel=metric_label(metric))
        axes.set_yticks(range(len(entries)), [name for name, _ in entries])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        return _data_uri(figure)


def recall_curves(curves: Mapping[str, Curve], chance: Curve, oracle: Curve | None) -> str:
    """Recall at every k on the bank, with pointwise bands."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 3.4), layout="constrained")
        axes = figure.subplots()
        for number, (name, curve) in enumerate(curves.items()):
            colour = _COLOURS[number % len(_COLOURS)]
            axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
            axes.plot(curve.x, curve.y, color=colour, linestyle=_DASHES[number % len(_DASHES)], label=name)
        if oracle is not None:
            axes.plot(oracle.x, oracle.y, color=_ORACLE, linestyle=":", label="oracle")
        axes.plot(chance.x, chance.y, color=_CHANCE, linestyle="--", linewidth=1, label="chance")
        axes.set(xscale="log", xlim=(1, chance.x[-1]), ylim=(0, 1.01), xlabel="k, X-rays looked at", ylabel="Recall at k")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.grid(axis="y", color="#e6eaed", linewidth=0.8)
        axes.legend(loc="upper left")
        return _data_uri(figure)


def rank_histogram(banks: Mapping[str, Ranks], gallery_size: int, bins: int = 20) -> str:
    """How often the patient's own X-ray came in each part of the bank; a tied positive is spread over its ranks."""
    with mpl.rc_context(_STYLE):
        edges = np.unique(np.linspace(0, gallery_size, bins + 1).round().astype(int))
        figure = Figure(figsize=(7.2, 2.8), layout="constrained")
        axes = figure.subplots()
        for number, (name, ranks) in enumerate(banks.items()):
            share = np.diff([ranks.hit(int(edge)).mean() for edge in edges])
            colour, dashes = _COLOURS[number % len(_COLOURS)], _DASHES[number % len(_DASHES)]
            axes.stairs(share, edges, color=colour, linestyle=dashes, linewidth=1.6, label=name)
            if number == 0:
                axes.stairs(share, edges, color=colour, alpha=0.15, fill=True)
        axes.stairs(np.diff(edges) / gallery_size, edges, color=_CHANCE, linestyle="--", linewidth=1, label="chance")
        axes.set(xlim=(0, gallery_size), xlabel="Rank of the patient's own X-ray in the bank", ylabel="Share of queries")
        axes.legend(loc="upper right")
        return _data_uri(figure)


def training_curves(runs: Mapping[str, Sequence[Mapping[str, float]]], panels: Sequence[tuple[str, tuple[str, ...]]]) -> str:
    """What was logged at the end of each epoch.

    Args:
        runs: run -> one record per epoch, with the key ``epoch``.
        panels: label and keys of each panel; a run's lines share its colour, and the first key is drawn thin.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 2.8), layout="constrained")
        for axes, (label, keys) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            for number, (name, records) in enumerate(runs.items()):
                for position, key in enumerate(keys):
                    legend = name if len(keys) == 1 else f"{name}, {key.replace('_', ' ')}"
                    _draw_logged(axes, records, key, legend, number, thin=position + 1 < len(keys))
            axes.set(xlabel="Epoch", ylabel=label)
            axes.legend(fontsize=7.5)
        return _data_uri(figure)


def _draw_logged(axes: Axes, records: Sequence[Mapping[str, float]], key: str, label: str, number: int, *, thin: bool) -> None:
    points = [(record["epoch"], record[key]) for record in records if key in record]
    if points:
        colour, width, alpha = _COLOURS[number % len(_COLOURS)], 0.9 if thin else 1.6, 0.6 if thin else 1.0
        axes.plot(*zip(*points, strict=True), color=colour, linewidth=width, alpha=alpha, label=label)


def _data_uri(figure: Figure) -> str:
    buffer = io.BytesIO()
    # Without its metadata the file holds neither the time nor the address of a web site.
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")

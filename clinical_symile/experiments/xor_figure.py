"""The figures of the experiment ``xor``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clinical_symile.experiments.intervals import half_width

if TYPE_CHECKING:
    import pandas as pd

    from clinical_symile.experiments.xor import XorConfig

# Okabe & Ito's colours and different markers, for readers who do not see colours.
_LOOKS = {
    "symile": ("#0072B2", "o", "Symile"),
    "clip": ("#D55E00", "s", "CLIP"),
    "symile_stand_in": ("#0072B2", "o", "Symile, learned stand-ins"),
    "symile_masked": ("#009E73", "^", "Symile, complete tuples only"),
    "symile_complete": ("#CC79A7", "D", "Symile, complete rows only"),
}
_INFORMATION = {
    "total_correlation": ("TC(a, b, c)", "-"),
    "i_ac": ("I(a; c)", "--"),
    "i_bc_given_a": ("I(b; c | a) = I(a; b | c)", "-."),
    "i_bc": ("I(a; b) = I(b; c)", ":"),
}


def draw_xor(results: pd.DataFrame, config: XorConfig, confidence: float) -> Figure:
    """One panel of accuracies for each number of bits; over p_hat, one of informations beneath each."""
    over_p_hat = len(config.p_hat) > 1 and not config.missing
    rows = 2 if over_p_hat else 1
    figure = Figure(figsize=(4.6 * len(config.bits), 3.4 * rows), layout="constrained")
    panels = figure.subplots(rows, len(config.bits), squeeze=False)
    axis = "p_hat" if over_p_hat else "missing" if config.missing else "target"
    for column, bits in enumerate(config.bits):
        chosen = results[results["bits"] == bits]
        _accuracies(panels[0, column], chosen, config, axis, confidence)
        panels[0, column].set_title(f"{bits} bit{'s' if bits > 1 else ''}")
        if over_p_hat:
            _informations(panels[1, column], chosen)
    panels[0, 0].legend(fontsize=8)
    if over_p_hat:
        panels[1, 0].legend(fontsize=8)
    return figure


def _accuracies(axes: Axes, results: pd.DataFrame, config: XorConfig, axis: str, confidence: float) -> None:
    places = list(dict.fromkeys(results[axis]))
    for loss in config.losses:
        colour, marker, label = _LOOKS[loss]
        groups = [results[(results["loss"] == loss) & (results[axis] == place)]["accuracy"].tolist() for place in places]
        means = [sum(group) / len(group) for group in groups]
        bars = [half_width(group, confidence) if len(group) > 1 else 0.0 for group in groups]
        line = "none" if axis == "target" else "-"
        axes.errorbar(places, means, bars, color=colour, marker=marker, linestyle=line, capsize=3, label=label, markersize=5)
    lines = results.groupby(axis, sort=False)[["bayes_accuracy", "chance"]].mean()
    axes.plot(places, lines["bayes_accuracy"], color="#111111", linestyle="--", linewidth=1, label="best guess")
    axes.plot(places, lines["chance"], color="#7a7a7a", linestyle=":", label="chance")
    what = "this modality from all the others" if axis == "target" else "b from a and c"
    labels = {"p_hat": "p, probability of c = a xor b", "missing": "share of training rows that lack each modality", "target": ""}
    axes.set(xlabel=labels[axis], ylabel=f"accuracy, {what}", ylim=(-0.03, 1.05))


def _informations(axes: Axes, results: pd.DataFrame) -> None:
    known = results.groupby("p_hat")[list(_INFORMATION)].mean()
    for (name, (label, line)), colour in zip(_INFORMATION.items(), ("#111111", "#D55E00", "#0072B2", "#7a7a7a"), strict=True):
        axes.plot(known.index, known[name], color=colour, linestyle=line, label=label)
    axes.set(xlabel="p, probability of c = a xor b", ylabel="nats, in closed form")

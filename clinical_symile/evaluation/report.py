"""``report.html``: one self-contained page that a researcher can send round.

Everything is escaped (jinja2 with autoescape), figures are images in data URIs, and the page forbids itself every other
source, so it loads nothing and runs nothing. The words below follow the numbers: they never claim more than the
intervals do.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from clinical_symile.evaluation import plots
from clinical_symile.evaluation.bootstrap import PatientBootstrap
from clinical_symile.evaluation.findings import Finding
from clinical_symile.evaluation.metrics import MEDIAN_RANK, higher_is_better, metric_label
from clinical_symile.evaluation.schema import Estimate, Report
from clinical_symile.stage import code_version

logger = logging.getLogger(__name__)

HTML = "report.html"
_PERCENT = "\N{NO-BREAK SPACE}%"
_POINTS = 48
_TEMPLATES = Path(__file__).parent / "templates"
_LOGGED = {"Loss": ("train_loss", "val_loss"), "Accuracy on the validation sets": ("accuracy_10way",)}
"""Panel of the training curves -> keys of ``metrics.jsonl``."""
_LOSSES = {"symile": "Symile", "clip": "pairwise CLIP"}


@dataclass(frozen=True)
class PageFigure:
    """A figure with the words around it."""

    uri: str
    alt: str
    caption: str


def draw_figures(
    report: Report, findings: Mapping[str, Finding], oracle: Finding | None, bootstrap: PatientBootstrap, runs: Sequence[Path]
) -> list[PageFigure]:
    """Draws all figures of a report.

    Args:
        report: the numbers.
        findings: run -> finding.
        oracle: the oracle's finding, if there is one.
        bootstrap: the resamples, for the bands.
        runs: the runs' folders, for ``metrics.jsonl``.
    """
    headline, confidence = report.headline, report.bootstrap.confidence
    percent = f"{100 * confidence:g}{_PERCENT}"
    lines = {name: metrics[headline] for name, metrics in report.metrics.items()}
    best = report.oracle[headline] if report.oracle is not None else None
    steps = np.unique(np.geomspace(1, report.gallery_size, _POINTS).round().astype(int))
    curves = {name: _recall_curve(finding, bootstrap, steps, confidence) for name, finding in findings.items()}
    m = findings[report.run].bank.candidates
    share = np.array([np.minimum(k / m, 1.0).mean() for k in steps])
    figures = [
        PageFigure(
            plots.accuracy_forest(headline, lines, report.chance[headline], best),
            f"{metric_label(headline)}: " + "; ".join(f"{name} {interval(estimate)}" for name, estimate in lines.items()),
            f"{metric_label(headline)} with {percent} intervals. Grey, dashed: chance."
            + (" Dotted: the oracle." if best else ""),
        ),
        PageFigure(
            plots.recall_curves(
                curves,
                plots.Curve(steps.astype(float), share, share, share),
                _recall_curve(oracle, bootstrap, steps, confidence) if oracle is not None else None,
            ),
            f"Recall at k for k from 1 to {report.gallery_size}",
            f"The patient's own X-ray is among the first k of {report.gallery_size}. Bands: {percent} intervals.",
        ),
        PageFigure(
            plots.rank_histogram({name: finding.bank for name, finding in findings.items()}, report.gallery_size),
            "Histogram of the ranks of the patients' own X-rays in the bank",
            "Where the patient's own X-ray stands in the bank: the further left, the better. Grey, dashed: chance.",
        ),
    ]
    logged = {folder.name: records for folder in runs if (records := read_epochs(folder / "metrics.jsonl"))}
    panels = [
        (label, keys)
        for label, keys in _LOGGED.items()
        if any(key in record for records in logged.values() for record in records for key in keys)
    ]
    if panels:
        caption = (
            "Training, epoch by epoch: loss (thin: train, thick: validation) and accuracy on the validation split. "
            "The losses of different objectives are not on one scale."
        )
        figures.append(PageFigure(plots.training_curves(logged, panels), "Training curves", caption))
    return figures


def render_report(report: Report, figures: Sequence[PageFigure]) -> str:
    """The page.

    Args:
        report: the numbers.
        figures: what ``draw_figures`` drew.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "label": metric_label, "as_json": _as_json}
    return environment.get_template("report.html.j2").render(
        report=report,
        figures=figures,
        losses=_LOSSES,
        confidence=f"{100 * report.bootstrap.confidence:g}{_PERCENT}",
        summary=summary(report),
        verdict=verdict,
        code=code_version(),
    )


def summary(report: Report) -> list[str]:
    """The result in two or three sentences."""
    key = report.headline
    own, chance = report.metrics[report.run][key], report.chance[key]
    percent = f"{100 * report.bootstrap.confidence:g}{_PERCENT}"
    against = "above" if own.low > chance else "below" if own.high < chance else "not distinguishable from"
    sentences = [
        f"Given the ECG and the laboratory panel of an admission, '{report.run}' picks the patient's own X-ray out of "
        f"{report.candidates} in {_share(own)} of {report.n_queries} queries ({percent} interval {_shares(own)}). "
        f"That is {against} chance ({100 * chance:.3g}{_PERCENT})."
    ]
    for baseline, metrics in report.paired_differences.items():
        difference = metrics[key]
        words = {"better": "The whole interval is above 0.", "worse": "The whole interval is below 0."}
        outcome = words.get(verdict(key, difference), "The interval holds 0: these data do not tell the two apart.")
        sentences.append(
            f"The paired difference to '{baseline}' is {_points(difference.value)} percentage points "
            f"({_points(difference.low)} to {_points(difference.high)}). {outcome}"
        )
    if report.oracle is not None:
        best = report.oracle[key]
        sentences.append(f"The oracle, which knows the law of the simulation, reaches {_share(best)} ({_shares(best)}).")
    return sentences


def verdict(metric: str, difference: Estimate) -> str:
    """What a paired difference shows: ``better``, ``worse`` or ``undecided``."""
    if difference.low <= 0 <= difference.high:
        return "undecided"
    return "better" if (difference.low > 0) == higher_is_better(metric) else "worse"


def interval(estimate: Estimate) -> str:
    """Value and interval.

    Example:
        >>> interval(Estimate(value=0.431, low=0.389, high=0.474, n=464))
        '0.431 (0.389 to 0.474)'
    """
    return f"{number(estimate.value)} ({number(estimate.low)} to {number(estimate.high)})"


def number(value: float, metric: str = "", *, signed: bool = False) -> str:
    """Three decimals, of a rank one; a real minus sign."""
    decimals = 1 if metric == MEDIAN_RANK else 3
    return f"{value:{'+' if signed else ''}.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def read_epochs(file: Path) -> list[dict[str, float]]:
    """The epochs that training logged; empty if the run logged none, as an imported model, or if the log cannot be read."""
    if not file.is_file():
        return []
    try:
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        return [{key: float(value) for key, value in line.items() if isinstance(value, int | float)} for line in lines]
    except (OSError, ValueError, AttributeError) as error:
        # The curves are an extra: a log that somebody edited does not cost the report.
        logger.warning("%s: is not a log of training, so the report shows no curves of this run (%s)", file, error)
        return []


def _recall_curve(finding: Finding, bootstrap: PatientBootstrap, steps: np.ndarray, confidence: float) -> plots.Curve:
    hits = np.stack([finding.bank.hit(int(k)) for k in steps], axis=1)
    low, high = np.quantile(bootstrap.means(hits), [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return plots.Curve(steps.astype(float), hits.mean(axis=0), low, high)


def _share(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f}{_PERCENT}"


def _shares(estimate: Estimate) -> str:
    return f"{100 * estimate.low:.1f} to {100 * estimate.high:.1f}"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "\N{MINUS SIGN}")


def _as_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)

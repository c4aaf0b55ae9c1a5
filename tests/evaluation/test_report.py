"""The page: hostile text stays text, nothing is loaded, and its words follow the numbers."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from clinical_symile.config import EvaluateConfig, ExperimentConfig
from clinical_symile.errors import IncompleteStage, InputError
from clinical_symile.evaluation import REPORT, evaluate, read_report
from clinical_symile.evaluation.plots import accuracy_forest
from clinical_symile.evaluation.report import PageFigure, interval, number, read_epochs, render_report, summary, verdict
from clinical_symile.evaluation.schema import Estimate, Report
from clinical_symile.stage import RunOptions

CONFIG = ExperimentConfig(evaluate=EvaluateConfig(bootstrap=200))
HOSTILE = """<script>alert("x")</script>'"><img src=http://evil.example/x onerror=alert(1)>{{ 7 * 7 }}"""


@pytest.fixture
def page(world) -> str:
    evaluate(CONFIG, world.workspace, RunOptions(quiet=True), "symile", ["clip"])
    return (world.workspace.report("symile") / "report.html").read_text(encoding="utf-8")


@pytest.fixture
def report(world, page: str) -> Report:
    return read_report(world.workspace.report("symile") / REPORT)


class Elements(HTMLParser):
    """Collects tags and their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_is_self_contained(page: str) -> None:
    elements = Elements(page).found
    assert {tag for tag, _ in elements}.isdisjoint({"script", "link", "iframe", "object", "a", "form"})
    images = [attributes for tag, attributes in elements if tag == "img"]
    assert len(images) == 4, "forest, recall curves, rank histogram, training curves"
    assert all((image["src"] or "").startswith("data:image/svg+xml;base64,") and image["alt"] for image in images)
    assert not re.search(r"(https?:)?//[a-z]", re.sub(r"base64,[A-Za-z0-9+/=]+", "", page)), "no address of anything outside"
    assert "default-src 'none'" in page


def test_figures_hold_no_script_no_time_and_no_address_but_namespaces(page: str) -> None:
    for encoded in re.findall(r"base64,([A-Za-z0-9+/=]+)", page):
        svg = base64.b64decode(encoded).decode()
        assert "<script" not in svg
        assert "<dc:date>" not in svg
        assert set(re.findall(r"https?://[^\"'< ]+", svg)) <= {
            "http://www.w3.org/2000/svg",
            "http://www.w3.org/1999/xlink",
            "http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd",
        }


def test_the_page_says_what_it_must(page: str) -> None:
    for words in (
        "Research use only",
        "Limitations",
        "How the numbers were computed",
        "resamples of the 30 patients",
        "pairwise CLIP",
    ):
        assert words in page


def test_hostile_text_stays_text(report: Report) -> None:
    dumped = report.model_dump()
    hostile = Report.model_validate(
        dumped
        | {
            "run": HOSTILE,
            "metrics": {HOSTILE: dumped["metrics"]["symile"]},
            "paired_differences": {HOSTILE: dumped["paired_differences"]["clip"]},
            "models": {HOSTILE: HOSTILE},
            "losses": {HOSTILE: HOSTILE},
            "access": HOSTILE,
            "notes": [HOSTILE],
            "configuration": {"evaluate": {HOSTILE: HOSTILE}, "runs": {HOSTILE: {HOSTILE: HOSTILE}}},
        }
    )
    harmless = Elements(render_report(report, [])).found
    page = render_report(hostile, [PageFigure("data:,", HOSTILE, HOSTILE)])
    elements = Elements(page).found
    assert not [tag for tag, _ in elements if tag == "script"]
    assert [attributes["src"] for tag, attributes in elements if tag == "img"] == ["data:,"]
    assert not [name for _, attributes in elements for name in attributes if name.startswith("on")]
    assert "&lt;script&gt;" in page
    assert "{{ 7 * 7 }}" in page, "text is not evaluated as a template"
    assert {tag for tag, _ in elements} - {tag for tag, _ in harmless} <= {"figure", "figcaption", "img"}


def test_a_dollar_sign_in_a_figure_is_a_dollar_sign() -> None:
    estimate = Estimate(value=0.5, low=0.4, high=0.6, n=10)
    assert accuracy_forest("mrr", {r"$\frac{1}{": estimate}, 0.1, None).startswith("data:image/svg+xml")


@pytest.mark.parametrize(
    ("metric", "low", "high", "expected"),
    [
        ("mrr", 0.01, 0.2, "better"),
        ("mrr", -0.2, -0.01, "worse"),
        ("mrr", -0.01, 0.2, "undecided"),
        ("mrr", 0.0, 0.2, "undecided"),
        ("median_rank", 0.5, 3.0, "worse"),
        ("median_rank", -3.0, -0.5, "better"),
    ],
)
def test_verdicts_follow_the_interval(metric: str, low: float, high: float, expected: str) -> None:
    assert verdict(metric, Estimate(value=(low + high) / 2, low=low, high=high, n=100)) == expected


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.25, 0.5, "That is above chance (20\N{NO-BREAK SPACE}%)"),
        (0.1, 0.3, "not distinguishable from chance"),
        (0.01, 0.1, "below chance"),
    ],
)
def test_the_summary_claims_no_more_than_the_interval(report: Report, low: float, high: float, words: str) -> None:
    metrics = {name: dict(table) for name, table in report.metrics.items()}
    metrics["symile"]["accuracy_5way"] = Estimate(value=(low + high) / 2, low=low, high=high, n=40)
    sentences = summary(report.model_copy(update={"metrics": metrics}))
    assert words in sentences[0]
    assert "paired difference to 'clip'" in sentences[1]


def test_numbers() -> None:
    assert number(0.4314) == "0.431"
    assert number(-0.05, signed=True) == "−0.050"
    assert number(0.05, signed=True) == "+0.050"
    assert number(113.25, "median_rank") == "113.2"
    assert number(2.5, "median_rank") == "2.5"
    assert interval(Estimate(value=0.5, low=0.25, high=0.75, n=4)) == "0.500 (0.250 to 0.750)"


def test_a_log_of_training_is_optional(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "metrics.jsonl"
    assert read_epochs(file) == []
    file.write_text('{"epoch": 1, "val_loss": 2.5, "note": "x"}\n{"epoch": 2, "val_loss": 2}\n')
    assert read_epochs(file) == [{"epoch": 1.0, "val_loss": 2.5}, {"epoch": 2.0, "val_loss": 2.0}]
    file.write_text('{"epoch": 1, "val')
    assert read_epochs(file) == []
    assert "no curves of this run" in caplog.text


def test_unreadable_reports_are_refused(tmp_path: Path) -> None:
    with pytest.raises(IncompleteStage, match="run 'clinical-symile evaluate'"):
        read_report(tmp_path / "report.json")
    (tmp_path / "report.json").write_text('{"schema_version": 2}')
    with pytest.raises(InputError, match="not a report of this version"):
        read_report(tmp_path / "report.json")

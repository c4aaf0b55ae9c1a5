"""The card says what was measured, and nothing in it was typed by hand."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from clinical_symile.errors import ConfigError
from clinical_symile.governance import CheckResult, Evidence, load_policy, render_model_card
from clinical_symile.governance.card import fill_template
from clinical_symile.resources import resource_root

TEMPLATES = sorted((resource_root() / "governance").glob("*.template.md"))


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_no_number_is_typed_into_a_template(template: Any) -> None:
    text = re.sub(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", "", template.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert not re.search(r"\d", text)


def test_the_card_quotes_the_report(evidence: Evidence) -> None:
    check = CheckResult("E02.chance", True, "block", "above chance")
    card = render_model_card(evidence, load_policy(), (check,))
    assert "- E02.chance passed: above chance" in card.markdown
    assert "**accuracy_10way 0.420 [0.340, 0.510]**, chance 0.100, oracle 0.600." in card.markdown
    assert "| mrr | 0.200 [0.150, 0.260] | 0.140 [0.100, 0.190] | 0.045 | 0.350 [0.300, 0.410] |" in card.markdown
    assert "Split test: 120 queries of 100 patients, 10 candidates in a set" in card.markdown
    assert "12,345,678" in card.markdown
    assert evidence.intended_use.statement in card.markdown
    assert all(limitation in card.markdown for limitation in evidence.intended_use.limitations)
    assert card.empty_fields() == []


@pytest.mark.parametrize(
    ("low", "high", "sentence"),
    [
        (0.03, 0.21, "higher than clip, with the whole interval"),
        (-0.03, 0.21, "no difference to clip is shown"),
        (-0.21, -0.03, "lower than clip, with the whole interval"),
    ],
)
def test_the_comparison_claims_no_more_than_its_interval(
    with_report: Callable[[Callable[[dict[str, Any]], None]], Evidence], low: float, high: float, sentence: str
) -> None:
    def edit(report: dict[str, Any]) -> None:
        report["paired_differences"]["clip"]["accuracy_10way"] |= {"low": low, "high": high}

    assert sentence in render_model_card(with_report(edit), load_policy(), ()).markdown


def test_small_splits_are_hidden(evidence: Evidence) -> None:
    from dataclasses import replace

    small = replace(evidence, subjects={**evidence.subjects, "test": frozenset(range(7))})
    card = render_model_card(small, load_policy(), ())
    assert "| test | hidden |" in card.markdown
    assert "| test | 7 |" not in card.markdown
    # 100 patients in all: with two of three splits shown, the third could be worked out.
    assert card.markdown.count("| hidden |") == 2


def test_equal_evidence_gives_equal_bytes(evidence: Evidence) -> None:
    first, second = (render_model_card(evidence, load_policy(), ()) for _ in range(2))
    assert first.digest == second.digest


def test_a_template_that_asks_for_an_unknown_field_is_an_error(tmp_path: Any) -> None:
    template = tmp_path / "card.md"
    template.write_text("{{ no_such_field }}", encoding="utf-8")
    with pytest.raises(ConfigError, match="no_such_field"):
        fill_template(template, {})

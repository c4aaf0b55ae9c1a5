"""The documents are kept up, and the list of checks is the list of checks."""

from __future__ import annotations

import datetime as dt
import re

import pytest

from clinical_symile.governance import Evidence, check_registration, check_upkeep, load_policy, load_risk_register
from clinical_symile.governance.serving import Service, check_serving
from clinical_symile.governance.upkeep import controls_exist, reviews_are_not_overdue
from clinical_symile.resources import resource_root


def documented(column: int) -> dict[str, str]:
    """Check -> severity in one column of the README's table."""
    text = (resource_root() / "governance" / "README.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if re.match(r"\| [DMECSG]\d\d", line)
    ]
    return {row[0]: row[column] for row in rows if row[column]}


def test_the_readme_lists_the_checks_of_registration(evidence: Evidence) -> None:
    results = check_registration(evidence, load_policy()).verdict.results
    assert {result.id: result.severity for result in results} == documented(2)


def test_the_readme_lists_the_checks_of_serving(evidence: Evidence, tmp_path_factory: pytest.TempPathFactory) -> None:
    service = Service(
        host="127.0.0.1",
        model_dir=evidence.model_dir,
        registered_digest=evidence.model_digest,
        reviewed_on=dt.date(2026, 1, 1),
        gallery={},
        audit_log=tmp_path_factory.mktemp("audit") / "audit.db",
    )
    assert {result.id: result.severity for result in check_serving(service).results} == documented(3)


def test_the_readme_lists_the_checks_of_the_documents() -> None:
    results = check_upkeep()
    assert {result.id: result.severity for result in results} == documented(4)
    assert not [result for result in results if not result.passed and result.severity == "block"]


def test_an_overdue_review_is_a_warning_with_its_owner() -> None:
    register = load_risk_register()
    late = max(risk.review_by for risk in register.risks) + dt.timedelta(days=1)
    result = reviews_are_not_overdue(register, late)
    assert (result.passed, result.severity) == (False, "warn")
    assert "R01 (research lead" in result.message


def test_a_control_that_is_gone_blocks() -> None:
    register = load_risk_register()
    gone = register.risks[0].model_copy(update={"enforced_by": "clinical_symile.governance.integrity:gone"})
    result = controls_exist(register.model_copy(update={"risks": (gone,)}))
    assert (result.passed, result.severity) == (False, "block")
    assert "R01" in result.message

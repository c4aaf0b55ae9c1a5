"""The state of the documents themselves: what ``clinical-symile governance check`` looks at when no run is named."""

from __future__ import annotations

import datetime as dt

from clinical_symile.governance.checks import CheckResult
from clinical_symile.governance.documents import RiskRegister, load_intended_use, load_risk_register
from clinical_symile.governance.evidence import installed_packages
from clinical_symile.governance.integrity import deny_list_is_fresh, intended_use_is_research, no_denied_dependency
from clinical_symile.governance.policy import load_policy


def check_upkeep(today: dt.date | None = None) -> tuple[CheckResult, ...]:
    """Judges policy, intended use and risk register.

    Raises:
        ConfigError: one of them cannot be read, or has an unknown key.
    """
    today = today or dt.datetime.now(dt.UTC).date()
    policy, register = load_policy(), load_risk_register()
    return (
        controls_exist(register),
        reviews_are_not_overdue(register, today),
        intended_use_is_research(load_intended_use(), policy),
        no_denied_dependency(installed_packages(), policy),
        deny_list_is_fresh(policy, today),
    )


def controls_exist(register: RiskRegister) -> CheckResult:
    """G01: the code that the risk register calls a control is there."""
    gone = [f"{risk.id}: {risk.enforced_by}" for risk in register.risks if not risk.control_exists()]
    found = f"there is no {'; '.join(gone)}" if gone else f"the controls of {len(register.risks)} risks exist"
    remedy = "name the code that stands against the risk now" if gone else ""
    return CheckResult("G01", not gone, "block", found, "governance/risk_register.yaml", remedy)


def reviews_are_not_overdue(register: RiskRegister, today: dt.date) -> CheckResult:
    """G02: no risk's review date has passed."""
    overdue = [f"{risk.id} ({risk.owner}, {risk.review_by})" for risk in register.risks if risk.review_by < today]
    found = f"overdue: {', '.join(overdue)}" if overdue else f"next review: {min(risk.review_by for risk in register.risks)}"
    remedy = "review these risks, then set review_by" if overdue else ""
    return CheckResult("G02", not overdue, "warn", found, "governance/risk_register.yaml", remedy)

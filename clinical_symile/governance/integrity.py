"""Checks that registering and serving share: the model's files, the installed packages, the intended use."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path

from clinical_symile.governance.checks import CheckResult
from clinical_symile.governance.documents import IntendedUse
from clinical_symile.governance.evidence import SUMS
from clinical_symile.governance.policy import Policy
from clinical_symile.stage import digest_file

PLAIN_SUFFIXES = (".safetensors", ".json")


def only_plain_files(model_dir: Path) -> CheckResult:
    """M01: the folder holds safetensors and JSON only; pickle-based formats run code when they are read."""
    odd = sorted(
        path.relative_to(model_dir).as_posix()
        for path in model_dir.rglob("*")
        if path.is_symlink() or (path.is_file() and path.suffix not in PLAIN_SUFFIXES and path.name != SUMS)
    )
    found = f"the model's folder also holds {', '.join(odd)}" if odd else "the model's folder holds safetensors and JSON only"
    return CheckResult(
        "M01", not odd, "block", found, str(model_dir), "remove these files, or train the run again" if odd else ""
    )


def checksums_agree(model_dir: Path) -> CheckResult:
    """M02: every file of the model is in ``SHA256SUMS`` and has the digest that stands there."""
    listed: dict[str, str] = {}
    for line in (model_dir / SUMS).read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        listed[name.removeprefix("*")] = digest
    present = {path.relative_to(model_dir).as_posix() for path in model_dir.rglob("*") if path.is_file() and path.name != SUMS}
    wrong = sorted(name for name in present & listed.keys() if digest_file(model_dir / name) != listed[name])
    problems = [f"{name} was changed" for name in wrong]
    problems += [f"{name} is missing" for name in sorted(listed.keys() - present)]
    problems += [f"{name} is not listed" for name in sorted(present - listed.keys())]
    found = "; ".join(problems) or f"{len(present)} files have the digests of {SUMS}"
    remedy = "do not use this model; train the run again" if problems else ""
    return CheckResult("M02", not problems, "block", found, str(model_dir / SUMS), remedy)


def no_denied_dependency(installed: Mapping[str, str], policy: Policy) -> CheckResult:
    """M06: no installed package is a release of the policy's deny-list."""
    denied = [
        f"{rule.package} {installed[rule.package]} {rule.reason}"
        for rule in policy.dependencies.deny
        if rule.package in installed and rule.denies(installed[rule.package])
    ]
    found = "; ".join(denied) or f"none of {len(policy.dependencies.deny)} denied releases is installed"
    remedy = "install the pinned versions: pip install -c constraints.txt clinical-symile" if denied else ""
    return CheckResult("M06", not denied, "block", found, "governance/policy.yaml: dependencies.deny", remedy)


def deny_list_is_fresh(policy: Policy, today: dt.date) -> CheckResult:
    """M06.age: the deny-list was compared with the advisories not long ago."""
    age = (today - policy.dependencies.as_of).days
    fresh = age <= policy.dependencies.review_after_days
    remedy = "" if fresh else "compare it with the advisories of each package, then set dependencies.as_of"
    found = f"the deny-list is {age} days old (at most {policy.dependencies.review_after_days})"
    return CheckResult("M06.age", fresh, "warn", found, "governance/policy.yaml: dependencies.as_of", remedy)


def intended_use_is_research(use: IntendedUse, policy: Policy) -> CheckResult:
    """C02: the statement of intended use says what the policy asks for, and the forbidden uses are out of scope."""
    rules = policy.intended_use
    problems = [f"{name} is not out of scope" for name in rules.out_of_scope if name not in use.out_of_scope]
    if rules.statement_contains.casefold() not in use.statement.casefold():
        problems.insert(0, f"the statement does not say {rules.statement_contains!r}")
    found = "; ".join(problems) or f"{use.statement} Out of scope: {', '.join(use.out_of_scope)}."
    remedy = "restore governance/intended_use.md; a use beyond research is not possible with this software" if problems else ""
    return CheckResult("C02", not problems, "block", found, "governance/intended_use.md", remedy)

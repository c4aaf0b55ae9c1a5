"""The gate of registration: what must hold before a run becomes a version that others may rely on.

Each check is a function of the evidence and the policy. The ids are those of ``governance/README.md``.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from clinical_symile.governance.card import ModelCard, render_model_card
from clinical_symile.governance.checks import CheckResult, Verdict
from clinical_symile.governance.evidence import Evidence
from clinical_symile.governance.integrity import (
    checksums_agree,
    deny_list_is_fresh,
    intended_use_is_research,
    no_denied_dependency,
    only_plain_files,
)
from clinical_symile.governance.policy import Policy, load_policy
from clinical_symile.governance.privacy import find_identifiers
from clinical_symile.stage import Workspace

Check = Callable[[Evidence, Policy], CheckResult]
_ID_KEY = re.compile(r"subject|hadm|study|patient", re.IGNORECASE)


def splits_are_patient_disjoint(evidence: Evidence, policy: Policy) -> CheckResult:
    """D03: no subject is in two splits of the dataset."""
    splits = sorted(evidence.subjects)
    shared = {
        f"{first} and {second}": len(evidence.subjects[first] & evidence.subjects[second])
        for position, first in enumerate(splits)
        for second in splits[position + 1 :]
    }
    overlaps = [f"{pair} share {count} subjects" for pair, count in shared.items() if count]
    found = "; ".join(overlaps) or f"no subject is in two of {', '.join(splits)}"
    return _result("D03", not overlaps, found, "dataset/manifest.parquet", "build the cohort again, with splits by subject")


def no_identifiers(evidence: Evidence, policy: Policy) -> CheckResult:
    """D11: neither the report nor the model's metadata holds something that looks like an identifier."""
    places = {"report.json": json.loads(evidence.report_text), "model.json": evidence.metadata}
    kinds = {f"{name}: {kind}" for name, content in places.items() for kind in _identifiers(content)}
    found = f"looks like an identifier in {'; '.join(sorted(kinds))}" if kinds else "nothing looks like an identifier"
    return _result("D11", not kinds, found, "report.json, model.json", "find out how it got there; do not pass these files on")


def report_is_of_this_model(evidence: Evidence, policy: Policy) -> CheckResult:
    """E00: the report is about these very weights and this very dataset."""
    report = evidence.report
    problems = []
    if report.run != evidence.run or report.models.get(evidence.run) != evidence.model_digest:
        problems.append("the report is about other weights")
    if report.data.dataset_digest != evidence.dataset_digest:
        problems.append("the report is about another dataset")
    found = "; ".join(problems) or f"the report is about model {evidence.model_digest[:12]} on this dataset"
    return _result("E00", not problems, found, "report.json: models, data", "run 'clinical-symile evaluate' again for this run")


def lineage_is_recorded(evidence: Evidence, policy: Policy) -> CheckResult:
    """M03: code version, training data, configuration and seed are known."""
    config = evidence.report.configuration.runs.get(evidence.run, {})
    facts = {
        "code version": evidence.code.get("version"),
        "digest of the training data": evidence.report.trained_on.get(evidence.run),
        "configuration": config or None,
        "seed": _find(config, "seed"),
    }
    missing = [name for name, value in facts.items() if value is None]
    found = f"not recorded: {', '.join(missing)}" if missing else f"recorded: {', '.join(facts)}"
    return _result(
        "M03", not missing, found, "runs/<run>/manifest.json, report.json", "train the run with 'clinical-symile train'"
    )


def code_is_committed(evidence: Evidence, policy: Policy) -> CheckResult:
    """M03.commit: the code that trained is a commit, without changes. A warning: an installed wheel has no commit."""
    commit, modified = evidence.code.get("commit"), evidence.code.get("modified")
    good = bool(commit) and not modified
    found = f"trained by commit {commit}" + (", with uncommitted changes" if modified else "") if commit else "no commit is known"
    remedy = "commit, then train again, if others are to repeat the run"
    return _result("M03.commit", good, found, "runs/<run>/manifest.json: code", remedy, "warn")


def interval_is_sound(evidence: Evidence, policy: Policy) -> CheckResult:
    """E01: the headline has an interval over enough patients of the test split, from enough patient-clustered resamples, at a
    stated pool size.
    """
    report, rules = evidence.report, policy.registration
    name = report.headline(rules.metric)
    estimate = report.metrics.get(evidence.run, {}).get(name)
    problems = []
    if estimate is None:
        problems.append(f"{name} was not measured")
    elif not estimate.low < estimate.high:
        problems.append(f"the interval of {name} has no width, so it bounds nothing")
    if report.split != "test":
        problems.append(f"measured on the {report.split} split, on which the epoch was chosen")
    if "patient" not in report.bootstrap.method:
        problems.append("the bootstrap does not resample patients")
    if report.bootstrap.resamples < rules.bootstrap_min:
        problems.append(f"{report.bootstrap.resamples} resamples (at least {rules.bootstrap_min})")
    if report.bootstrap.confidence < rules.confidence_min:
        problems.append(f"confidence {report.bootstrap.confidence} (at least {rules.confidence_min})")
    if report.n_subjects < rules.subjects_min:
        problems.append(f"{report.n_subjects} patients (at least {rules.subjects_min})")
    if min(report.candidates, report.gallery_size) < 2:
        problems.append("the number of candidates is not stated")
    found = "; ".join(problems) or (
        f"{name} over {report.n_subjects} patients, {report.bootstrap.resamples} resamples, {report.candidates} candidates"
    )
    return _result(
        "E01", not problems, found, "report.json: bootstrap", "evaluate again: --set evaluate.bootstrap=2000, more patients"
    )


def interval_above_chance(evidence: Evidence, policy: Policy) -> CheckResult:
    """E02.chance: the whole interval of the headline lies above chance."""
    report, rules = evidence.report, policy.registration
    name = report.headline(rules.metric)
    estimate, chance = report.metrics.get(evidence.run, {}).get(name), report.chance.get(name)
    if estimate is None or chance is None:
        return _result("E02.chance", False, f"{name} or its chance level is not in the report", "report.json", "evaluate again")
    above = estimate.low > chance or not rules.interval_above_chance
    found = f"{name} {estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}], chance {chance:.3f}"
    remedy = "the model may have learned nothing: train longer, on more admissions, or evaluate on more patients"
    return _result("E02.chance", above, found, "report.json: metrics, chance", remedy)


def comparison_is_stated(evidence: Evidence, policy: Policy) -> CheckResult:
    """E02.comparison: the paired difference to a run with another loss stands in the report, whoever wins."""
    report, rules = evidence.report, policy.registration
    name, wanted = report.headline(rules.metric), rules.compare_with.get(report.loss, ())
    stated = [
        (other, differences[name])
        for other, differences in sorted(report.paired_differences.items())
        if report.losses.get(other) in wanted and name in differences
    ]
    found = "; ".join(f"{name} minus {other}: {d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}]" for other, d in stated)
    return _result(
        "E02.comparison",
        bool(stated),
        found or f"no paired difference to a run trained with {' or '.join(wanted) or 'another loss'}",
        "report.json: paired_differences",
        "train one with --loss, then 'clinical-symile evaluate --baseline <that run>'",
    )


CHECKS: tuple[Check, ...] = (
    splits_are_patient_disjoint,
    no_identifiers,
    lambda evidence, policy: only_plain_files(evidence.model_dir),
    lambda evidence, policy: checksums_agree(evidence.model_dir),
    lineage_is_recorded,
    code_is_committed,
    lambda evidence, policy: no_denied_dependency(evidence.installed, policy),
    lambda evidence, policy: deny_list_is_fresh(policy, dt.datetime.now(dt.UTC).date()),
    report_is_of_this_model,
    interval_is_sound,
    interval_above_chance,
    comparison_is_stated,
    lambda evidence, policy: intended_use_is_research(evidence.intended_use, policy),
)


@dataclass(frozen=True)
class Approval:
    """What registration needs: the verdict, and the card that it is about."""

    verdict: Verdict
    card: ModelCard


def check_registration(evidence: Evidence, policy: Policy) -> Approval:
    """Judges a run, and fills its model card with what was found.

    The verdict's subject is the digests of the model, the report, the policy and the card; the registry compares them with
    what it is about to register.
    """
    results = tuple(check(evidence, policy) for check in CHECKS)
    card = render_model_card(evidence, policy, results)
    subject = {
        "model": evidence.model_digest,
        "report": evidence.report_digest,
        "policy": policy.digest,
        "card": card.digest,
    }
    return Approval(Verdict("register", subject, (*results, card_is_complete(card))), card)


def approve_registration(workspace: Workspace, run: str, policy: Policy | None = None) -> Approval:
    """The verdict and the card of a run that may be registered.

    Args:
        workspace: holds the run, its report and the dataset.
        run: the run's name.
        policy: default: the installed one.

    Raises:
        GateRefused: lists every check that failed, with its remedy.
        IncompleteStage: the run was not trained or not evaluated.
    """
    approval = check_registration(Evidence.gather(workspace, run), policy or load_policy())
    approval.verdict.require()
    return approval


def card_is_complete(card: ModelCard) -> CheckResult:
    """C01: no field of the card is empty, and nothing in it looks like an identifier."""
    problems = [f"{name} is empty" for name in card.empty_fields()]
    problems += [f"something looks like a {found.kind}" for found in find_identifiers(card.markdown)]
    found = "; ".join(problems) or f"all {len(card.fields)} fields are filled"
    return _result("C01", not problems, found, "governance/model_card.template.md", "fill these fields; nothing may be left open")


def _result(
    name: str, passed: bool, found: str, evidence: str, remedy: str, severity: Literal["block", "warn"] = "block"
) -> CheckResult:
    return CheckResult(name, passed, severity, found, evidence, "" if passed else remedy)


def _identifiers(content: Any, key: str = "") -> Iterator[str]:
    """The kinds of identifiers in JSON content. A number counts only under a key that says what it is."""
    if isinstance(content, Mapping):
        for name, value in content.items():
            yield from (found.kind for found in find_identifiers(name))
            yield from _identifiers(value, name)
    elif isinstance(content, list):
        for value in content:
            yield from _identifiers(value, key)
    elif isinstance(content, str):
        yield from (found.kind for found in find_identifiers(content))
    elif isinstance(content, int) and _ID_KEY.search(key):
        yield from (found.kind for found in find_identifiers(f"{key} {content}"))


def _find(tree: Mapping[str, Any], key: str) -> Any:
    """The first value under ``key`` anywhere in a nested mapping."""
    if key in tree:
        return tree[key]
    nested = (_find(value, key) for value in tree.values() if isinstance(value, Mapping))
    return next((value for value in nested if value is not None), None)

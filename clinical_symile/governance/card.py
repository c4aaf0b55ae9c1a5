"""The model card: ``governance/model_card.template.md`` filled from what was measured and recorded, never by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clinical_symile.errors import ConfigError
from clinical_symile.governance.checks import CheckResult
from clinical_symile.governance.evidence import Estimate, Evidence
from clinical_symile.governance.policy import Policy
from clinical_symile.governance.privacy import suppress_small_cells
from clinical_symile.resources import resource_root
from clinical_symile.types import SPLITS

_MAY_BE_EMPTY = ("comparisons", "notes", "others")
_OPEN = ("", "none", "nan", "todo", "tbd", "unknown")


@dataclass(frozen=True)
class ModelCard:
    """A filled card: as text for people, and as the fields it was filled with."""

    markdown: str
    fields: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """SHA-256 of the text."""
        return hashlib.sha256(self.markdown.encode()).hexdigest()

    def empty_fields(self) -> list[str]:
        """The fields that hold nothing, or a word that stands for nothing."""
        return sorted({name for name, value in _leaves(self.fields) if str(value).strip().lower() in _OPEN})


def render_model_card(evidence: Evidence, policy: Policy, checks: Sequence[CheckResult]) -> ModelCard:
    """Fills the card of a run.

    Args:
        evidence: what was measured and recorded.
        policy: names the headline metric and the smallest cell that may be shown.
        checks: the results that the card lists.

    Raises:
        ConfigError: the template asks for a field that does not exist.
    """
    fields = card_fields(evidence, policy, checks)
    return ModelCard(fill_template(resource_root() / "governance" / "model_card.template.md", fields), fields)


def fill_template(file: Path, fields: Mapping[str, Any]) -> str:
    """A jinja2 template, filled.

    Raises:
        ConfigError: the template is missing, is no template, or asks for a field that does not exist.
    """
    import jinja2

    loader = jinja2.FileSystemLoader(file.parent)
    # Markdown, not HTML: whoever turns a card into HTML escapes it then. A field that is not there is an error.
    environment = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, autoescape=jinja2.select_autoescape())
    try:
        return environment.get_template(file.name).render(fields)
    except jinja2.TemplateError as error:
        raise ConfigError(f"{file}: cannot be filled: {type(error).__name__}: {error}") from None


def card_fields(evidence: Evidence, policy: Policy, checks: Sequence[CheckResult]) -> dict[str, Any]:
    """Everything that the card says, by name; JSON-able."""
    report, use = evidence.report, evidence.intended_use
    headline = report.headline(policy.registration.metric)
    others = sorted(name for name in report.metrics if name != evidence.run)
    return {
        "run": evidence.run,
        "statement": use.statement,
        "loss": report.loss,
        "architecture": _architecture(evidence.metadata),
        "parameters": _parameters(evidence.metadata),
        "model_digest": evidence.model_digest,
        "report_digest": evidence.report_digest,
        "data": f"{report.data.hospital_kind} hospital{', simulated' if report.data.simulated else ''}",
        "dataset_digest": evidence.dataset_digest,
        "access": report.access,
        "code": _code(evidence.code),
        "seed": _seed(report.configuration.runs.get(evidence.run, {})),
        "users": list(use.users),
        "uses": list(use.uses),
        "out_of_scope": dict(use.out_of_scope),
        "limitations": list(use.limitations),
        "headline": _headline(evidence, headline),
        "setting": (
            f"Split {report.split}: {report.n_queries} queries of {report.n_subjects} patients, {report.candidates} candidates "
            f"in a set, {report.gallery_size} X-rays in the bank. Intervals: {report.bootstrap.confidence:.0%}, "
            f"{report.bootstrap.method}, {report.bootstrap.resamples} resamples."
        ),
        "others": others,
        "metrics": [
            {
                "name": name,
                "own": _interval(estimate),
                "others": [_interval(report.metrics[other].get(name)) for other in others],
                "chance": f"{report.chance[name]:.3f}" if name in report.chance else "not defined",
                "oracle": _interval((report.oracle or {}).get(name)),
            }
            for name, estimate in report.metrics.get(evidence.run, {}).items()
        ],
        "comparisons": [
            _comparison(headline, other, differences[headline])
            for other, differences in sorted(report.paired_differences.items())
            if headline in differences
        ],
        "notes": list(report.notes),
        "subjects": suppress_small_cells(
            {split: len(evidence.subjects.get(split, ())) for split in SPLITS}, policy.disclosure.min_cell
        ),
        "checks": [f"{check.id} {'passed' if check.passed else 'FAILED'}: {check.message}" for check in checks],
    }


def _headline(evidence: Evidence, metric: str) -> str:
    estimate = evidence.report.metrics.get(evidence.run, {}).get(metric)
    chance = evidence.report.chance.get(metric)
    if estimate is None or chance is None:
        return ""
    oracle = (evidence.report.oracle or {}).get(metric)
    best = f", oracle {oracle.value:.3f}" if oracle else ""
    return f"**{metric} {_interval(estimate)}**, chance {chance:.3f}{best}."


def _comparison(metric: str, other: str, difference: Estimate) -> str:
    if difference.low > 0:
        meaning = f"higher than {other}, with the whole interval"
    elif difference.high < 0:
        meaning = f"lower than {other}, with the whole interval"
    else:
        meaning = f"no difference to {other} is shown"
    return f"{metric} minus that of {other}, on the same queries: {_interval(difference, sign=True)}; {meaning}."


def _interval(estimate: Estimate | None, sign: bool = False) -> str:
    if estimate is None:
        return "not measured"
    form = "{:+.3f}" if sign else "{:.3f}"
    value, low, high = (form.format(number) for number in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]"


def _architecture(metadata: Mapping[str, Any]) -> str:
    model = metadata.get("architecture")
    return ", ".join(f"{key} {value}" for key, value in model.items()) if isinstance(model, Mapping) else ""


def _parameters(metadata: Mapping[str, Any]) -> str:
    count = metadata.get("parameters")
    return f"{count:,}" if isinstance(count, int) else ""


def _code(code: Mapping[str, Any]) -> str:
    commit = f", commit {code['commit']}" if code.get("commit") else ""
    return f"clinical-symile {code.get('version', '')}{commit}{', with uncommitted changes' if code.get('modified') else ''}"


def _seed(config: Mapping[str, Any]) -> str:
    train = config.get("train", config)
    return str(train.get("seed", "")) if isinstance(train, Mapping) else ""


def _leaves(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf with its path. An empty list is a leaf, unless nothing may be an answer (E02.comparison judges one of them)."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _leaves(value, f"{name}.{key}" if name else str(key))
    elif isinstance(tree, list) and (tree or name in _MAY_BE_EMPTY):
        for value in tree:
            yield from _leaves(value, name)
    else:
        yield name, "" if tree in ([], {}) else tree

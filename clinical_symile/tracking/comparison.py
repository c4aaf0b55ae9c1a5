"""Two versions side by side: their numbers on the same data, the paired difference, and what else differs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from clinical_symile.config import ExperimentConfig
from clinical_symile.errors import ConfigError, InputError
from clinical_symile.stage import Workspace
from clinical_symile.tracking.mlflow_tracker import flatten
from clinical_symile.tracking.versions import ModelVersion, find_version, read_report

_SAME = ("split", "n_queries", "candidates", "gallery_size")
_LINEAGE = ("run", "loss", "model_digest", "config_digest", "git_commit", "code_version", "policy_digest", "access")


@dataclass(frozen=True)
class Interval:
    """A value with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class MetricRow:
    """One metric of both versions. ``difference`` is first minus second on the same queries, if it was measured."""

    metric: str
    first: Interval
    second: Interval
    difference: Interval | None
    chance: float | None


@dataclass(frozen=True)
class Comparison:
    """Two versions side by side.

    Attributes:
        first: one version.
        second: the other.
        setting: split, queries, candidates and bank, which both share.
        metrics: one row per metric that both have.
        settings: key -> (first, second) where their configurations differ.
        lineage: key -> (first, second) where their lineage differs.
        remark: what is missing, and how to get it; empty if nothing is.
    """

    first: ModelVersion
    second: ModelVersion
    setting: Mapping[str, Any]
    metrics: tuple[MetricRow, ...]
    settings: Mapping[str, tuple[str, str]]
    lineage: Mapping[str, tuple[str, str]]
    remark: str


def compare(workspace: Workspace, config: ExperimentConfig, first: int | str, second: int | str) -> Comparison:
    """Compares two versions by the reports they were registered with.

    Args:
        workspace: holds the store.
        config: names the store and the model.
        first: a version's number or alias.
        second: another's.

    Raises:
        ConfigError: there is no such version, or both are the same one.
        InputError: they were not evaluated on the same data, so their numbers cannot be compared.
    """
    one, two = find_version(workspace, config, first), find_version(workspace, config, second)
    if one.version == two.version:
        raise ConfigError(f"{one.label}: is both {first!r} and {second!r}; name two different versions")
    return compare_reports(one, two, read_report(workspace, config, one), read_report(workspace, config, two))


def compare_reports(first: ModelVersion, second: ModelVersion, report: Mapping[str, Any], other: Mapping[str, Any]) -> Comparison:
    """The comparison of two versions whose reports are at hand; see ``compare``."""
    different = [] if report["data"]["dataset_digest"] == other["data"]["dataset_digest"] else ["dataset"]
    different += [key for key in _SAME if report[key] != other[key]]
    if different:
        raise InputError(
            f"{first.label} and {second.label} were evaluated on different data ({', '.join(different)}), so their numbers "
            "cannot be compared; evaluate and register both on one dataset and split"
        )
    differences = _paired(report, other)
    own, others = report["metrics"][report["run"]], other["metrics"][other["run"]]
    rows = tuple(
        MetricRow(name, _interval(own[name]), _interval(others[name]), differences.get(name), report["chance"].get(name))
        for name in own
        if name in others
    )
    missing = "neither report holds the paired difference; the documents ranks.parquet of both do, query by query"
    return Comparison(
        first=first,
        second=second,
        setting={key: report[key] for key in _SAME},
        metrics=rows,
        settings=dict(_differing(_settings(report), _settings(other))),
        lineage=dict(_differing(*({key: version.tags.get(key, "") for key in _LINEAGE} for version in (first, second)))),
        remark="" if differences else missing,
    )


def _paired(report: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Interval]:
    """First minus second, from whichever report compared itself with the very weights of the other."""
    if _compared(report, other):
        return {name: _interval(found) for name, found in report["paired_differences"][other["run"]].items()}
    if _compared(other, report):
        found = other["paired_differences"][report["run"]]
        return {name: Interval(-value["value"], -value["high"], -value["low"]) for name, value in found.items()}
    return {}


def _compared(report: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    run = other["run"]
    return run in report["paired_differences"] and report["models"].get(run) == other["models"][run]


def _interval(estimate: Mapping[str, Any]) -> Interval:
    return Interval(estimate["value"], estimate["low"], estimate["high"])


def _settings(report: Mapping[str, Any]) -> dict[str, str]:
    flat = flatten(report["configuration"]["runs"].get(report["run"], {}))
    return {key: json.dumps(value) for key, value in flat.items()}


def _differing(first: Mapping[str, str], second: Mapping[str, str]) -> Iterator[tuple[str, tuple[str, str]]]:
    for key in sorted({*first, *second}):
        pair = first.get(key, ""), second.get(key, "")
        if pair[0] != pair[1]:
            yield key, pair

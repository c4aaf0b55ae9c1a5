"""Wires the rooms together, one function per stage; the commands and the pipeline both call these.

The rooms of one layer do not know each other: here the cohort is given the ECG check, training its tracker, and the
registry the verdict of governance.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinical_symile.cli.common import Invocation
from clinical_symile.stage import require_complete

if TYPE_CHECKING:
    from clinical_symile.evaluation import Estimate
    from clinical_symile.tracking import ModelVersion

logger = logging.getLogger(__name__)


def simulate(call: Invocation) -> dict[str, Any]:
    """Writes the simulated hospital."""
    from clinical_symile.simulation import simulate as run

    return run(call.config, call.workspace, call.options)


def cohort(call: Invocation) -> dict[str, Any]:
    """Selects and splits the admissions; shows where the others went."""
    from clinical_symile.cohort import build_cohort, format_attrition
    from clinical_symile.modalities.ecg import examine

    manifest = build_cohort(call.config, call.workspace, call.options, examine_ecg=examine)
    if not (call.options.quiet or call.options.dry_run):
        print(format_attrition(call.workspace.cohort))
    return manifest


def prepare(call: Invocation) -> dict[str, Any]:
    """Turns raw files into arrays."""
    from clinical_symile.dataset import prepare as run

    return run(call.config, call.workspace, call.options)


def import_dataset(call: Invocation, folder: Path) -> dict[str, Any]:
    """Takes over the released Symile-MIMIC as a finished cohort and dataset."""
    from clinical_symile.cohort import format_attrition
    from clinical_symile.dataset import import_released_dataset

    manifest = import_released_dataset(call.config, call.workspace, call.options, folder)
    if not (call.options.quiet or call.options.dry_run):
        print(format_attrition(call.workspace.cohort))
    return manifest


def train(call: Invocation) -> dict[str, Any]:
    """Trains one model and follows it in MLflow."""
    from clinical_symile.tracking import MlflowTracker
    from clinical_symile.training import train as run

    return run(call.config, call.workspace, call.options, MlflowTracker(call.workspace, call.config))


def evaluate(call: Invocation, baselines: tuple[str, ...] = ()) -> dict[str, Any]:
    """Measures one model beside its baselines, chance and the oracle."""
    from clinical_symile.evaluation import evaluate as run

    return run(call.config, call.workspace, call.options, call.config.train.run_name, baselines)


def register(call: Invocation, alias: str | None = None) -> None:
    """Registers one run with its card, if governance lets it pass, and gives it an alias."""
    from clinical_symile.governance import approve_registration, render_data_card
    from clinical_symile.tracking import promote
    from clinical_symile.tracking import register as run

    name = call.config.train.run_name
    approval = approve_registration(call.workspace, name)
    if call.options.dry_run:
        print(f"register: governance would let '{name}' pass")
        return
    for result in approval.verdict.warnings:
        logger.warning("governance warns: %s: %s", result.id, result.message)
    documents = {
        "data_card.md": render_data_card(call.workspace),
        "model_card.json": json.dumps(approval.card.fields, indent=2, default=str),
    }
    version = run(
        call.workspace,
        call.config,
        name,
        card=approval.card.markdown,
        verdict=approval.verdict.as_dict(),
        documents=documents,
    )
    if alias is not None and alias not in version.aliases:
        version = promote(call.workspace, call.config, version.version, alias)  # type: ignore[arg-type]  # checked inside
    if not call.options.quiet:
        print(f"registered: {version.label}{f' as {alias}' if alias else ''}")


def better_run(call: Invocation, losses: Sequence[str]) -> str:
    """The loss whose run does better in retrieval on the *validation* split; the test split is not looked at.

    Raises:
        IncompleteStage: a run is not finished.
    """

    def accuracy(loss: str) -> float:
        best = require_complete(call.workspace.run(loss), "train")["best"]
        return float(best.get("accuracy_10way", 0.0))  # absent where the validation split is too small for candidate sets

    return max(losses, key=accuracy)


def index(call: Invocation) -> dict[str, Any]:
    """Embeds the gallery."""
    from clinical_symile.retrieval import build_index

    return build_index(call.config, call.workspace, call.options, call.config.train.run_name)


def paired_difference(call: Invocation, first: ModelVersion, second: ModelVersion) -> dict[str, Estimate]:
    """First minus second, metric by metric, from the ranks that both versions were registered with."""
    from clinical_symile.evaluation import compare
    from clinical_symile.tracking import document

    ranks = [document(call.workspace, call.config, version, "ranks.parquet") for version in (first, second)]
    rules = call.config.evaluate
    found = compare(*ranks, recall_at=rules.recall_at, resamples=rules.bootstrap, confidence=rules.confidence, seed=rules.seed)
    return found.difference

"""The registry: versions of one model, each with its card, its report and the verdict that admitted it.

A version is made in this order, and a second call after an interruption finds each step again: the model's folder is stored;
the report's metrics and the documents are attached to the run; the version, with its tags, appears in one transaction. So a
version that can be seen is whole, and the same weights with the same report are one version, however often registered.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinical_symile.config import ExperimentConfig, config_digest
from clinical_symile.errors import GateRefused
from clinical_symile.stage import Workspace, digest_file, file_lock, require_complete, write_text
from clinical_symile.tracking.package import package_model
from clinical_symile.tracking.store import access_class, experiment_id, open_store
from clinical_symile.tracking.versions import DOCUMENTS, ModelVersion, describe, list_versions

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

logger = logging.getLogger(__name__)

_MAX_DESCRIPTION = 5000  # characters, of MLflow's database schema
_MAX_DATASET_DIGEST = 36


def register(
    workspace: Workspace,
    config: ExperimentConfig,
    run: str,
    *,
    card: str,
    verdict: Mapping[str, Any],
    documents: Mapping[str, str] | None = None,
) -> ModelVersion:
    """Registers the model of a trained and evaluated run.

    Args:
        workspace: holds the run and its report.
        config: section ``registry`` names the model and the store.
        run: the run's name.
        card: the model card, as markdown.
        verdict: governance's verdict on this run (``Verdict.as_dict()``); its subject must be what is registered here.
        documents: file name -> text of further documents to keep with the version.

    Returns:
        The version; an earlier one if the same weights were registered with the same report.

    Raises:
        GateRefused: the verdict forbids it, or is about other weights, another report or another card.
        IncompleteStage: the run was not trained or not evaluated.
    """
    require_complete(workspace.run(run), "train")
    require_complete(workspace.report(run), "evaluate")
    model_dir, report_file = workspace.run(run) / "model", workspace.report(run) / "report.json"
    subject = {
        "model": digest_file(model_dir / "SHA256SUMS"),
        "report": digest_file(report_file),
        "card": hashlib.sha256(card.encode()).hexdigest(),
    }
    _require(verdict, subject)
    report = json.loads(report_file.read_text(encoding="utf-8"))
    client = open_store(workspace, config)
    with file_lock(workspace.tracking / "registry.lock"):
        for version in list_versions(workspace, config):
            if (version.model_digest, version.report_digest) == (subject["model"], subject["report"]):
                logger.info("already registered: %s version %d", version.name, version.version)
                return version
        experiment = experiment_id(client, config)
        run_id = _run_id(client, workspace, run, experiment)
        tags = _tags(workspace, run, report, subject, verdict)
        model = _stored_model(client, workspace, experiment, run_id, model_dir, tags)
        _log_metrics(client, run_id, report, model.model_id)
        texts = {**(documents or {}), "model_card.md": card, "verdict.json": json.dumps(dict(verdict), indent=2)}
        _attach_documents(client, workspace, run_id, subject["report"], report_file.parent, texts)
        _ensure_registered_model(client, config.registry.name)
        created = client.create_model_version(
            config.registry.name,
            source=model.artifact_location,
            run_id=run_id,
            tags=tags,
            description=_shortened(card),
            model_id=model.model_id,
        )
    logger.info("registered: %s version %s", created.name, created.version)
    return describe(client, created.name, created.version)


def _require(verdict: Mapping[str, Any], subject: Mapping[str, str]) -> None:
    """A verdict is about digests; here they are compared with what lies on the disk now."""
    if verdict.get("action") != "register" or verdict.get("passed") is not True:
        raise GateRefused("registration needs a verdict of governance that allows it; run 'clinical-symile governance check'")
    judged = verdict.get("subject", {})
    other = [name for name, digest in subject.items() if judged.get(name) != digest]
    if other:
        raise GateRefused(f"the verdict is about another {' and another '.join(other)}; something was changed since: check again")


def _tags(
    workspace: Workspace, run: str, report: Mapping[str, Any], subject: Mapping[str, str], verdict: Mapping[str, Any]
) -> dict[str, str]:
    """Lineage and headline of a version; texts, as MLflow keeps them."""
    manifest = require_complete(workspace.run(run), "train")
    name = f"accuracy_{report['candidates']}way"
    headline = report["metrics"][run][name]
    warned = [result["id"] for result in verdict.get("results", ()) if not result["passed"]]
    facts = {
        "run": run,
        "loss": report["losses"][run],
        "headline": f"{name} {headline['value']:.3f} [{headline['low']:.3f}, {headline['high']:.3f}]",
        "chance": f"{report['chance'][name]:.3f}",
        "split": report["split"],
        "access": access_class(workspace),
        "model_digest": subject["model"],
        "report_digest": subject["report"],
        "card_digest": subject["card"],
        "policy_digest": verdict["subject"].get("policy"),
        "dataset_digest": report["data"]["dataset_digest"],
        "config_digest": config_digest(manifest["config"]),
        "code_version": manifest["code"]["version"],
        "git_commit": manifest["code"]["commit"],
        "verdict": "passed",
        "warnings": ", ".join(warned) or "none",
        "intended_use": "research use only",
    }
    return {key: str(value) for key, value in facts.items() if value is not None}


def _run_id(client: MlflowClient, workspace: Workspace, run: str, experiment: str) -> str:
    """The MLflow run that followed the training; a new one if the store does not know it."""
    from mlflow.exceptions import MlflowException

    file = workspace.run(run) / "run.json"
    if file.is_file():
        try:
            return str(client.get_run(json.loads(file.read_text(encoding="utf-8"))["run_id"]).info.run_id)
        except (MlflowException, KeyError, ValueError):
            logger.info("the tracking store does not know the run that trained this model; a new one holds its evaluation")
    created = client.create_run(experiment, run_name=run)
    client.set_terminated(created.info.run_id)
    return str(created.info.run_id)


def _stored_model(
    client: MlflowClient, workspace: Workspace, experiment: str, run_id: str, model_dir: Path, tags: Mapping[str, str]
) -> LoggedModel:
    """The model in MLflow's artifacts: stored once for each digest, also when an earlier attempt was killed halfway."""
    digest = tags["model_digest"]
    for known in client.search_logged_models([experiment], filter_string=f"tags.model_digest = '{digest}'"):
        if str(known.status) == "READY":
            return known
    package = workspace.tracking / ".package"
    kept = {name: tags[name] for name in ("model_digest", "dataset_digest", "access", "loss")}
    package_model(model_dir, package, {**kept, "intended_use": tags["intended_use"]})
    model = client.create_logged_model(experiment, name=tags["loss"], source_run_id=run_id, tags=kept)
    client.log_model_artifacts(model.model_id, str(package))
    stored = client.finalize_logged_model(model.model_id, "READY")
    shutil.rmtree(package)
    return stored


def _log_metrics(client: MlflowClient, run_id: str, report: Mapping[str, Any], model_id: str) -> None:
    """The report's own numbers, as ``test/accuracy_10way``, ``test/accuracy_10way_low``, ..., tied to model and dataset."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    digest = report["data"]["dataset_digest"][:_MAX_DATASET_DIGEST]
    client.log_batch(
        run_id,
        metrics=[
            Metric(f"{report['split']}/{name}{suffix}", estimate[key], now, 0, model_id, "dataset", digest)
            for name, estimate in report["metrics"][report["run"]].items()
            for key, suffix in (("value", ""), ("low", "_low"), ("high", "_high"))
        ],
    )


def _attach_documents(
    client: MlflowClient, workspace: Workspace, run_id: str, report_digest: str, report_dir: Path, texts: Mapping[str, str]
) -> None:
    """Report, ranks, card and verdict, in a folder of the run that is named after the report."""
    staged = workspace.tracking / ".documents"
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(mode=0o700)
    for name in ("report.json", "report.html", "ranks.parquet"):
        if (report_dir / name).is_file():
            shutil.copyfile(report_dir / name, staged / name)
    for name, text in texts.items():
        write_text(staged / name, text)
    client.log_artifacts(run_id, str(staged), artifact_path=DOCUMENTS.format(report=report_digest[:16]))
    shutil.rmtree(staged)


def _ensure_registered_model(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, description="Chest X-rays that fit an ECG and laboratory panel. Research use only.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _shortened(card: str) -> str:
    """The card as a description, which is limited in length; the whole card is among the version's documents."""
    notice = "\n\n… the rest is in the version's documents (model_card.md)."
    return card if len(card) <= _MAX_DESCRIPTION else card[: _MAX_DESCRIPTION - len(notice)] + notice

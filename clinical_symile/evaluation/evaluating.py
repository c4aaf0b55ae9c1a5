"""Stage ``evaluate``: a run beside its baselines, chance and, on a simulated hospital, the oracle.

The query is an admission's ECG and laboratory panel, the candidates are X-rays. Each model encodes each admission of the
split once; the candidate sets and the whole bank are then ranked from the same scores.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from clinical_symile.config import ExperimentConfig
from clinical_symile.dataset import ArrayStore
from clinical_symile.errors import ConfigError
from clinical_symile.evaluation.bootstrap import PatientBootstrap
from clinical_symile.evaluation.contenders import Contender, encode
from clinical_symile.evaluation.findings import Finding, build_report
from clinical_symile.evaluation.ranks_table import RANKS, write_ranks
from clinical_symile.evaluation.report import HTML, draw_figures, render_report
from clinical_symile.evaluation.schema import REPORT
from clinical_symile.evaluation.task import RetrievalTask
from clinical_symile.evaluation.truth import Oracle, find_oracle, oracle_digest, oracle_rows
from clinical_symile.stage import RunOptions, Stage, Workspace, require_complete, write_json, write_text

logger = logging.getLogger(__name__)

_SECONDS_PER_ADMISSION = 0.15
"""The paper's encoders on one CPU core; only for the estimate of ``--dry-run``."""


def evaluate(
    config: ExperimentConfig,
    workspace: Workspace,
    options: RunOptions,
    run: str,
    baselines: Sequence[str] = (),
    oracle: Oracle | None = None,
) -> dict[str, Any]:
    """Measures a run and writes ``reports/<run>/``: ``report.json``, ``report.html`` and ``ranks.parquet``.

    Args:
        config: section ``evaluate`` says which split, which k, and how intervals are computed.
        workspace: holds ``dataset/`` and ``runs/<run>/``.
        options: how to run.
        run: the run that the report is about.
        baselines: runs to compare it with, on the same queries and resamples.
        oracle: default: that of the simulated hospital which the dataset came from, if it came from one.

    Returns:
        The manifest; empty after ``--dry-run``.

    Raises:
        IncompleteStage: the dataset or a run is not finished.
        ConfigError: a run is compared with itself.
        InputError: the split cannot be evaluated, or a model gives NaN.
    """
    if run in baselines or len(set(baselines)) != len(baselines):
        raise ConfigError(f"baselines {', '.join(baselines)}: name each run once, and not '{run}' itself")
    hospital = require_complete(workspace.dataset, "prepare").get("hospital") or {}
    store = ArrayStore.open(workspace.dataset)
    task = RetrievalTask.of(store, config.evaluate.split)
    contenders = [Contender.of(workspace, name) for name in (run, *baselines)]
    oracle = oracle or find_oracle(hospital, workspace.root)
    inputs = {"dataset": store.digest, **{f"model of {contender.name}": contender.digest for contender in contenders}}
    if oracle is not None:
        inputs["oracle"] = oracle_digest(oracle, task)
    stage = Stage(
        "evaluate",
        workspace.report(run),
        inputs=inputs,
        config={"evaluate": config.evaluate.model_dump(mode="json"), "run": run, "baselines": list(baselines)},
        options=options,
    )
    if options.dry_run:
        minutes = len(task.rows) * len(contenders) * _SECONDS_PER_ADMISSION / 60
        runs = ", ".join(contender.name for contender in contenders)
        stage.announce({"runs": runs, "queries": len(task), "X-rays": len(task.rows), "minutes, at most": round(minutes, 1)})
        return {}
    if stage.should_skip():
        return stage.manifest()
    with stage.writing() as writing:
        settings = config.evaluate
        bootstrap = PatientBootstrap(task.query_subjects, settings.bootstrap, np.random.default_rng(settings.seed))
        findings: dict[str, Finding] = {}
        for contender in contenders:
            partial = writing.output / ".partial" / f"{contender.digest}.npy"
            embeddings = encode(contender, store, task.rows, settings.batch_size, partial, options)
            ranks = task.rank(contender.score_rows(task, embeddings))
            findings[contender.name] = Finding.of(*ranks, settings.recall_at, bootstrap)
        truth = Finding.of(*task.rank(oracle_rows(oracle, task)), settings.recall_at, bootstrap) if oracle is not None else None
        report = build_report(settings, task, store, hospital, contenders, findings, truth)
        figures = draw_figures(report, findings, truth, bootstrap, [workspace.run(name) for name in report.metrics])
        write_json(writing.output / REPORT, report.model_dump(mode="json"))
        write_ranks(writing.output / RANKS, report, task, findings, truth)
        write_text(writing.output / HTML, render_report(report, figures))
        # The page names the code's commit and is drawn by matplotlib; the figures' numbers are in the other two files.
        writing.volatile.add(HTML)
        writing.counts = {"queries": report.n_queries, "subjects": report.n_subjects, "gallery": report.gallery_size}
        writing.facts = {"access": report.access, "run": run, "headline": report.metrics[run][report.headline].model_dump()}
    own, chance = report.metrics[run][report.headline], report.chance[report.headline]
    logger.info("evaluate: %s %.3f (%.3f to %.3f), chance %.3f", report.headline, own.value, own.low, own.high, chance)
    return stage.manifest()

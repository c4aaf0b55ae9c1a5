"""From ranks to a report: values, intervals, paired differences, and what a reader of them must know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clinical_symile.config import EvaluateConfig
from clinical_symile.dataset import ArrayStore
from clinical_symile.evaluation.bootstrap import PatientBootstrap, percentile_interval
from clinical_symile.evaluation.contenders import Contender
from clinical_symile.evaluation.metrics import Column, chance_values, metric_columns
from clinical_symile.evaluation.ranks import Ranks, Values
from clinical_symile.evaluation.schema import BootstrapFacts, Configuration, DataFacts, Estimate, Report, SplitSize
from clinical_symile.evaluation.task import RetrievalTask
from clinical_symile.types import SPLITS

_DECIMALS = 6
"""Of every number in a report: the last bits of a sum depend on how many threads the machine has."""


@dataclass(frozen=True)
class Finding:
    """The ranks of one scoring rule on one task, and its metrics for each query and each resample."""

    sets: Ranks
    bank: Ranks
    columns: Mapping[str, Column]
    replicates: Mapping[str, Values]

    @classmethod
    def of(cls, sets: Ranks, bank: Ranks, recall_at: Sequence[int], bootstrap: PatientBootstrap) -> Finding:
        """Computes and resamples the metrics."""
        columns = metric_columns(sets, bank, recall_at)
        return cls(sets, bank, columns, bootstrap.replicates(columns))

    def estimates(self, confidence: float, minus: Finding | None = None) -> dict[str, Estimate]:
        """Values with intervals: of this rule, or of its paired difference to another on the same resamples."""
        estimates = {}
        for name, column in self.columns.items():
            value, replicates = column.summary(), self.replicates[name]
            if minus is not None:
                value, replicates = value - minus.columns[name].summary(), replicates - minus.replicates[name]
            low, high = percentile_interval(replicates, confidence)
            estimates[name] = Estimate(value=_rounded(value), low=_rounded(low), high=_rounded(high), n=len(column.values))
        return estimates


def build_report(
    config: EvaluateConfig,
    task: RetrievalTask,
    store: ArrayStore,
    hospital: Mapping[str, Any],
    contenders: Sequence[Contender],
    findings: Mapping[str, Finding],
    oracle: Finding | None,
) -> Report:
    """Puts everything that was found into one report.

    Args:
        config: what was asked for.
        task: the queries and candidates.
        store: the dataset.
        hospital: the facts of the dataset's manifest about the hospital.
        contenders: the run, then its baselines.
        findings: run -> finding.
        oracle: the oracle's finding, if there is one.
    """
    run, *baselines = (contender.name for contender in contenders)
    own = findings[run]
    chance = chance_values(own.sets, own.bank, config.recall_at)
    return Report(
        run=run,
        split=task.split,
        n_queries=len(task),
        n_subjects=len(set(task.query_subjects.tolist())),
        gallery_size=len(task.rows),
        candidates=task.candidates.shape[1],
        access=store.access,
        metrics={name: finding.estimates(config.confidence) for name, finding in findings.items()},
        chance={name: _rounded(value) for name, value in chance.items()},
        oracle=oracle.estimates(config.confidence) if oracle is not None else None,
        paired_differences={name: own.estimates(config.confidence, minus=findings[name]) for name in baselines},
        data=DataFacts(
            dataset_digest=store.digest,
            hospital_kind=str(hospital.get("kind", "unknown")),
            simulated=bool(hospital.get("simulated_truth")),
            splits=_split_sizes(store),
            candidate_sets_with_same_patient=task.sets_with_same_patient,
        ),
        models={contender.name: contender.digest for contender in contenders},
        losses={contender.name: contender.loss for contender in contenders},
        trained_on={contender.name: contender.trained_on for contender in contenders},
        bootstrap=BootstrapFacts(resamples=config.bootstrap, confidence=config.confidence, seed=config.seed),
        configuration=Configuration(
            evaluate=config.model_dump(mode="json"), runs={contender.name: contender.config for contender in contenders}
        ),
        notes=_notes(task, store, hospital, contenders, _above(own, oracle, config.confidence)),
    )


def _above(own: Finding, oracle: Finding | None, confidence: float) -> bool | None:
    """Whether the run beats the oracle on candidate sets by its whole interval; None without an oracle."""
    if oracle is None:
        return None
    headline = next(iter(own.columns))
    return own.estimates(confidence, minus=oracle)[headline].low > 0


def _notes(
    task: RetrievalTask,
    store: ArrayStore,
    hospital: Mapping[str, Any],
    contenders: Sequence[Contender],
    above_oracle: bool | None,
) -> list[str]:
    notes = []
    if above_oracle:
        notes.append(
            f"'{contenders[0].name}' is above the oracle by its whole interval. Save for luck, no model can be that reads only "
            "what the law ties together: look for something else that an admission's files share."
        )
    if hospital.get("simulated_truth"):
        notes.append("The data are simulated. These figures say nothing about patients.")
        if above_oracle is None:
            notes.append("The simulated hospital was no longer there, so the oracle is missing.")
    elsewhere = [contender.name for contender in contenders if contender.trained_on != store.digest]
    if elsewhere:
        notes.append(
            f"Not trained on this data set: {', '.join(elsewhere)}. Whether patients of this split were in the training data "
            "could not be checked."
        )
    if task.sets_with_same_patient:
        notes.append(
            f"In {task.sets_with_same_patient} of {len(task)} candidate sets a negative is another X-ray of the query's own "
            "patient; these sets were evaluated as they are."
        )
    if task.split == "val":
        notes.append("This is the validation split, on which the epoch was chosen: the figures are optimistic.")
    return notes


def _split_sizes(store: ArrayStore) -> dict[str, SplitSize]:
    groups = store.table.groupby("split")["subject_id"]
    return {
        split: SplitSize(admissions=int(groups.size().get(split, 0)), subjects=int(groups.nunique().get(split, 0)))
        for split in SPLITS
    }


def _rounded(value: float) -> float:
    # Adding zero turns -0.0 into 0.0.
    return round(float(value), _DECIMALS) + 0.0

"""``report.json``: everything an evaluation found, typed.

====================  ============================================================================================
key                   content
====================  ============================================================================================
schema_version        1
run                   the run this report is about
split                 ``val`` or ``test``
n_queries             queries, each the ECG and the labs of one admission
n_subjects            their patients
gallery_size          X-rays of the bank (all of the split; a patient's other admissions are left out per query)
candidates            size of a candidate set
access                class of the data: ``synthetic``, ``open``, ``credentialed``
metrics               run -> metric -> {value, low, high, n}; the run and its baselines
chance                metric -> value, in closed form
oracle                metric -> {value, low, high, n}; null unless the hospital is a simulated one
paired_differences    baseline -> metric -> {value, low, high, n} of run minus baseline on the same resamples
data                  dataset digest, hospital, admissions and patients of each split, sets with the query's patient twice
models                run -> digest of the model (SHA-256 of its SHA256SUMS)
losses                run -> ``symile`` or ``clip``
trained_on            run -> digest of the dataset it was trained on; null if it was imported
bootstrap             method, resamples, confidence, seed
configuration         ``evaluate``: section of the configuration; ``runs``: run -> configuration it was trained with
notes                 sentences that a reader of the numbers must know
====================  ============================================================================================

Metrics are ``accuracy_{c}way`` (``accuracy_10way`` for the paper's ten candidates), ``recall_at_{k}``, ``mrr`` and
``median_rank``; ``metrics.py`` defines them. All but ``median_rank`` are better when larger. Numbers have six decimals.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from clinical_symile.errors import IncompleteStage, InputError

REPORT = "report.json"


class Typed(BaseModel):
    """Base of the report's parts: nothing unknown, nothing changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Estimate(Typed):
    """A value with its interval and the number of queries behind it."""

    value: float
    low: float
    high: float
    n: int


class SplitSize(Typed):
    """How large a split is."""

    admissions: int
    subjects: int


class DataFacts(Typed):
    """The data that were evaluated on."""

    dataset_digest: str
    hospital_kind: str
    simulated: bool
    splits: dict[str, SplitSize]
    candidate_sets_with_same_patient: int


class BootstrapFacts(Typed):
    """How the intervals were computed."""

    method: Literal["percentile, patients resampled"] = "percentile, patients resampled"
    resamples: int
    confidence: float
    seed: int


class Configuration(Typed):
    """What was configured, as plain data."""

    evaluate: dict[str, Any]
    runs: dict[str, dict[str, Any]]


class Report(Typed):
    """The content of ``report.json``; the module's docstring describes the keys."""

    schema_version: Literal[1] = 1
    run: str
    split: str
    n_queries: int
    n_subjects: int
    gallery_size: int
    candidates: int
    access: str
    metrics: dict[str, dict[str, Estimate]]
    chance: dict[str, float]
    oracle: dict[str, Estimate] | None
    paired_differences: dict[str, dict[str, Estimate]]
    data: DataFacts
    models: dict[str, str]
    losses: dict[str, str]
    trained_on: dict[str, str | None]
    bootstrap: BootstrapFacts
    configuration: Configuration
    notes: list[str]

    @property
    def headline(self) -> str:
        """The metric that the paper reports: the accuracy on candidate sets."""
        return f"accuracy_{self.candidates}way"

    @property
    def baselines(self) -> list[str]:
        """The runs that the report's run is compared with."""
        return [name for name in self.metrics if name != self.run]

    def flat(self) -> dict[str, float]:
        """The run's own numbers under names that MLflow accepts: ``mrr``, ``mrr_low``, ``mrr_high``, ..."""
        numbers: dict[str, float] = {}
        for name, estimate in self.metrics[self.run].items():
            numbers |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
        return numbers


def read_report(file: Path) -> Report:
    """Reads ``report.json``.

    Raises:
        IncompleteStage: there is none.
        InputError: the file is no report, or one of another version.
    """
    try:
        return Report.model_validate_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise IncompleteStage(f"{file}: is missing; run 'clinical-symile evaluate' for this run first") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read ({error})") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "content"
        raise InputError(f"{file}: is not a report of this version ({where}: {first['msg']}); evaluate the run again") from None

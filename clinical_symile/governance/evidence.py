"""What the gate of registration looks at: a run's report, its model's folder, its lineage and the splits of its dataset."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from clinical_symile.config import AccessClass
from clinical_symile.errors import IncompleteStage, InputError
from clinical_symile.governance.documents import IntendedUse, load_intended_use
from clinical_symile.stage import Workspace, digest_file, require_complete

SUMS = "SHA256SUMS"


class _Part(BaseModel):
    # The report belongs to the room `evaluation`; here only what a gate decides on is typed, and the rest is passed over.
    model_config = ConfigDict(extra="ignore", frozen=True)


class Estimate(_Part):
    """A value with its interval."""

    value: float
    low: float
    high: float
    n: int


class DataFacts(_Part):
    """The data that were evaluated on."""

    dataset_digest: str
    hospital_kind: str
    simulated: bool


class BootstrapFacts(_Part):
    """How the intervals were computed."""

    method: str
    resamples: int
    confidence: float
    seed: int


class Configuration(_Part):
    """How the runs of the report were trained."""

    runs: dict[str, dict[str, Any]]


class ReportFacts(_Part):
    """What the gate reads in ``report.json`` (``clinical_symile/evaluation/schema.py`` describes all of it)."""

    schema_version: Literal[1]
    run: str
    split: str
    n_queries: int
    n_subjects: int
    gallery_size: int
    candidates: int
    access: AccessClass
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
    notes: tuple[str, ...]

    @property
    def loss(self) -> str:
        """The loss that the report's run was trained with."""
        return self.losses[self.run]

    def headline(self, metric: str) -> str:
        """The name of the metric that the policy decides on."""
        return metric.replace("{candidates}", str(self.candidates))


@dataclass(frozen=True)
class Evidence:
    """Everything the checks of registration look at; gathered once, so that all judge the same state.

    Attributes:
        run: the run's name.
        report: what was measured; ``report_text`` is the file's text and ``report_digest`` its SHA-256.
        model_dir: the folder of the model; ``model_digest`` is the SHA-256 of its list of checksums.
        metadata: the model's ``model.json``.
        code: version, commit and state of the code that trained.
        subjects: split -> the subjects in it, from the dataset's own table.
        dataset_digest: of the dataset in the workspace.
        intended_use: what the software is for.
        installed: package -> version, of this environment.
    """

    run: str
    report: ReportFacts
    report_text: str
    report_digest: str
    model_dir: Path
    model_digest: str
    metadata: Mapping[str, Any]
    code: Mapping[str, Any]
    subjects: Mapping[str, frozenset[Any]]
    dataset_digest: str
    intended_use: IntendedUse
    installed: Mapping[str, str]

    @classmethod
    def gather(cls, workspace: Workspace, run: str) -> Evidence:
        """Reads the evidence of one run.

        Raises:
            IncompleteStage: the run was not trained or not evaluated.
            InputError: the report or the model's folder cannot be read.
        """
        trained = require_complete(workspace.run(run), "train")
        require_complete(workspace.report(run), "evaluate")
        prepared = require_complete(workspace.dataset, "prepare")
        report_file, model_dir = workspace.report(run) / "report.json", workspace.run(run) / "model"
        report_text = _read(report_file)
        return cls(
            run=run,
            report=_parse_report(report_text, report_file),
            report_text=report_text,
            report_digest=digest_file(report_file),
            model_dir=model_dir,
            model_digest=model_digest(model_dir),
            metadata=json.loads(_read(model_dir / "model.json")),
            code=trained["code"],
            subjects=_subjects(workspace.dataset / "manifest.parquet"),
            dataset_digest=str(prepared["digest"]),
            intended_use=load_intended_use(),
            installed=installed_packages(),
        )


def model_digest(model_dir: Path) -> str:
    """What identifies a saved model: the SHA-256 of its list of checksums.

    Raises:
        InputError: the folder holds no saved model.
    """
    if not (model_dir / SUMS).is_file():
        raise InputError(f"{model_dir}: holds no saved model ({SUMS} is missing); train the run again")
    return digest_file(model_dir / SUMS)


def installed_packages() -> dict[str, str]:
    """Package -> version of this environment, names in lower case."""
    return {dist.metadata["Name"].lower(): dist.version for dist in distributions() if dist.metadata["Name"]}


def _parse_report(text: str, file: Path) -> ReportFacts:
    try:
        return ReportFacts.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "content"
        raise InputError(f"{file}: {where}: {first['msg']}; run 'clinical-symile evaluate --overwrite' for this run") from None


def _subjects(table: Path) -> dict[str, frozenset[Any]]:
    import pyarrow.parquet as pq

    columns = pq.read_table(table, columns=["split", "subject_id"]).to_pydict()
    splits: dict[str, set[Any]] = {}
    for split, subject in zip(columns["split"], columns["subject_id"], strict=True):
        splits.setdefault(str(split), set()).add(subject)
    return {split: frozenset(subjects) for split, subjects in splits.items()}


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise IncompleteStage(f"{file}: is missing or not readable ({type(error).__name__}); run its stage again") from None

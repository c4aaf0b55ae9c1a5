"""The gate of registration. Its power is tested by mutation: for each check, evidence that breaks it and nothing else."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clinical_symile.config import TrainConfig
from clinical_symile.errors import GateRefused, IncompleteStage, InputError
from clinical_symile.governance import Evidence, Policy, approve_registration, check_registration, load_policy
from clinical_symile.governance.evidence import ReportFacts, model_digest
from clinical_symile.stage import RunOptions, Stage, Workspace, write_json

Edit = Callable[[dict[str, Any]], None]
WithReport = Callable[[Edit], Evidence]


@pytest.fixture
def policy() -> Policy:
    """The real policy, with a deny-list that was reviewed today (its age is a check of its own)."""
    policy = load_policy()
    fresh = policy.dependencies.model_copy(update={"as_of": dt.datetime.now(dt.UTC).date()})
    return policy.model_copy(update={"dependencies": fresh})


def failed(evidence: Evidence, policy: Policy) -> list[str]:
    return [result.id for result in check_registration(evidence, policy).verdict.results if not result.passed]


def test_good_evidence_passes_every_check(evidence: Evidence, policy: Policy) -> None:
    approval = check_registration(evidence, policy)
    assert [result.id for result in approval.verdict.results if not result.passed] == []
    assert approval.verdict.require() is approval.verdict
    assert approval.verdict.subject == {
        "model": evidence.model_digest,
        "report": evidence.report_digest,
        "policy": policy.digest,
        "card": approval.card.digest,
    }


def test_a_model_at_chance_level_is_refused(with_report: WithReport, policy: Policy) -> None:
    """The point estimate is above chance and the interval is not: that is luck, and the message says what was found."""

    def at_chance(report: dict[str, Any]) -> None:
        report["metrics"]["symile"]["accuracy_10way"] = {"value": 0.14, "low": 0.09, "high": 0.2, "n": 120}

    verdict = check_registration(with_report(at_chance), policy).verdict
    with pytest.raises(GateRefused, match=r"E02\.chance: accuracy_10way 0\.140 \[0\.090, 0\.200\], chance 0\.100") as refusal:
        verdict.require()
    assert "train longer" in str(refusal.value)
    assert refusal.value.exit_code == 5


def _set(*path: str, to: Any) -> Edit:
    def edit(report: dict[str, Any]) -> None:
        for key in path[:-1]:
            report = report[key]
        report[path[-1]] = to

    return edit


REPORT_DEFECTS: list[tuple[str, Edit]] = [
    ("D11", _set("notes", to=["see admission (hadm_id 29123456)"])),
    ("D11", _set("configuration", "evaluate", to={"subject_id": 10123456})),
    ("D11", _set("notes", to=["files/p10/p10123456/s51234567"])),
    ("M03", _set("trained_on", "symile", to=None)),
    ("M03", _set("configuration", "runs", "symile", to={"train": {}})),
    ("E00", _set("models", "symile", to="f" * 64)),
    ("E00", _set("data", "dataset_digest", to="f" * 64)),
    ("E01", _set("bootstrap", "resamples", to=1999)),
    ("E01", _set("bootstrap", "confidence", to=0.9)),
    ("E01", _set("bootstrap", "method", to="percentile, admissions resampled")),
    ("E01", _set("n_subjects", to=29)),
    ("E01", _set("split", to="val")),
    ("E01", _set("metrics", "symile", "accuracy_10way", to={"value": 1.0, "low": 1.0, "high": 1.0, "n": 120})),
    ("E02.chance", _set("metrics", "symile", "accuracy_10way", to={"value": 0.2, "low": 0.1, "high": 0.3, "n": 120})),
    ("E02.comparison", _set("paired_differences", to={})),
    ("E02.comparison", _set("losses", "clip", to="symile")),
]


@pytest.mark.parametrize(("check", "defect"), REPORT_DEFECTS)
def test_each_defect_of_a_report_is_caught_by_its_own_check(
    with_report: WithReport, policy: Policy, check: str, defect: Edit
) -> None:
    # A card that cannot name the seed is incomplete too; nothing else may follow from another defect.
    assert [name for name in failed(with_report(defect), policy) if name != "C01"] == [check]


def _pickle_beside_the_weights(evidence: Evidence) -> Evidence:
    (evidence.model_dir / "optimizer.pt").write_bytes(b"\x80\x04")
    _relist(evidence.model_dir)
    digest = model_digest(evidence.model_dir)
    models = {**evidence.report.models, "symile": digest}
    return replace(evidence, model_digest=digest, report=evidence.report.model_copy(update={"models": models}))


def _relist(folder: Path) -> None:
    import hashlib

    files = sorted(path for path in folder.iterdir() if path.name != "SHA256SUMS")
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (folder / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


def _one_flipped_bit(evidence: Evidence) -> Evidence:
    weights = evidence.model_dir / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[3] ^= 1
    weights.write_bytes(content)
    return evidence


def _unlisted_file(evidence: Evidence) -> Evidence:
    (evidence.model_dir / "extra.json").write_text("{}", encoding="utf-8")
    return evidence


def _shared_subject(evidence: Evidence) -> Evidence:
    return replace(evidence, subjects={**evidence.subjects, "test": evidence.subjects["test"] | {7}})


def _denied_package(evidence: Evidence) -> Evidence:
    return replace(evidence, installed={**evidence.installed, "lightning": "2.6.3"})


def _no_commit(evidence: Evidence) -> Evidence:
    return replace(evidence, code={"version": "0.1.0", "commit": None, "modified": None})


def _clinical_use(evidence: Evidence) -> Evidence:
    use = evidence.intended_use.model_copy(update={"statement": "Finds the diagnosis."})
    return replace(evidence, intended_use=use)


def _diagnosis_in_scope(evidence: Evidence) -> Evidence:
    scope = {name: why for name, why in evidence.intended_use.out_of_scope.items() if name != "diagnosis"}
    return replace(evidence, intended_use=evidence.intended_use.model_copy(update={"out_of_scope": scope}))


def _no_architecture(evidence: Evidence) -> Evidence:
    return replace(evidence, metadata={"parameters": 5})


@pytest.mark.parametrize(
    ("check", "defect"),
    [
        ("D03", _shared_subject),
        ("M01", _pickle_beside_the_weights),
        ("M02", _one_flipped_bit),
        ("M02", _unlisted_file),
        ("M03.commit", _no_commit),
        ("M06", _denied_package),
        ("C01", _no_architecture),
        ("C02", _clinical_use),
        ("C02", _diagnosis_in_scope),
    ],
)
def test_each_check_catches_its_own_defect(
    evidence: Evidence, policy: Policy, check: str, defect: Callable[[Evidence], Evidence]
) -> None:
    assert failed(defect(evidence), policy) == [check]


def test_a_stale_deny_list_is_a_warning(evidence: Evidence, policy: Policy) -> None:
    old = policy.dependencies.model_copy(update={"as_of": dt.date(2020, 1, 1)})
    verdict = check_registration(evidence, policy.model_copy(update={"dependencies": old})).verdict
    assert [result.id for result in verdict.warnings] == ["M06.age"]
    assert verdict.passed


def test_a_refusal_lists_every_failure_with_its_remedy(with_report: WithReport, policy: Policy) -> None:
    def broken(report: dict[str, Any]) -> None:
        report["paired_differences"] = {}
        report["bootstrap"]["resamples"] = 100

    with pytest.raises(GateRefused) as refusal:
        check_registration(with_report(broken), policy).verdict.require()
    text = str(refusal.value)
    assert text.count("->") == 2
    assert "--set evaluate.bootstrap=2000" in text
    assert "--baseline" in text


def test_numbers_that_only_look_like_identifiers_pass(with_report: WithReport, policy: Policy) -> None:
    """A model has 12,345,678 parameters, a seed is 20160304, and digests hold every digit: none of them is a patient."""

    def harmless(report: dict[str, Any]) -> None:
        report["bootstrap"]["seed"] = 20160304
        report["configuration"]["evaluate"] = {"samples": 10123456, "digest": "10123456" * 8}

    assert failed(with_report(harmless), policy) == []


def test_the_gate_reads_what_evaluation_writes(report: dict[str, Any]) -> None:
    """The two rooms do not import each other, so a test holds them together."""
    schema = pytest.importorskip("clinical_symile.evaluation.schema")
    written = schema.Report.model_validate(report).model_dump(mode="json")
    assert ReportFacts.model_validate(written) == ReportFacts.model_validate(report)


@pytest.fixture
def workspace(tmp_path: Path, report: dict[str, Any], model_dir: Path) -> Workspace:
    """A workspace in which the run was prepared, trained and evaluated."""
    workspace = Workspace(tmp_path / "ws")
    options = RunOptions(quiet=True)
    with Stage("prepare", workspace.dataset, inputs={}, config={}, options=options).writing() as writing:
        table = pa.table({"subject_id": [10, 11, 12], "split": ["train", "val", "test"]})
        pq.write_table(table, writing.output / "manifest.parquet")
        writing.facts["access"] = "synthetic"
    digest = json.loads((workspace.dataset / "manifest.json").read_text(encoding="utf-8"))["digest"]
    train = Stage("train", workspace.run("symile"), inputs={"dataset": digest}, config=TrainConfig(), options=options)
    with train.writing() as writing:
        model_dir.rename(writing.output / "model")
    report["data"]["dataset_digest"] = report["trained_on"]["symile"] = digest
    with Stage("evaluate", workspace.report("symile"), inputs={}, config={}, options=options).writing() as writing:
        write_json(writing.output / "report.json", report)
    return workspace


def test_evidence_is_gathered_from_a_workspace(workspace: Workspace, policy: Policy) -> None:
    approval = approve_registration(workspace, "symile", policy)
    assert approval.verdict.subject["model"] == model_digest(workspace.run("symile") / "model")
    assert "accuracy_10way" in approval.card.markdown


def test_missing_stages_are_named(workspace: Workspace) -> None:
    with pytest.raises(IncompleteStage, match="clinical-symile train"):
        approve_registration(workspace, "other")
    (workspace.report("symile") / "manifest.json").unlink()
    with pytest.raises(IncompleteStage, match="clinical-symile evaluate"):
        approve_registration(workspace, "symile")


def test_a_report_of_another_version_is_an_input_error(workspace: Workspace) -> None:
    file = workspace.report("symile") / "report.json"
    size = file.stat().st_size
    file.write_text(file.read_text(encoding="utf-8").replace('"schema_version": 1', '"schema_version": 9'), encoding="utf-8")
    assert file.stat().st_size == size
    with pytest.raises(InputError, match="schema_version"):
        approve_registration(workspace, "symile")

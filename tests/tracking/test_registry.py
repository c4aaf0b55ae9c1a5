"""Versions: whole, bound to what was judged, the same when registered twice, and served as they were evaluated."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clinical_symile.config import ExperimentConfig
from clinical_symile.errors import ConfigError, GateRefused, IncompleteStage, InputError
from clinical_symile.models import embed, load_model, score
from clinical_symile.stage import Workspace, write_json
from clinical_symile.tracking import (
    MlflowTracker,
    ModelVersion,
    champion_model_dir,
    compare,
    document,
    find_champion,
    find_version,
    list_versions,
    model_dir,
    open_store,
    promote,
    read_report,
    register,
)
from clinical_symile.tracking.package import MODEL_IN_PACKAGE
from clinical_symile.tracking.store import experiment_id

pytestmark = pytest.mark.usefixtures("store")

CARD = "# Model card\n\nResearch use only."
MakeRun = Callable[..., Path]
Judge = Callable[..., dict[str, Any]]


@pytest.fixture
def add(workspace: Workspace, config: ExperimentConfig, make_run: MakeRun, verdict: Judge) -> Callable[..., ModelVersion]:
    """Trains, evaluates and registers a run (as far as this room sees)."""

    def added(run: str = "symile", **facts: Any) -> ModelVersion:
        make_run(run, **facts)
        return register(workspace, config, run, card=CARD, verdict=verdict(run, CARD))

    return added


def test_a_version_has_card_lineage_metrics_and_documents(
    workspace: Workspace, config: ExperimentConfig, make_run: MakeRun, verdict: Judge
) -> None:
    make_run()
    tracker = MlflowTracker(workspace, config)
    run_id = tracker.start("symile", {}, {}, None)
    tracker.finish("FINISHED")
    write_json(workspace.run("symile") / "run.json", {"run_id": run_id})
    version = register(
        workspace, config, "symile", card=CARD, verdict=verdict("symile", CARD), documents={"model_card.json": "{}"}
    )

    assert version.label == "symile-test/1"
    assert version.run_id == run_id, "the evaluation belongs to the run that trained the model"
    assert version.card == CARD
    assert version.aliases == ()
    assert version.admitted
    assert version.tags["headline"] == "accuracy_10way 0.420 [0.340, 0.500]"
    assert version.tags["loss"] == "symile"
    assert version.tags["dataset_digest"] == read_report(workspace, config, version)["data"]["dataset_digest"]
    assert {"git_commit", "config_digest", "model_digest", "report_digest", "access", "code_version"} <= set(version.tags)
    metrics = open_store(workspace, config).get_run(run_id).data.metrics
    assert metrics["test/accuracy_10way"] == 0.42
    assert metrics["test/accuracy_10way_low"] == pytest.approx(0.34)
    assert document(workspace, config, version, "model_card.md").read_text(encoding="utf-8") == CARD
    assert json.loads(document(workspace, config, version, "verdict.json").read_text(encoding="utf-8"))["passed"] is True
    assert document(workspace, config, version, "report.html").is_file()
    with pytest.raises(InputError, match="no document"):
        document(workspace, config, version, "diary.txt")


def test_a_version_holds_no_pickle_and_leaves_nothing_in_the_temporary_folder(
    workspace: Workspace, add: Callable[..., ModelVersion], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package is made in the workspace: weights of credentialed data do not belong into /tmp."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    seen: list[str] = []
    whole = tempfile.mkdtemp

    def spy(*arguments: Any, **named: Any) -> str:
        seen.append(whole(*arguments, **named))
        return seen[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", spy)
    version = add()
    assert seen, "MLflow is known to use temporary folders; if it no longer does, this test needs another witness"
    assert not [path for path in seen if path.startswith(str(scratch))]
    assert tempfile.tempdir == str(scratch)
    package = Path(version.source.removeprefix("file://"))
    files = sorted(path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file())
    assert "artifacts/model/model.safetensors" in files
    assert {Path(name).suffix for name in files} <= {"", ".safetensors", ".json", ".py", ".yaml", ".txt"}
    leftovers = {path.name for path in workspace.tracking.iterdir()}
    assert leftovers == {"artifacts", "mlflow.db", "registry.lock"}
    assert not (tmp_path / "mlflow.db").exists()


def test_the_served_model_scores_as_the_model_does(
    workspace: Workspace, config: ExperimentConfig, add: Callable[..., ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    generator = np.random.default_rng(0)
    batch = {
        "ecg": generator.uniform(-1, 1, (3, 1, 5000, 12)).astype(np.float32),
        "labs": generator.uniform(0, 1, (3, 100)).astype(np.float32),
        "cxr": generator.normal(size=(4, 3, 320, 320)).astype(np.float32),
    }
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    for run in ("symile", "clip"):
        version = add(run, loss=run)
        served = mlflow.pyfunc.load_model(version.source)
        assert served.metadata.metadata["intended_use"] == "research use only"
        scores = served.predict(batch)
        model = load_model(workspace.run(run) / "model")
        embedded = embed(model, [{name: torch.from_numpy(array) for name, array in batch.items()}])
        direct = score(run, embedded["cxr"], [embedded["ecg"], embedded["labs"]]).numpy()
        assert scores.shape == (3, 4)
        np.testing.assert_array_equal(scores, direct)
        with pytest.raises(mlflow.exceptions.MlflowException):
            served.predict({**batch, "ecg": batch["ecg"][..., :11]})


def test_the_same_model_with_the_same_report_is_one_version(
    workspace: Workspace, config: ExperimentConfig, add: Callable[..., ModelVersion], make_run: MakeRun, verdict: Judge
) -> None:
    first = add()
    again = register(workspace, config, "symile", card=CARD, verdict=verdict("symile", CARD))
    assert again == first
    # Evaluated anew with another result: another version, of the same stored weights.
    make_run(accuracy=0.5)
    second = register(workspace, config, "symile", card=CARD, verdict=verdict("symile", CARD))
    assert (second.version, second.source, second.model_digest) == (2, first.source, first.model_digest)
    assert [version.version for version in list_versions(workspace, config)] == [2, 1]


def test_an_interrupted_registration_is_finished_by_the_next_one(
    workspace: Workspace, config: ExperimentConfig, make_run: MakeRun, verdict: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted at each step in turn: no version is seen before it is whole, and the weights are stored once."""
    from mlflow import MlflowClient

    make_run()
    for step in ("log_model_artifacts", "finalize_logged_model", "log_batch", "log_artifacts", "create_model_version"):

        def killed(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, step, killed)
            with pytest.raises(KeyboardInterrupt):
                register(workspace, config, "symile", card=CARD, verdict=verdict("symile", CARD))
        assert list_versions(workspace, config) == [], step
    version = register(workspace, config, "symile", card=CARD, verdict=verdict("symile", CARD))
    assert version.version == 1
    assert load_model(model_dir(workspace, config, version))
    client = open_store(workspace, config)
    experiment = client.get_experiment_by_name(config.registry.name).experiment_id
    stored = [model for model in client.search_logged_models([experiment]) if str(model.status) == "READY"]
    assert len(stored) == 1


def test_what_was_not_judged_is_not_registered(
    workspace: Workspace, config: ExperimentConfig, make_run: MakeRun, verdict: Judge
) -> None:
    make_run()
    for wrong in ({"passed": False}, {"action": "serve"}, {"passed": "yes"}):
        with pytest.raises(GateRefused, match="needs a verdict"):
            register(workspace, config, "symile", card=CARD, verdict=verdict("symile", CARD, **wrong))
    with pytest.raises(GateRefused, match="another card"):
        register(workspace, config, "symile", card=CARD + " It is safe.", verdict=verdict("symile", CARD))
    judged = verdict("symile", CARD)
    make_run(seed=1)
    with pytest.raises(GateRefused, match="another model and another report"):
        register(workspace, config, "symile", card=CARD, verdict=judged)
    assert list_versions(workspace, config) == []


def test_a_run_must_be_trained_and_evaluated(workspace: Workspace, config: ExperimentConfig, make_run: MakeRun) -> None:
    with pytest.raises(IncompleteStage, match="clinical-symile train"):
        register(workspace, config, "symile", card=CARD, verdict={})
    make_run()
    (workspace.report("symile") / "manifest.json").unlink()
    with pytest.raises(IncompleteStage, match="clinical-symile evaluate"):
        register(workspace, config, "symile", card=CARD, verdict={})


def test_tampered_weights_are_refused(workspace: Workspace, config: ExperimentConfig, add: Callable[..., ModelVersion]) -> None:
    import mlflow

    version = add()
    promote(workspace, config, version.version, "champion")
    folder = champion_model_dir(workspace, config)
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(InputError, match="differs from its checksum"):
        load_model(folder)
    with pytest.raises(InputError, match="differs from its checksum"):
        mlflow.pyfunc.load_model(version.source)
    # Exchanged as a whole, checksums and all, it is consistent in itself, but not what was registered.
    (folder / "SHA256SUMS").write_text("0" * 64 + "  model.safetensors\n", encoding="utf-8")
    with pytest.raises(InputError, match="not the model that was registered"):
        champion_model_dir(workspace, config)


def test_aliases_move_and_only_admitted_versions_get_one(
    workspace: Workspace, config: ExperimentConfig, add: Callable[..., ModelVersion]
) -> None:
    first, second = add(), add("clip", loss="clip")
    with pytest.raises(IncompleteStage, match="--alias champion"):
        find_champion(workspace, config)
    promote(workspace, config, first.version, "champion")
    assert promote(workspace, config, second.version, "challenger").aliases == ("challenger",)
    assert promote(workspace, config, "challenger", "champion").aliases == ("champion",)
    assert find_champion(workspace, config).version == second.version
    assert find_version(workspace, config, first.version).aliases == ()
    assert find_champion(workspace, config).reviewed_on >= first.created.date()
    assert (champion_model_dir(workspace, config) / "model.safetensors").is_file()
    with pytest.raises(ConfigError, match=r"no version 7 \(there is: 2 \(champion\), 1\)"):
        promote(workspace, config, 7, "champion")
    with pytest.raises(ConfigError, match="must be one of"):
        promote(workspace, config, 1, "latest")  # type: ignore[arg-type]
    client = open_store(workspace, config)
    by_hand = client.create_model_version(config.registry.name, source=first.source)
    with pytest.raises(GateRefused, match="not registered through the gate"):
        promote(workspace, config, int(by_hand.version), "champion")


def test_a_copied_workspace_is_whole_and_leaves_the_original_alone(
    workspace: Workspace, config: ExperimentConfig, add: Callable[..., ModelVersion]
) -> None:
    version = promote(workspace, config, add().version, "champion")
    copied = Workspace(workspace.root.with_name("copied"))
    shutil.copytree(workspace.root, copied.root)
    originals = sorted(workspace.tracking.rglob("*"))
    assert champion_model_dir(copied, config).is_relative_to(copied.root)
    assert read_report(copied, config, find_champion(copied, config)) == read_report(workspace, config, version)
    client = open_store(copied, config)
    run = client.create_run(experiment_id(client, config))
    assert str(copied.root) in run.info.artifact_uri
    assert sorted(workspace.tracking.rglob("*")) == originals
    assert champion_model_dir(workspace, config).is_relative_to(workspace.root)


def test_a_model_that_is_gone_is_one_message(
    workspace: Workspace, config: ExperimentConfig, add: Callable[..., ModelVersion]
) -> None:
    promote(workspace, config, add().version, "champion")
    shutil.rmtree(workspace.tracking / "artifacts")
    with pytest.raises(InputError, match="put the folder back"):
        champion_model_dir(workspace, config)


def test_comparison_shows_both_the_paired_difference_and_what_differs(
    workspace: Workspace, config: ExperimentConfig, add: Callable[..., ModelVersion]
) -> None:
    clip = add("clip", loss="clip", accuracy=0.3)
    difference = {"accuracy_10way": {"value": 0.12, "low": 0.02, "high": 0.22, "n": 100}}
    symile = add("symile", paired_differences={"clip": difference}, models={"clip": clip.model_digest})
    found = compare(workspace, config, symile.version, clip.version)
    rows = {row.metric: row for row in found.metrics}
    assert set(rows) == {"accuracy_10way", "mrr"}
    accuracy = rows["accuracy_10way"]
    assert (accuracy.first.value, accuracy.second.value, accuracy.chance) == (0.42, 0.3, 0.1)
    assert accuracy.difference is not None
    assert (accuracy.difference.value, accuracy.difference.low, accuracy.difference.high) == (0.12, 0.02, 0.22)
    assert rows["mrr"].difference is None
    assert found.settings == {"train.loss": ('"symile"', '"clip"')}
    assert found.lineage["loss"] == ("symile", "clip")
    assert found.setting["candidates"] == 10
    assert found.remark == ""
    other = compare(workspace, config, clip.version, symile.version)
    turned = {row.metric: row for row in other.metrics}["accuracy_10way"].difference
    assert turned is not None
    assert (turned.value, turned.low, turned.high) == (-0.12, -0.22, -0.02)


def test_a_difference_to_other_weights_is_not_shown(
    workspace: Workspace, config: ExperimentConfig, add: Callable[..., ModelVersion]
) -> None:
    """The report compares itself with a run called clip, but the registered clip has other weights."""
    clip = add("clip", loss="clip")
    difference = {"accuracy_10way": {"value": 0.12, "low": 0.02, "high": 0.22, "n": 100}}
    symile = add("symile", paired_differences={"clip": difference}, models={"clip": "0" * 64})
    found = compare(workspace, config, symile.version, clip.version)
    assert all(row.difference is None for row in found.metrics)
    with pytest.raises(ConfigError, match="two different versions"):
        compare(workspace, config, 1, "1")
    assert "ranks.parquet" in found.remark


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"data": {"dataset_digest": "0" * 64}}, "dataset"),
        ({"split": "val"}, "split"),
        ({"gallery_size": 7}, "gallery_size"),
    ],
)
def test_versions_on_different_data_are_not_compared(
    workspace: Workspace, config: ExperimentConfig, add: Callable[..., ModelVersion], change: dict[str, Any], what: str
) -> None:
    one, two = add(), add("clip", loss="clip", **change)
    with pytest.raises(InputError, match="different data") as error:
        compare(workspace, config, one.version, two.version)
    assert what in str(error.value)


REGISTERS = """
import sys, json, hashlib
from pathlib import Path
from clinical_symile.config import ExperimentConfig
from clinical_symile.stage import Workspace
from clinical_symile.tracking import register
verdict = json.loads(sys.argv[3])
version = register(Workspace(Path(sys.argv[1])), ExperimentConfig.model_validate_json(sys.argv[2]), "symile",
                   card=sys.argv[4], verdict=verdict)
print(version.version)
"""


@pytest.mark.slow
def test_two_processes_register_one_version(
    workspace: Workspace, config: ExperimentConfig, make_run: MakeRun, verdict: Judge
) -> None:
    make_run()
    command = [
        sys.executable,
        "-c",
        REGISTERS,
        str(workspace.root),
        config.model_dump_json(),
        json.dumps(verdict("symile", CARD)),
        CARD,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in processes] == ["1", "1"]
    assert len(list_versions(workspace, config)) == 1


def test_a_long_card_is_shortened_in_the_description_only(
    workspace: Workspace, config: ExperimentConfig, make_run: MakeRun, verdict: Judge
) -> None:
    make_run()
    card = "# Card\n" + "long " * 3000
    version = register(workspace, config, "symile", card=card, verdict=verdict("symile", card))
    assert len(version.card) == 5000
    assert version.card.endswith("(model_card.md).")
    assert document(workspace, config, version, "model_card.md").read_text(encoding="utf-8") == card
    assert MODEL_IN_PACKAGE.as_posix() == "artifacts/model"

"""The store is made once and whole, closed to others, silent, and on this machine."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clinical_symile.config import ExperimentConfig, RegistryConfig
from clinical_symile.errors import ClinicalSymileError, ConfigError, GateRefused
from clinical_symile.stage import Workspace
from clinical_symile.tracking import list_versions, open_store, tracking_uri

FIRST_USE = """
import sys
from pathlib import Path
from clinical_symile.config import load_config
from clinical_symile.stage import Workspace
from clinical_symile.tracking import MlflowTracker
tracker = MlflowTracker(Workspace(Path(sys.argv[1])), load_config())
tracker.start(sys.argv[2], {}, {}, None)
for step in range(1, 21):
    tracker.log_metrics({"loss": 1 / step}, step)
tracker.finish("FINISHED")
"""


def remote(uri: str) -> ExperimentConfig:
    return ExperimentConfig(registry=RegistryConfig(tracking_uri=uri))


@pytest.mark.slow
def test_processes_that_open_a_new_store_at_once_all_succeed(workspace: Workspace, config: ExperimentConfig) -> None:
    """With a plain client all of them fail, and the file stays unusable (research: 4 of 4)."""
    names = ["one", "two", "three"]
    processes = [
        subprocess.Popen([sys.executable, "-c", FIRST_USE, str(workspace.root), name], stderr=subprocess.PIPE, text=True)
        for name in names
    ]
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], errors
    client = open_store(workspace, ExperimentConfig())
    experiment = client.get_experiment_by_name(ExperimentConfig().registry.name)
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.info.run_name for run in runs) == sorted(names)
    assert all(len(client.get_metric_history(run.info.run_id, "loss")) == 20 for run in runs)


def test_the_store_is_the_owners_alone_and_nothing_is_left_elsewhere(
    workspace: Workspace, config: ExperimentConfig, tmp_path: Path
) -> None:
    open_store(workspace, config)
    assert workspace.tracking.stat().st_mode & 0o777 == 0o700
    assert (workspace.tracking / "mlflow.db").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in workspace.tracking.iterdir()) == ["artifacts", "mlflow.db", "mlflow.lock"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ws"], "MLflow's default store must not appear"


def test_an_interrupted_creation_leaves_no_store(
    workspace: Workspace, config: ExperimentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a store would be taken for a whole one for ever."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    whole = SqlAlchemyStore.__init__

    def killed(self: Any, *arguments: Any) -> None:
        whole(self, *arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SqlAlchemyStore, "__init__", killed)
        with pytest.raises(KeyboardInterrupt):
            open_store(workspace, config)
    assert not (workspace.tracking / "mlflow.db").exists()
    assert open_store(workspace, config).search_experiments()


def test_nothing_reaches_for_the_network(workspace: Workspace, config: ExperimentConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def refuse(*arguments: Any, **_: Any) -> Any:
        asked.append(arguments[:2])
        raise OSError("no network in tests")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    client = open_store(workspace, config)
    client.create_registered_model("quiet")
    assert list_versions(workspace, config) == []
    assert asked == []
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    from mlflow.telemetry.utils import is_telemetry_disabled

    assert is_telemetry_disabled()


def test_a_users_environment_does_not_switch_telemetry_on(tmp_path: Path) -> None:
    program = (
        "from clinical_symile.tracking.store import import_mlflow\nimport_mlflow()\nimport os\n"
        "from mlflow.telemetry.utils import is_telemetry_disabled\n"
        "print(is_telemetry_disabled(), os.environ['MLFLOW_ALLOW_PICKLE_DESERIALIZATION'])"
    )
    loud = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "false", "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "true"}
    done = subprocess.run([sys.executable, "-c", program], env=loud, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "false"]


@pytest.mark.parametrize("uri", ["http://tracking.example.org:5000", "https://10.0.0.7", "http://127.0.0.1.example.org"])
def test_credentialed_data_stays_on_this_machine(workspace: Workspace, uri: str) -> None:
    manifest = workspace.dataset / "manifest.json"
    manifest.write_text(manifest.read_text(encoding="utf-8").replace("synthetic", "credentialed"), encoding="utf-8")
    with pytest.raises(GateRefused, match="may not be sent"):
        open_store(workspace, remote(uri))


def test_data_of_unknown_class_counts_as_credentialed(tmp_path: Path) -> None:
    with pytest.raises(GateRefused):
        open_store(Workspace(tmp_path / "empty"), remote("http://tracking.example.org"))


def test_a_server_that_does_not_answer_is_one_message(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ClinicalSymileError, match="is the server running"):
        open_store(workspace, remote("http://127.0.0.1:9"))


@pytest.mark.parametrize("uri", ["file:///tmp/mlruns", "mlruns", "databricks", "ftp://host"])
def test_other_kinds_of_store_are_refused(workspace: Workspace, uri: str) -> None:
    with pytest.raises(ConfigError, match="must be sqlite"):
        tracking_uri(workspace, remote(uri))


def test_a_damaged_store_is_one_message(workspace: Workspace, config: ExperimentConfig) -> None:
    workspace.tracking.mkdir(parents=True)
    (workspace.tracking / "mlflow.db").write_bytes(b"this is no database at all" * 100)
    with pytest.raises(ClinicalSymileError, match="cannot be used"):
        open_store(workspace, config)


def test_listing_makes_no_store(workspace: Workspace, config: ExperimentConfig) -> None:
    assert list_versions(workspace, config) == []
    assert not workspace.tracking.exists()


def test_importing_the_room_does_not_import_mlflow() -> None:
    program = "import sys, clinical_symile.tracking; print('mlflow' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_mlflow_is_quiet(workspace: Workspace, config: ExperimentConfig, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("mlflow").setLevel(logging.INFO)  # as when another package imported MLflow first
    with caplog.at_level(logging.INFO):
        open_store(workspace, config)
    assert [record.name for record in caplog.records if record.name.startswith("mlflow")] == []

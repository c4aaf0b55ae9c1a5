"""The same code against a tracking server, as a cluster has one: a real one, on the loopback interface."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clinical_symile.config import ExperimentConfig, RegistryConfig
from clinical_symile.models import load_model
from clinical_symile.stage import Workspace, write_json
from clinical_symile.tracking import (
    MlflowTracker,
    champion_model_dir,
    document,
    list_versions,
    promote,
    read_report,
    register,
)

CARD = "# Model card"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of an MLflow server with nothing in it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path / "server"
    folder.mkdir()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'server.db'}", "--artifacts-destination", str(folder / "artifacts")]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    with (folder / "log.txt").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", process, folder / "log.txt")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)


def _wait_for(address: str, process: subprocess.Popen[Any], log: Path) -> None:
    for _ in range(600):
        if process.poll() is not None:
            pytest.fail(f"the server ended:\n{log.read_text(encoding='utf-8')[-2000:]}")
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    pytest.fail(f"the server did not answer:\n{log.read_text(encoding='utf-8')[-2000:]}")


@pytest.mark.slow
def test_runs_and_versions_live_on_a_server(
    server: str, workspace: Workspace, make_run: Callable[..., Path], verdict: Callable[..., dict[str, Any]]
) -> None:
    config = ExperimentConfig(registry=RegistryConfig(name="symile-test", tracking_uri=server))
    make_run()
    tracker = MlflowTracker(workspace, config)
    run_id = tracker.start("symile", {}, {}, None)
    tracker.log_metrics({"loss": 1.0}, 1)
    tracker.log_artifact(workspace.run("symile") / "manifest.json")
    tracker.finish("FINISHED")
    write_json(workspace.run("symile") / "run.json", {"run_id": run_id})

    version = register(workspace, config, "symile", card=CARD, verdict=verdict("symile", CARD))
    assert register(workspace, config, "symile", card=CARD, verdict=verdict("symile", CARD)) == version
    assert version.run_id == run_id
    promote(workspace, config, version.version, "champion")
    assert [found.aliases for found in list_versions(workspace, config)] == [("champion",)]
    folder = champion_model_dir(workspace, config)
    assert folder.is_relative_to(workspace.tracking), "a downloaded model stays in the workspace"
    assert load_model(folder).config.embed_dim == 8
    assert document(workspace, config, version, "model_card.md").read_text(encoding="utf-8") == CARD
    assert read_report(workspace, config, version)["run"] == "symile"
    assert not (workspace.tracking / "mlflow.db").exists()

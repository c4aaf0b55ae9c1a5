"""kill -9 in any stage, then the same command again: the result is that of an undisturbed run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

Cli = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]

STAGES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("simulate",), "hospital"),
    (("cohort",), "cohort"),
    (("prepare",), "dataset"),
    (("train",), "runs/symile"),
    (("evaluate", "--run", "symile"), "reports/symile"),
    (("index", "--run", "symile"), "gallery/symile"),
)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_config: Path, cli: Cli) -> Path:
    """A workspace in which every stage ran to its end."""
    workspace = tmp_path_factory.mktemp("undisturbed") / "ws"
    for stage, _ in STAGES:
        cli(*stage, "--config", tiny_config, "--workspace", workspace)
    return workspace


@pytest.mark.slow
@pytest.mark.parametrize("position", range(len(STAGES)), ids=[stage[0] for stage, _ in STAGES])
def test_killed_stage_ends_in_the_same_result(
    tmp_path: Path, tiny_config: Path, undisturbed: Path, cli: Cli, start: Start, position: int
) -> None:
    stage, output = STAGES[position]
    workspace = tmp_path / "ws"
    shutil.copytree(undisturbed, workspace)
    shutil.rmtree(workspace / output)
    arguments = (*stage, "--config", tiny_config, "--workspace", workspace)

    kill_while_working(start(*arguments), workspace / output)
    assert not (workspace / output / "manifest.json").exists(), "killed too late: this run would show nothing"
    cli(*arguments)
    assert digest(workspace / output) == digest(undisturbed / output)
    assert not list((workspace / output).rglob("*.tmp")), "no temporary file is left behind"


def kill_while_working(process: subprocess.Popen[str], output: Path) -> None:
    """Kills the process and all its children when it has taken its folder, and if it can be had, made a first partial result."""
    while not (output / ".stage.json").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
    # Long enough for a first partial result, short enough not to miss the end of a quick stage.
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline and not any(path.name != ".stage.json" for path in output.rglob("*") if path.is_file()):
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def digest(folder: Path) -> str:
    """The digest of a finished stage's outputs."""
    found: str = json.loads((folder / "manifest.json").read_text())["digest"]
    return found

"""kill -9 in any stage, then the same command again: the result is that of an undisturbed run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import Cli, command, environment, manifest

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
    tmp_path: Path, tiny_config: Path, undisturbed: Path, cli: Cli, position: int
) -> None:
    stage, output = STAGES[position]
    workspace = tmp_path / "ws"
    shutil.copytree(undisturbed, workspace)
    shutil.rmtree(workspace / output)
    arguments = (*stage, "--config", tiny_config, "--workspace", workspace)

    kills = kill_while_working(arguments, workspace / output)
    assert kills, "the stage was never killed while it worked, so this test would show nothing"
    assert not (workspace / output / "manifest.json").exists()
    cli(*arguments)
    assert manifest(workspace / output)["digest"] == manifest(undisturbed / output)["digest"]
    assert not list((workspace / output).rglob("*.tmp")), "no temporary file is left behind"


def kill_while_working(arguments: tuple[str | Path, ...], output: Path) -> int:
    """Starts the command and kills its whole process group shortly after it took its folder; counts the kills."""
    process = subprocess.Popen(
        command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(), start_new_session=True
    )
    while not (output / ".stage.json").exists():
        if process.poll() is not None:
            return 0
        time.sleep(0.005)
    # Long enough for a first partial result, short enough not to miss the end of a quick stage.
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline and not any(path.name != ".stage.json" for path in output.rglob("*") if path.is_file()):
        time.sleep(0.005)
    if (output / "manifest.json").exists():
        process.wait()
        return 0
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return int(not (output / "manifest.json").exists())

"""Running many items: the same results in the same order, however many processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from clinical_symile.errors import ClinicalSymileError, InputError
from clinical_symile.execution import map_items


def square(value: int) -> int:
    return value * value


def refuse_three(value: int) -> int:
    if value == 3:
        raise InputError("three is not allowed")
    return value


def die(value: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return value


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_order_does_not_depend_on_the_number_of_processes(jobs: int) -> None:
    assert list(map_items(square, range(50), jobs=jobs)) == [value * value for value in range(50)]


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_items_error_reaches_the_caller(jobs: int) -> None:
    with pytest.raises(InputError, match="three"):
        list(map_items(refuse_three, range(10), jobs=jobs))


def test_a_killed_worker_is_one_clear_message() -> None:
    with pytest.raises(ClinicalSymileError, match="worker process died"):
        list(map_items(die, range(4), jobs=2))


def test_workers_end_with_the_process_that_wanted_their_results(tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text(
        "import os, pathlib, time\n"
        "def sleep(folder):\n"
        "    (pathlib.Path(folder) / f'{os.getpid()}.pid').touch()\n"
        "    time.sleep(600)\n"
    )
    program = (
        "from sleeper import sleep; from clinical_symile.execution import map_items\n"
        f"list(map_items(sleep, [{str(tmp_path)!r}] * 2, jobs=2))"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    with subprocess.Popen([sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": path}) as owner:
        _until(lambda: len(list(tmp_path.glob("*.pid"))) == 2)
        owner.send_signal(signal.SIGKILL)
    workers = [int(file.stem) for file in tmp_path.glob("*.pid")]
    _until(lambda: not any(psutil.pid_exists(worker) for worker in workers))


def _until(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)

"""Functions run in k processes that form a gloo process group on this machine.

Starting Python and importing torch takes seconds, so the processes are kept for the next call; each call has a process
group of its own, which meets in a file (a TCPStore looks up host names, which can take seconds). A call that is not done
within the limit is an error, and its processes are killed.
"""

from __future__ import annotations

import faulthandler
import importlib.util
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Outcome:
    """What became of one rank.

    Attributes:
        value: what the function returned.
        error: type and text of what it raised, ``exit code 3`` if the process ended, ``time limit``; ``None`` if it returned.
        seconds: how long it took.
        details: the traceback, or the end of what the process printed.
    """

    value: Any = None
    error: str | None = None
    seconds: float = 0.0
    details: str = ""


class Ranks:
    """The processes, started when first needed; the fixture ``ranks`` closes them at the end of the session."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="ranks-")
        self.workers: list[Worker] = []
        self.calls = 0

    def run(self, k: int, function: Callable[..., Any], *args: Any, limit: float = 60.0) -> list[Any]:
        """``[function(*args) on rank 0, …]``; a rank that fails fails the test.

        Args:
            k: number of processes.
            function: at top level of a test module (or any module with a file); finds its rank with ``dist.get_rank()``.
            args: the same for all ranks, pickled.
            limit: seconds for the call itself, without the start of new processes.

        Raises:
            AssertionError: with the traceback of every rank that failed.
        """
        outcomes = self.outcomes(k, function, *args, limit=limit)
        failed = {rank: outcome for rank, outcome in enumerate(outcomes) if outcome.error is not None}
        if failed:
            texts = [f"--- rank {rank} of {k}: {outcome.error}\n{outcome.details}" for rank, outcome in failed.items()]
            raise AssertionError("\n".join([f"{function.__name__} failed", *texts]))
        return [outcome.value for outcome in outcomes]

    def outcomes(self, k: int, function: Callable[..., Any], *args: Any, limit: float = 60.0) -> list[Outcome]:
        """Like ``run``, but says for each rank what became of it."""
        self.workers = [worker for worker in self.workers if worker.is_alive()]
        while len(self.workers) < k:
            self.workers.append(Worker(Path(self.folder.name) / f"log-{self.calls}-{len(self.workers)}.txt"))
        workers = self.workers[:k]
        for worker in workers:
            worker.wait_until_ready()
        self.calls += 1
        file = sys.modules[function.__module__].__file__
        store = f"file://{self.folder.name}/store-{self.calls}"
        call = (function.__module__, file, function.__qualname__, pickle.dumps(args), store, k, limit)
        started = time.monotonic()
        for rank, worker in enumerate(workers):
            worker.connection.send((call, rank))
        outcomes: dict[int, Outcome] = {}
        while len(outcomes) < k:
            remaining = started + limit - time.monotonic()
            waiting = {worker.connection: rank for rank, worker in enumerate(workers) if rank not in outcomes}
            ready = wait(list(waiting), timeout=max(remaining, 0.0))
            seconds = time.monotonic() - started
            if not ready:
                for rank in waiting.values():
                    outcomes[rank] = Outcome(error="time limit", seconds=seconds, details=workers[rank].end())
            for connection in ready:
                rank = waiting[connection]
                try:
                    value, error, details = pickle.loads(workers[rank].connection.recv_bytes())
                    outcomes[rank] = Outcome(value, error, seconds, details)
                except (EOFError, ConnectionError):
                    details = workers[rank].end()
                    outcomes[rank] = Outcome(None, f"exit code {workers[rank].process.returncode}", seconds, details)
        return [outcomes[rank] for rank in range(k)]

    def close(self) -> None:
        """Processes that have nothing to do end when their connections are closed."""
        for worker in self.workers:
            worker.connection.close()
        for worker in self.workers:
            worker.end(patience=10)
        self.folder.cleanup()


class Worker:
    """One process and the connection to it."""

    def __init__(self, log: Path) -> None:
        here, there = socket.socketpair()
        self.log = log
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, __file__, str(there.fileno())],
                pass_fds=[there.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
            )
        there.close()
        self.connection: Connection = Connection(here.detach())
        self.connection.send(sys.path)
        self.ready = False

    def wait_until_ready(self, limit: float = 120.0) -> None:
        if not self.ready:
            try:
                self.ready = self.connection.poll(limit) and self.connection.recv() == "ready"
            except (EOFError, ConnectionError):
                self.ready = False
        if not self.ready:
            raise AssertionError(f"a process did not start:\n{self.end()}")

    def is_alive(self) -> bool:
        return self.process.poll() is None and not self.connection.closed

    def end(self, patience: float = 0.5) -> str:
        """Kills the process, unless it ends by itself within ``patience`` seconds, and returns the end of its log."""
        self.connection.close()
        try:
            self.process.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)  # faulthandler prints where it was
            try:
                self.process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return self.log.read_text(errors="replace")[-5000:]


def serve(connection: Connection) -> None:
    """The life of a process: one call after the other until the connection is closed."""
    sys.path[:] = connection.recv()
    faulthandler.enable()
    torch.set_num_threads(1)
    connection.send("ready")
    while True:
        try:
            (module, file, name, args, store, k, limit), rank = connection.recv()
        except EOFError:
            return
        # If the process of the tests is gone, nobody else ends this one.
        faulthandler.dump_traceback_later(limit + 30, exit=True)
        try:
            function = find(module, file, name)
            dist.init_process_group("gloo", init_method=store, rank=rank, world_size=k)
            result = pickle.dumps((function(*pickle.loads(args)), None, ""))
        except BaseException as error:  # noqa: BLE001 (pytest.fail and SystemExit are results too)
            result = pickle.dumps((None, f"{type(error).__name__}: {error}", traceback.format_exc()))
        if dist.is_initialized():
            dist.destroy_process_group()
        faulthandler.cancel_dump_traceback_later()
        connection.send_bytes(result)


def find(module: str, file: str, name: str) -> Callable[..., Any]:
    """The function, from a test module that pytest has imported by its path."""
    if module not in sys.modules:
        spec = importlib.util.spec_from_file_location(module, file)
        loaded = importlib.util.module_from_spec(spec)
        sys.modules[module] = loaded
        spec.loader.exec_module(loaded)
    found: Any = sys.modules[module]
    for part in name.split("."):
        found = getattr(found, part)
    return found


def main(arguments: Sequence[str]) -> None:
    serve(Connection(int(arguments[1])))


if __name__ == "__main__":
    main(sys.argv)

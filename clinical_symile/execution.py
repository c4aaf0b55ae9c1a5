"""Run many independent items: in this process, or in a pool of local processes."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import psutil

from clinical_symile.errors import ClinicalSymileError

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_items(
    function: Callable[[Item], Result], items: Sequence[Item], *, jobs: int, preload: Sequence[str] = ()
) -> Iterator[Result]:
    """Yields ``function(item)`` for each item, in the items' order.

    Args:
        function: a module-level function; its arguments and results travel between processes.
        items: the work. The order of results does not depend on ``jobs``.
        jobs: number of processes; 1 stays in this process.
        preload: modules that every worker needs, imported once before the workers fork.

    Raises:
        ClinicalSymileError: a worker process died (for example killed for memory).
    """
    if jobs <= 1 or len(items) <= 1:
        yield from map(function, items)
        return
    # forkserver: workers inherit neither threads nor open files of this process, and the heavy imports happen once.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    pool = ProcessPoolExecutor(min(jobs, len(items)), context, initializer=_end_with, initargs=(os.getpid(),))
    with pool:
        waiting: deque[Future[Result]] = deque()
        upcoming = iter(items)
        try:
            for item in upcoming:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= 4 * jobs:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise ClinicalSymileError(
                "a worker process died, perhaps for lack of memory; run the same command again (it continues), "
                "with fewer processes: --jobs 1"
            ) from None
        except BaseException:
            for future in waiting:
                future.cancel()
            raise


def _end_with(owner: int) -> None:
    """Ends this worker when the process that wants its results is gone: a killed one cannot say goodbye."""
    process = psutil.Process(owner)

    def watch() -> None:
        while _lives(process):
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False

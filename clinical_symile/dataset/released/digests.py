"""Files against ``SHA256SUMS.txt``: hashed in parallel, once, and not again after an interruption."""

from __future__ import annotations

import hashlib
import logging
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from clinical_symile.checksums import CHECKSUMS_FILE, expected_digests
from clinical_symile.dataset.released.layout import Release
from clinical_symile.errors import InputError
from clinical_symile.stage import RunOptions, digest_json, track, write_json

logger = logging.getLogger(__name__)

BLOCK: Final = 8 * 2**20
"""Bytes per step: the unit of the progress, and what each thread holds."""

Tick = tuple[str, str | Exception | None]
"""A file of which another block, the digest, or an error is there."""


def promised_digests(release: Release) -> dict[str, str] | None:
    """What ``SHA256SUMS.txt`` says about each file that is used; None, with a warning, when the release has no such file.

    Raises:
        InputError: a file that is used is not listed, or the list is damaged.
    """
    names = (*release.small, *release.big)
    promised = expected_digests(release.folder, names)
    if promised is None:
        logger.warning("%s: there is no %s, so nobody can tell whether the files are whole", release.folder, CHECKSUMS_FILE)
        return None
    unlisted = [name for name in names if name not in promised]
    if unlisted:
        raise InputError(
            f"{release.path(unlisted[0])}: is used, but {CHECKSUMS_FILE} does not list it ({len(unlisted)} such files); "
            f"download the release again, or remove {CHECKSUMS_FILE} if you made these files yourself"
        )
    return promised


def verify(
    release: Release, promised: Mapping[str, str], names: Sequence[str], options: RunOptions, notes: Path | None = None
) -> None:
    """Hashes files and compares them with what was promised.

    Args:
        release: where the files lie.
        promised: name -> SHA-256.
        names: the files to check.
        options: how many threads, and whether to show progress.
        notes: folder that remembers which files were found whole, so that an interrupted run need not hash them again. A
            file whose size or time of change differs since is hashed again.

    Raises:
        InputError: a file is not what was promised; the others may not have been checked then.
    """
    pending = [name for name in names if notes is None or not _is_noted(notes, release.path(name), promised[name])]
    for name, digest in hash_files({name: release.path(name) for name in pending}, options):
        if digest != promised[name]:
            raise InputError(
                f"{release.path(name)}: its SHA-256 is {digest[:12]}…, but {CHECKSUMS_FILE} says {promised[name][:12]}…: "
                "the file is damaged, cut short or was changed; download it again"
            )
        if notes is not None:
            write_json(_note(notes, release.path(name), digest), {"file": name, "sha256": digest})


def hash_files(files: Mapping[str, Path], options: RunOptions) -> Iterator[tuple[str, str]]:
    """Yields (name, SHA-256) of each file as it becomes known, and shows progress in blocks of 8 MiB.

    Threads suffice: hashing releases the interpreter's lock.

    Raises:
        InputError: a file cannot be read.
    """
    total = sum(math.ceil(path.stat().st_size / BLOCK) for path in files.values())
    for name, found in track(_ticks(files, options.jobs), total, "checksums, blocks of 8 MiB", options):
        if isinstance(found, Exception):
            raise InputError(f"{files[name]}: cannot be read ({found})") from None
        if found is not None:
            yield name, found


def _ticks(files: Mapping[str, Path], jobs: int) -> Iterator[Tick]:
    """One tick for each block; the last one of a file has its digest."""
    ticks: SimpleQueue[Tick] = SimpleQueue()
    stop = threading.Event()
    # The largest first: it decides when all of them are done.
    order = sorted(files, key=lambda name: -files[name].stat().st_size)
    with ThreadPoolExecutor(max_workers=max(jobs, 1)) as pool:
        try:
            for name in order:
                pool.submit(_hash, name, files[name], ticks, stop)
            left = len(order)
            while left:
                tick = ticks.get()
                left -= tick[1] is not None
                yield tick
        finally:
            stop.set()


def _hash(name: str, path: Path, ticks: SimpleQueue[Tick], stop: threading.Event) -> None:
    found: str | Exception | None = None
    try:
        digest = hashlib.sha256()
        buffer = memoryview(bytearray(BLOCK))
        with path.open("rb", buffering=0) as handle:
            pending = False
            while not stop.is_set() and (count := handle.readinto(buffer)):
                if pending:
                    ticks.put((name, None))
                digest.update(buffer[:count])
                pending = True
        found = digest.hexdigest()
    except Exception as error:  # noqa: BLE001 - whoever waits at the other end of the queue raises it
        found = error
    ticks.put((name, found))


def _note(notes: Path, path: Path, digest: str) -> Path:
    state = path.stat()
    return notes / f"{digest_json([str(path), state.st_size, state.st_mtime_ns, digest])}.json"


def _is_noted(notes: Path, path: Path, digest: str) -> bool:
    return _note(notes, path, digest).is_file()

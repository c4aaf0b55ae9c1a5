"""Opens ECG records, several at a time, and remembers across runs what each of them holds.

Looking for missing samples means reading the signal. All of MIMIC-IV-ECG is 90 GB; the records that the rules could choose are a
few in a hundred, and those are opened once: which ones can be used is appended to a log, a batch of records at a time, so that a
killed run goes on where it was, and a cohort with other windows opens only what is new to it. A record whose files have changed
since (size or time of the header, of ``<record>.dat`` or of ``<record>.mat``) is opened again, and so is one that could not be
used: what was wrong may have been mended in a way that does not show.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from clinical_symile import __version__
from clinical_symile.execution import map_items
from clinical_symile.stage import RunOptions, private_folder, track
from clinical_symile.types import EcgCondition

logger = logging.getLogger(__name__)

EcgCheck = Callable[[Path, Path], EcgCondition]
"""Takes a record's path without extension and the root it must lie in; says what is wrong with it, if anything."""

_BATCH: Final = 32
"""Records per entry of the log and per message to a worker process: about 40 ms of work."""
_RECORDS_PER_PROCESS: Final = 2000
"""Starting a process costs as much as opening so many records."""


class _Entry(NamedTuple):
    """What was found in one record, and in which state of its files."""

    path: str
    stamp: tuple[int, ...]
    condition: EcgCondition


def check_ecgs(
    paths: Sequence[str], root: Path, check: EcgCheck, log: Path | None, options: RunOptions
) -> dict[str, EcgCondition]:
    """The condition of each record.

    Args:
        paths: of the records without extension, relative to the root.
        root: folder that the records lie in.
        check: opens one record; a module-level function, it travels to worker processes.
        log: file that remembers what was found; None remembers nothing.
        options: how to run; ``overwrite`` opens every record again.

    Returns:
        Path -> condition, for all paths.
    """
    known = {} if log is None or options.overwrite else _read_log(log, root, check)
    found = {path: known[path].condition for path in paths if path in known and known[path].stamp == _stamp(root / path)}
    unknown = [path for path in paths if path not in found]
    if found:
        logger.info("cohort: %d of %d ECG records are known from before", len(found), len(paths))
    batches = [unknown[start : start + _BATCH] for start in range(0, len(unknown), _BATCH)]
    jobs = min(options.jobs, 1 + len(unknown) // _RECORDS_PER_PROCESS)
    examined = map_items(partial(_examine, root=root, check=check), batches, jobs=jobs)

    def singly() -> Iterator[_Entry]:
        for entries in examined:
            if log is not None:
                _append(log, root, check, entries)
            yield from entries

    for entry in track(singly(), len(unknown), "cohort: open ECG records", options):
        found[entry.path] = entry.condition
    return found


def _examine(paths: Sequence[str], root: Path, check: EcgCheck) -> list[_Entry]:
    # The stamp comes first: a file that changes while it is read will not fit it.
    return [_Entry(path, _stamp(root / path), check(root / path, root)) for path in paths]


def _stamp(record: Path) -> tuple[int, ...]:
    """Sizes and times of change of a record's files; -1 where there is none."""
    stamp = []
    for suffix in (".hea", ".dat", ".mat"):
        try:
            status = os.stat(f"{record}{suffix}")
        except (OSError, ValueError):
            stamp += [-1, -1]
        else:
            stamp += [status.st_size, status.st_mtime_ns]
    return tuple(stamp)


def _identity(root: Path, check: EcgCheck) -> str:
    """What the entries of one line hold for: other code, another folder or another check may find something else."""
    return f"{__version__} {getattr(check, '__qualname__', '')} {root.resolve()}"


def _append(log: Path, root: Path, check: EcgCheck, entries: Sequence[_Entry]) -> None:
    """One line, by one write: a killed process leaves at most the beginning of a line behind."""
    private_folder(log.parent)
    usable = [[path, stamp, *condition] for path, stamp, condition in entries if condition.fault is None]
    line = json.dumps([_identity(root, check), usable])
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, f"\n{line}\n".encode())  # a line that was cut short does not swallow this one
    finally:
        os.close(descriptor)


def _read_log(log: Path, root: Path, check: EcgCheck) -> dict[str, _Entry]:
    known: dict[str, _Entry] = {}
    if not log.exists():
        return known
    wanted = _identity(root, check)
    with log.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                identity, entries = json.loads(line)
                found = [
                    _Entry(path, tuple(stamp), EcgCondition(fault, tuple(flat_leads)))
                    for path, stamp, fault, flat_leads in entries
                ]
            except (ValueError, TypeError):
                continue  # empty, or cut short by a kill
            if identity == wanted:
                known.update((entry.path, entry) for entry in found)
    return known

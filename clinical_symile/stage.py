"""The contract that every stage keeps: atomic, resumable, skipped when finished, with a manifest beside its output.

A stage owns one folder. While it works, the folder holds ``.stage.json`` with the *key* of the work: a digest of the stage's
name, its inputs' digests, its resolved configuration and the version of this package. When it is done, ``manifest.json`` is
written last, by one atomic rename, and names every output with its digest. Therefore

* a folder with a manifest of the same key is finished and is skipped;
* a folder with a ``.stage.json`` of the same key was interrupted: what it holds may be reused;
* anything else is cleared before work begins, so an unfinished output is never mistaken for a finished one.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from clinical_symile import __version__
from clinical_symile.errors import IncompleteStage, InputError, TooManyRejects

logger = logging.getLogger(__name__)
T = TypeVar("T")

MANIFEST = "manifest.json"
STATE = ".stage.json"
_LEFTOVERS = ".*.tmp"
"""What ``atomic_path`` leaves behind when the process is killed while it writes."""


@dataclass(frozen=True)
class RunOptions:
    """How to run a stage, as opposed to what it computes: nothing here changes a result."""

    dry_run: bool = False
    overwrite: bool = False
    quiet: bool = False
    jobs: int = os.cpu_count() or 1


@dataclass(frozen=True)
class Workspace:
    """The folder that holds everything an experiment writes."""

    root: Path

    @property
    def hospital(self) -> Path:
        """A simulated hospital, written by ``simulate``."""
        return self.root / "hospital"

    @property
    def tables(self) -> Path:
        """A hospital's tables as Parquet and what its ECG files held: kept to be fast, made again if lost."""
        return self.root / "tables"

    @property
    def cohort(self) -> Path:
        """Admissions, candidates and attrition."""
        return self.root / "cohort"

    @property
    def dataset(self) -> Path:
        """The array store."""
        return self.root / "dataset"

    def run(self, name: str) -> Path:
        """One training run."""
        return self.root / "runs" / name

    def report(self, name: str) -> Path:
        """The evaluation of one run."""
        return self.root / "reports" / name

    def gallery(self, name: str) -> Path:
        """The embedded X-rays of one model."""
        return self.root / "gallery" / name

    @property
    def tracking(self) -> Path:
        """MLflow's sqlite store and artifacts."""
        return self.root / "tracking"

    @property
    def audit_log(self) -> Path:
        """What was asked and shown in the dashboard."""
        return self.root / "audit.db"


@dataclass
class StageRun:
    """What a running stage reports; it ends up in the manifest."""

    output: Path
    counts: dict[str, int | float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    volatile: set[str] = field(default_factory=set)
    """Outputs (relative paths) whose bytes may differ between equal runs, for example because they hold times."""


class Stage:
    """One folder of work, identified by what goes into it.

    Args:
        name: the stage's name, also the command that runs it.
        output: the folder that the stage owns.
        inputs: name -> digest of everything the result depends on.
        config: the configuration sections the result depends on.
        options: how to run.
    """

    def __init__(
        self,
        name: str,
        output: Path,
        *,
        inputs: Mapping[str, str],
        config: BaseModel | Mapping[str, Any],
        options: RunOptions,
    ) -> None:
        self.name = name
        self.output = output
        self.inputs = dict(inputs)
        self.config = config.model_dump(mode="json") if isinstance(config, BaseModel) else dict(config)
        self.options = options
        self.key = digest_json({"stage": name, "version": __version__, "inputs": self.inputs, "config": self.config})

    def is_complete(self) -> bool:
        """Whether the folder holds this very work, finished and with every output in place."""
        manifest = _read_json(self.output / MANIFEST)
        return manifest is not None and manifest.get("key") == self.key and not _missing_outputs(self.output, manifest)

    def should_skip(self) -> bool:
        """Whether there is nothing to do; says so in the log."""
        if self.options.overwrite or not self.is_complete():
            return False
        logger.info("%s: already done (%s); --overwrite does it again", self.name, self.output)
        return True

    def announce(self, plan: Mapping[str, Any]) -> None:
        """Prints what a run would do (``--dry-run``)."""
        state = "is already done" if self.is_complete() else "would run"
        print(f"{self.name}: {state}, output {self.output}")
        for key, value in plan.items():
            print(f"  {key}: {value}")

    @contextmanager
    def writing(self) -> Iterator[StageRun]:
        """Owns the folder while the block runs, and seals it with a manifest when the block ends without an error."""
        self._take_folder()
        run = StageRun(self.output)
        started = time.time()
        yield run
        outputs = {
            str(path.relative_to(self.output)): {"sha256": digest_file(path), "bytes": path.stat().st_size}
            for path in sorted(self.output.rglob("*"))
            if path.is_file() and path.name not in (STATE, MANIFEST) and ".partial" not in path.relative_to(self.output).parts
        }
        stable = {name: entry["sha256"] for name, entry in outputs.items() if name not in run.volatile}
        write_json(
            self.output / MANIFEST,
            {
                "stage": self.name,
                "key": self.key,
                "digest": digest_json(stable),
                "inputs": self.inputs,
                "config": self.config,
                "counts": run.counts,
                **run.facts,
                "outputs": outputs,
                "code": code_version(),
                "seconds": round(time.time() - started, 3),
                "peak_memory_mb": round(peak_memory_mb(), 1),
            },
        )
        (self.output / STATE).unlink(missing_ok=True)
        shutil.rmtree(self.output / ".partial", ignore_errors=True)

    def manifest(self) -> dict[str, Any]:
        """The manifest of the finished stage."""
        return require_complete(self.output, self.name)

    def _take_folder(self) -> None:
        state = _read_json(self.output / STATE)
        resumable = state is not None and state.get("key") == self.key and not self.options.overwrite
        if self.output.exists() and not resumable:
            leftovers = set(self.output.glob(_LEFTOVERS))
            ours = state is not None or (self.output / MANIFEST).exists() or set(self.output.iterdir()) <= leftovers
            if not ours:
                raise InputError(f"{self.output}: holds files that no stage wrote; choose another --workspace or move them away")
            _clear(self.output)
        private_folder(self.output)
        # A finished output that is resumed under the same key (an output went missing) is no longer finished.
        (self.output / MANIFEST).unlink(missing_ok=True)
        if resumable:
            logger.info("%s: continuing an interrupted run in %s", self.name, self.output)
            for leftover in list(self.output.rglob(_LEFTOVERS)):
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)
        else:
            write_json(self.output / STATE, {"stage": self.name, "key": self.key})


def require_complete(folder: Path, command: str) -> dict[str, Any]:
    """The manifest of a finished stage.

    Raises:
        IncompleteStage: the folder is missing or unfinished; the message names the command to run.
    """
    manifest = _read_json(folder / MANIFEST)
    if manifest is None:
        state = "was interrupted" if (folder / STATE).exists() else "has not been run"
        raise IncompleteStage(f"{folder}: '{command}' {state}; run 'clinical-symile {command}' on this workspace first")
    missing = _missing_outputs(folder, manifest)
    if missing:
        raise IncompleteStage(f"{folder / missing[0]}: is missing or cut short; run 'clinical-symile {command} --overwrite'")
    return manifest


class Rejects:
    """Items that could not be used, each with a reason; written to ``rejects.parquet``."""

    def __init__(self) -> None:
        self.rows: list[dict[str, str]] = []

    def add(self, item: str, path: str, reason: str) -> None:
        """Quarantines one item."""
        self.rows.append({"item": item, "path": path, "reason": reason})

    def write(self, file: Path) -> None:
        """Writes the table, in order of (item, path), also when it is empty."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = pa.schema([("item", pa.string()), ("path", pa.string()), ("reason", pa.string())])
        rows = sorted(self.rows, key=lambda row: (row["item"], row["path"]))
        with atomic_path(file) as temporary:
            pq.write_table(pa.Table.from_pylist(rows, schema=schema), temporary)

    def check(self, total: int, max_share: float, what: str, file: Path) -> None:
        """Fails when more than the allowed share of ``total`` items was rejected.

        Raises:
            TooManyRejects: names the commonest reasons and the table that lists all of them.
        """
        rejected = len({row["item"] for row in self.rows})
        if total and rejected / total > max_share:
            reasons: dict[str, int] = {}
            for row in self.rows:
                reasons[row["reason"]] = reasons.get(row["reason"], 0) + 1
            common = "; ".join(f"{count} x {reason}" for reason, count in sorted(reasons.items(), key=lambda pair: -pair[1])[:3])
            raise TooManyRejects(
                f"{rejected} of {total} {what} were rejected, more than the allowed {max_share:.0%} (prepare.max_reject_share): "
                f"{common}. All of them: {file}"
            )


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """A temporary path in the target's own folder that replaces the target, fsynced, when the block ends well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, target)
        _fsync_folder(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def clear_leftovers(folder: Path) -> None:
    """Removes what ``atomic_path`` left in a folder when its process was killed; nobody else may be writing there."""
    for leftover in folder.glob(_LEFTOVERS):
        leftover.unlink(missing_ok=True)


def private_folder(folder: Path) -> None:
    """Makes a folder, and whichever of its parents are missing, for this user alone."""
    for missing in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Holds a lock that one process of this machine can have at a time; waits for it. A killed process loses it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_text(target: Path, text: str) -> None:
    """Writes a text file atomically."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: Path, value: Any) -> None:
    """Writes JSON atomically; refuses NaN, which is not JSON."""
    write_text(target, json.dumps(value, indent=2, allow_nan=False, default=str) + "\n")


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def digest_json(value: Any) -> str:
    """SHA-256 of a value in canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":"), default=str).encode()).hexdigest()


def code_version() -> dict[str, str | bool | None]:
    """The package's version and, in a git checkout, its commit and whether files were changed since."""
    root = Path(__file__).resolve().parent.parent
    version: dict[str, str | bool | None] = {"version": __version__, "commit": None, "modified": None}
    if (root / ".git").exists() and shutil.which("git"):
        head = _git(root, "rev-parse", "HEAD")
        status = _git(root, "status", "--porcelain", "--untracked-files=no")
        version["commit"] = head.strip() if head else None
        version["modified"] = bool(status.strip()) if status is not None else None
    return version


def peak_memory_mb() -> float:
    """Peak resident memory of this process or of its largest finished child, in MB."""
    scale = 1024 if sys.platform != "darwin" else 1024 * 1024
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / scale


def track(items: Iterable[T], total: int, description: str, options: RunOptions) -> Iterator[T]:
    """Yields the items and shows progress with a rate and an ETA: a bar on a terminal, plain log lines elsewhere."""
    if options.quiet:
        yield from items
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        ) as bar:
            task = bar.add_task(description, total=total, rate="")
            started = time.monotonic()
            for done, item in enumerate(items, 1):
                yield item
                bar.update(task, advance=1, rate=f"{done / max(time.monotonic() - started, 1e-9):.1f}/s")
    else:
        started = last = time.monotonic()
        for done, item in enumerate(items, 1):
            yield item
            now = time.monotonic()
            if now - last >= 10 or done == total:
                last = now
                rate = done / max(now - started, 1e-9)
                eta = (total - done) / rate if rate else 0.0
                logger.info("%s: %d/%d (%.1f/s, %.0f s left)", description, done, total, rate, eta)


def _git(root: Path, *arguments: str) -> str | None:
    completed = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    return completed.stdout if completed.returncode == 0 else None


def _missing_outputs(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    outputs = manifest.get("outputs", {})
    return [
        name
        for name, entry in outputs.items()
        if not (folder / name).is_file() or (folder / name).stat().st_size != entry["bytes"]
    ]


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return loaded if isinstance(loaded, dict) else None


def _clear(folder: Path) -> None:
    """Removes a stage's folder; its marks go last, so that a kill on the way leaves a folder that is known to be a stage's."""
    for path in folder.iterdir():
        if path.name not in (STATE, MANIFEST):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    shutil.rmtree(folder)


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

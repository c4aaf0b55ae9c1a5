"""The contract of a stage: atomic, skipped when finished, resumed when interrupted, never half a file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from clinical_symile.errors import IncompleteStage, InputError, TooManyRejects
from clinical_symile.stage import (
    MANIFEST,
    STATE,
    Rejects,
    RunOptions,
    Stage,
    atomic_path,
    digest_file,
    require_complete,
    track,
    write_json,
    write_text,
)


def make_stage(folder: Path, *, value: int = 1, options: RunOptions | None = None) -> Stage:
    return Stage("prepare", folder, inputs={"cohort": "abc"}, config={"value": value}, options=options or RunOptions(quiet=True))


def complete(stage: Stage, text: str = "result") -> None:
    with stage.writing() as run:
        write_text(stage.output / "result.txt", text)
        run.counts["rows"] = 3


def test_a_finished_stage_is_skipped_and_named_outputs_have_digests(tmp_path: Path) -> None:
    stage = make_stage(tmp_path / "out")
    assert not stage.should_skip()
    complete(stage)
    manifest = stage.manifest()
    assert manifest["counts"] == {"rows": 3}
    assert manifest["outputs"]["result.txt"]["sha256"] == digest_file(tmp_path / "out" / "result.txt")
    assert make_stage(tmp_path / "out").should_skip()
    assert not (tmp_path / "out" / STATE).exists()


def test_another_configuration_or_overwrite_starts_over(tmp_path: Path) -> None:
    complete(make_stage(tmp_path / "out"))
    changed = make_stage(tmp_path / "out", value=2)
    assert not changed.should_skip()
    (tmp_path / "out" / "stale.txt").write_text("from before")
    complete(changed)
    assert not (tmp_path / "out" / "stale.txt").exists(), "what the old configuration wrote must not survive"
    assert not make_stage(tmp_path / "out", value=2, options=RunOptions(overwrite=True)).should_skip()


def test_an_error_leaves_an_unfinished_stage_that_can_be_resumed(tmp_path: Path) -> None:
    stage = make_stage(tmp_path / "out")
    with pytest.raises(RuntimeError), stage.writing():
        write_text(stage.output / "part.txt", "half")
        raise RuntimeError("disk full")
    assert not stage.is_complete()
    with pytest.raises(IncompleteStage, match="was interrupted"):
        require_complete(tmp_path / "out", "prepare")
    with make_stage(tmp_path / "out").writing():
        assert (tmp_path / "out" / "part.txt").read_text() == "half", "the same work may reuse what is there"
    assert stage.is_complete()


def test_interrupted_work_of_another_configuration_is_not_reused(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), make_stage(tmp_path / "out").writing():
        write_text(tmp_path / "out" / "part.txt", "half")
        raise RuntimeError("stop")
    with make_stage(tmp_path / "out", value=2).writing():
        assert not (tmp_path / "out" / "part.txt").exists()


def test_a_cut_or_missing_output_is_noticed(tmp_path: Path) -> None:
    stage = make_stage(tmp_path / "out")
    complete(stage)
    (tmp_path / "out" / "result.txt").write_text("res")
    assert not stage.is_complete()
    with pytest.raises(IncompleteStage, match=r"result\.txt: is missing or cut short"):
        require_complete(tmp_path / "out", "prepare")


def test_a_folder_of_somebody_else_is_never_cleared(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="holds files that no stage wrote"), make_stage(tmp_path).writing():
        pass
    assert (tmp_path / "thesis.txt").exists()


def test_what_a_killed_writer_left_is_swept_away(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), make_stage(tmp_path / "out").writing():
        (tmp_path / "out" / ".result.txt.k3j.tmp").write_text("hal")
        (tmp_path / "out" / ".model.k3j.tmp").mkdir()
        raise RuntimeError("killed")
    complete(make_stage(tmp_path / "out"))
    assert list(make_stage(tmp_path / "out").manifest()["outputs"]) == ["result.txt"]


def test_killed_while_taking_the_folder(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "..stage.json.k3j.tmp").write_text("{")
    complete(make_stage(tmp_path / "out"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["manifest.json", "result.txt"]


def test_killed_while_clearing_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At whichever file the kill comes, the folder is still known to be a stage's, and the same command goes on."""

    class KilledError(BaseException):
        """Like SIGKILL, it is handled by nobody."""

    def attempt(folder: Path, moment: int) -> bool:
        complete(make_stage(folder))
        for name in ("a.txt", "z.txt", "part/b.txt"):
            write_text(folder / name, name)
        removed = 0

        def killing(remove: Callable[..., None]) -> Callable[..., None]:
            def call(*arguments: object, **options: object) -> None:
                nonlocal removed
                removed += 1
                if removed == moment:
                    raise KilledError
                remove(*arguments, **options)

            return call

        with monkeypatch.context() as patch:
            patch.setattr(os, "unlink", killing(os.unlink))
            patch.setattr(os, "rmdir", killing(os.rmdir))
            try:
                complete(make_stage(folder, value=2), "new")
            except KilledError:
                return True
        return False

    moment = 1
    while attempt(folder := tmp_path / f"out{moment}", moment):
        complete(make_stage(folder, value=2), "new")
        assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "result.txt"]
        moment += 1
    assert moment > 6, "there were too few moments to be killed at"


def test_the_digest_ignores_volatile_outputs(tmp_path: Path) -> None:
    digests = []
    for name, stamp in (("a", "10:00"), ("b", "11:00")):
        stage = make_stage(tmp_path / name)
        with stage.writing() as run:
            write_text(stage.output / "result.txt", "same")
            write_text(stage.output / "log.txt", stamp)
            run.volatile.add("log.txt")
        digests.append(stage.manifest()["digest"])
    assert digests[0] == digests[1]


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    write_text(target, "old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("ne")
        raise RuntimeError("killed")
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_json_with_nan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "x.json", {"accuracy": float("nan")})
    assert not (tmp_path / "x.json").exists()


def test_too_many_rejects_name_the_commonest_reason(tmp_path: Path) -> None:
    rejects = Rejects()
    for item in range(6):
        rejects.add(str(item), f"{item}.jpg", "truncated" if item else "not an image")
    rejects.write(tmp_path / "rejects.parquet")
    rejects.check(100, 0.1, "admissions", tmp_path / "rejects.parquet")
    with pytest.raises(TooManyRejects, match=r"6 of 10 admissions .* 5 x truncated"):
        rejects.check(10, 0.5, "admissions", tmp_path / "rejects.parquet")


def test_track_passes_every_item_on() -> None:
    assert list(track(iter(range(5)), 5, "counting", RunOptions())) == [0, 1, 2, 3, 4]


VICTIM = """
import sys, time
from pathlib import Path
from clinical_symile.stage import RunOptions, Stage, write_text
stage = Stage("prepare", Path(sys.argv[1]), inputs={}, config={}, options=RunOptions(quiet=True))
with stage.writing():
    for part in range(1000):
        write_text(stage.output / f"{part}.txt", "x" * 100_000)
"""


def test_kill_minus_nine_never_leaves_a_finished_looking_output(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", VICTIM, str(folder)])
    deadline = time.monotonic() + 60
    while not (folder / "3.txt").exists():
        assert time.monotonic() < deadline, "the victim never began"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (folder / MANIFEST).exists()
    assert json.loads((folder / STATE).read_text())["stage"] == "prepare"
    assert {path.stat().st_size for path in folder.glob("*.txt")} == {100_000}, "each file is whole or absent"

"""ECG records are opened once, whatever happens in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clinical_symile.cohort import ecg_checks
from clinical_symile.cohort.ecg_checks import check_ecgs
from clinical_symile.stage import RunOptions
from clinical_symile.types import EcgCondition

QUIET = RunOptions(quiet=True, jobs=1)


def examine(path: Path, root: Path) -> EcgCondition:
    """Stands for the real one: the header's text is the fault; notes that the record was opened."""
    with (root / "opened.txt").open("a") as opened:
        opened.write(f"{path.relative_to(root)}\n")
    text = path.with_suffix(".hea").read_text()
    return EcgCondition(fault=text or None, flat_leads=() if text else ("V2", "V4"))


def other_check(path: Path, root: Path) -> EcgCondition:
    return EcgCondition(fault="everything is bad")


def mended(path: Path, root: Path) -> EcgCondition:
    return EcgCondition()


def faulty(before: list[str], new: list[str]) -> list[str]:
    """What is opened when some records were opened before: of those only the ones that could not be used."""
    return [path for path in before if int(path[1:]) % 7 == 0] + new


@pytest.fixture
def records(tmp_path) -> list[str]:
    for number in range(100):
        (tmp_path / f"r{number}.hea").write_text("has missing samples" if number % 7 == 0 else "")
        (tmp_path / f"r{number}.dat").write_bytes(b"x")
    return [f"r{number}" for number in range(100)]


def opened(root: Path) -> list[str]:
    """What was opened since the last call."""
    file = root / "opened.txt"
    lines = file.read_text().split() if file.exists() else []
    file.unlink(missing_ok=True)
    return lines


def test_each_record_has_its_condition(tmp_path, records):
    found = check_ecgs(records, tmp_path, examine, None, QUIET)
    assert list(found) == records
    assert found["r7"] == EcgCondition(fault="has missing samples")
    assert found["r8"] == EcgCondition(flat_leads=("V2", "V4"))


def test_a_record_is_opened_once(tmp_path, records):
    log = tmp_path / "log" / "ecg_checks.jsonl"
    first = check_ecgs(records[:60], tmp_path, examine, log, QUIET)
    assert opened(tmp_path) == records[:60]
    second = check_ecgs(records, tmp_path, examine, log, QUIET)
    assert opened(tmp_path) == faulty(records[:60], records[60:])
    assert {path: second[path] for path in first} == first
    assert check_ecgs(records[1:4], tmp_path, examine, log, QUIET) == {path: first[path] for path in records[1:4]}
    assert opened(tmp_path) == []


def test_a_fault_is_never_remembered(tmp_path, records):
    """What was wrong may be mended without a trace in the record's own files: rights, or a signal file of another name."""
    log = tmp_path / "ecg_checks.jsonl"
    check_ecgs(records, tmp_path, other_check, log, QUIET)
    opened(tmp_path)
    assert check_ecgs(records, tmp_path, mended, log, QUIET) == dict.fromkeys(records, EcgCondition())


def test_the_log_is_for_this_user_alone(tmp_path, records):
    log = tmp_path / "log" / "ecg_checks.jsonl"
    check_ecgs(records, tmp_path, examine, log, QUIET)
    assert (log.stat().st_mode & 0o777, log.parent.stat().st_mode & 0o777) == (0o600, 0o700)


@pytest.mark.parametrize("suffix", [".hea", ".dat", ".mat"])
def test_a_record_that_changed_is_opened_again(tmp_path, records, suffix):
    log = tmp_path / "ecg_checks.jsonl"
    (tmp_path / "r5.mat").touch()
    check_ecgs(records[1:7], tmp_path, examine, log, QUIET)
    opened(tmp_path)
    os.utime(tmp_path / f"r5{suffix}", ns=(1, 1))
    (tmp_path / "r6.hea").write_text("is too short")
    assert check_ecgs(records[1:7], tmp_path, examine, log, QUIET)["r6"].fault == "is too short"
    assert opened(tmp_path) == ["r5", "r6"]
    check_ecgs(records[1:6], tmp_path, examine, log, QUIET)
    assert opened(tmp_path) == []


def test_what_another_check_or_folder_or_version_found_does_not_count(tmp_path, records, monkeypatch):
    log = tmp_path / "ecg_checks.jsonl"
    check_ecgs(records[1:2], tmp_path, mended, log, QUIET)
    assert check_ecgs(records[1:2], tmp_path, examine, log, QUIET)["r1"].flat_leads == ("V2", "V4")
    monkeypatch.setattr(ecg_checks, "__version__", "another")
    opened(tmp_path)
    check_ecgs(records[1:2], tmp_path, examine, log, QUIET)
    assert opened(tmp_path) == ["r1"]


def test_overwrite_opens_every_record_again(tmp_path, records):
    log = tmp_path / "ecg_checks.jsonl"
    check_ecgs(records, tmp_path, examine, log, QUIET)
    opened(tmp_path)
    check_ecgs(records, tmp_path, examine, log, RunOptions(quiet=True, jobs=1, overwrite=True))
    assert opened(tmp_path) == records


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_line_that_was_cut_short_costs_only_its_own_records(tmp_path, records, cut):
    log = tmp_path / "ecg_checks.jsonl"
    check_ecgs(records[:64], tmp_path, examine, log, QUIET)
    log.write_bytes(log.read_bytes().rstrip(b"\n")[:-cut])
    opened(tmp_path)
    whole = check_ecgs(records, tmp_path, examine, log, QUIET)
    assert opened(tmp_path) == faulty(records[:32], records[32:])
    assert check_ecgs(records, tmp_path, examine, log, QUIET) == whole
    assert opened(tmp_path) == faulty(records, [])


def test_the_result_does_not_depend_on_the_number_of_processes(tmp_path, records, monkeypatch):
    monkeypatch.setattr(ecg_checks, "_RECORDS_PER_PROCESS", 1)
    log = tmp_path / "ecg_checks.jsonl"
    two = check_ecgs(records, tmp_path, examine, log, RunOptions(quiet=True, jobs=2))
    assert two == check_ecgs(records, tmp_path, examine, None, QUIET)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_ecg_checks import QUIET, examine
from clinical_symile.cohort.ecg_checks import check_ecgs

def dying(path, root):
    if path.name == "r70":
        os.kill(os.getpid(), signal.SIGKILL)
    return examine(path, root)

dying.__qualname__ = "examine"
root = Path({root!r})
check_ecgs([f"r{{n}}" for n in range(100)], root, dying, root / "ecg_checks.jsonl", QUIET)
"""


def test_a_killed_run_goes_on_where_it_was(tmp_path, records):
    code = KILLED.format(tests=str(Path(__file__).parent), root=str(tmp_path))
    killed = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": os.getcwd()}, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert opened(tmp_path) == records[:70]
    found = check_ecgs(records, tmp_path, examine, tmp_path / "ecg_checks.jsonl", QUIET)
    assert opened(tmp_path) == faulty(records[:64], records[64:])
    assert found == check_ecgs(records, tmp_path, examine, None, QUIET)

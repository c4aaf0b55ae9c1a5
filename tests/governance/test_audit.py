"""The audit log keeps everything it acknowledged, and shows every kind of tampering."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clinical_symile.errors import ClinicalSymileError
from clinical_symile.governance import AuditEvent, AuditLog

QUERY = {"event": "query", "model_version": "symile-mimic/1", "gallery_digest": "ab" * 32, "positions": [3, 1, 2]}


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    log = AuditLog(tmp_path / "audit.db")
    for position in range(6):
        log.append({**QUERY, "positions": [position]})
    return log


def records(log: AuditLog) -> list[tuple[int, dict[str, object]]]:
    with sqlite3.connect(log.path) as connection:
        return [(seq, json.loads(body)) for seq, body in connection.execute("SELECT seq, body FROM audit ORDER BY seq")]


def edit(log: AuditLog, *statements: str) -> None:
    """What an attacker does who can write the file: the triggers are no obstacle."""
    with sqlite3.connect(log.path) as connection:
        connection.executescript("DROP TRIGGER audit_keeps_records; DROP TRIGGER audit_loses_none;" + ";".join(statements))
    connection.close()


def test_a_record_says_what_was_asked_and_shown_and_by_whom(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.db")
    assert log.append({**QUERY, "actor": "dr.who", "query_digest": log.fingerprint(b"ecg", b"labs")}) == 1
    ((_, body),) = records(log)
    assert body["positions"] == [3, 1, 2]
    assert body["gallery_digest"] == "ab" * 32
    assert len(str(body["actor"])) == 16
    assert b"dr.who" not in log.path.read_bytes()
    assert log.verify().intact


def test_the_same_actor_and_the_same_query_are_recognised(tmp_path: Path) -> None:
    log, other = AuditLog(tmp_path / "a" / "audit.db"), AuditLog(tmp_path / "b" / "audit.db")
    for actor in ("one", "two", "one"):
        log.append({"event": "start", "actor": actor})
    actors = [body["actor"] for _, body in records(log)]
    assert actors[0] == actors[2] != actors[1]
    assert log.fingerprint(b"x", b"y") == log.fingerprint(b"x", b"y") != log.fingerprint(b"xy")
    assert log.fingerprint(b"x") != other.fingerprint(b"x"), "without the log's key a fingerprint must identify nothing"


@pytest.mark.parametrize(
    "event",
    [
        {"event": "query", "subject_id": 10032725},
        {"event": "query", "note": "patient in room 3"},
        {"event": "query", "gallery_digest": "10032725"},
        {"event": "query", "model_version": "p10032725 of today"},
        {"event": "anything"},
        {"event": "query", "positions": [-1]},
    ],
)
def test_nothing_else_can_be_recorded(tmp_path: Path, event: dict[str, object]) -> None:
    log = AuditLog(tmp_path / "audit.db")
    with pytest.raises(ClinicalSymileError, match="not allowed") as error:
        log.append(event)
    assert "10032725" not in str(error.value)
    assert not log.path.exists()


def test_an_occasion_is_recorded_once(tmp_path: Path) -> None:
    """A page runs its script again at every touch; that is not a new query."""
    log = AuditLog(tmp_path / "audit.db")
    assert {log.append(QUERY, once="session-1/button-1") for _ in range(50)} == {1}
    assert log.append(QUERY, once="session-1/button-2") == 2
    assert log.verify().records == 2
    assert b"session-1" not in log.path.read_bytes()


def test_files_are_the_owners_alone(log: AuditLog) -> None:
    for path in (log.path, log.key_file, log.anchors):
        assert path.stat().st_mode & 0o077 == 0, path.name


def test_the_database_refuses_change_and_deletion(log: AuditLog) -> None:
    with sqlite3.connect(log.path) as connection:
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute("UPDATE audit SET body = '{}'")
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute("DELETE FROM audit")


TAMPERING: list[tuple[str, str, Callable[[AuditLog], None]]] = [
    ("edit", "record 3 was changed", lambda log: edit(log, "UPDATE audit SET body = replace(body, '2', '9') WHERE seq = 3")),
    ("clock", "record 2 was changed", lambda log: edit(log, "UPDATE audit SET time = '2020-01-01T00:00:00' WHERE seq = 2")),
    ("delete", "record 4 is missing", lambda log: edit(log, "DELETE FROM audit WHERE seq = 4")),
    (
        "delete and renumber",
        "record 4 was changed",
        lambda log: edit(log, "DELETE FROM audit WHERE seq = 4", "UPDATE audit SET seq = seq - 1 WHERE seq > 4"),
    ),
    (
        "reorder",
        "record 2 was changed",
        lambda log: edit(
            log,
            "UPDATE audit SET seq = 100 WHERE seq = 2",
            "UPDATE audit SET seq = 2 WHERE seq = 3",
            "UPDATE audit SET seq = 3 WHERE seq = 100",
        ),
    ),
    (
        "insert",
        "record 7 was changed",
        lambda log: edit(log, "INSERT INTO audit VALUES (7, '2026-01-01', NULL, '{\"event\":\"view\"}', 'ff')"),
    ),
    ("truncate", "the records after 4 are gone", lambda log: edit(log, "DELETE FROM audit WHERE seq > 4")),
    ("empty", "the records after 0 are gone", lambda log: edit(log, "DELETE FROM audit")),
    ("remove the file", "the log is missing", lambda log: log.path.unlink()),
    ("exchange the key", "record 1 was changed", lambda log: log.key_file.write_bytes(b"another key")),
    ("overwrite with noise", "cannot be read", lambda log: log.path.write_bytes(os.urandom(4096))),
    ("remove the key", "cannot be read", lambda log: log.key_file.unlink()),
]


@pytest.mark.parametrize(("problem", "tamper"), [case[1:] for case in TAMPERING], ids=[case[0] for case in TAMPERING])
def test_every_kind_of_tampering_is_found(log: AuditLog, problem: str, tamper: Callable[[AuditLog], None]) -> None:
    assert log.verify().intact
    tamper(log)
    verdict = log.verify()
    assert not verdict.intact
    assert problem in verdict.problem


def test_a_head_kept_elsewhere_shows_a_tail_that_was_cut_with_its_anchors(log: AuditLog) -> None:
    """Who can write the log and its anchors can cut both; the head that an operator noted down is out of reach."""
    head = log.verify().head
    edit(log, "DELETE FROM audit WHERE seq > 4")
    log.anchors.write_text("".join(log.anchors.read_text().splitlines(keepends=True)[:4]))
    assert log.verify().intact, "without a head from elsewhere this cannot be seen"
    assert "head is not in the log" in log.verify(head).problem


def test_a_lost_log_is_not_silently_begun_anew(log: AuditLog) -> None:
    log.path.unlink()
    with pytest.raises(ClinicalSymileError, match="anchors are here"):
        log.append(QUERY)
    assert not log.path.exists()


def test_a_log_that_cannot_be_written_is_an_error(log: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ClinicalSymileError, match="nothing may be shown"):
        log.append(QUERY)
    log.path.write_bytes(b"not a database")
    with pytest.raises(ClinicalSymileError, match="nothing may be shown"):
        log.append(QUERY)


def test_a_crash_between_record_and_anchor_is_no_tampering(log: AuditLog) -> None:
    lines = log.anchors.read_text().splitlines(keepends=True)
    log.anchors.write_text("".join(lines[:-1]) + lines[-1][:20])
    assert log.verify().intact
    log.append(QUERY)
    assert log.verify() == log.verify(log.verify().head)
    assert log.verify().records == 7


def test_months_are_counted(log: AuditLog) -> None:
    log.append(AuditEvent(event="view"))
    ((month, counts),) = log.monthly_counts().items()
    assert counts == {"query": 6, "view": 1}
    assert len(month) == 7
    assert AuditLog(log.path.with_name("none.db")).monthly_counts() == {}


def test_threads_share_a_log(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.db")
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda _: log.append(QUERY), range(40)))
    assert sorted(numbers) == list(range(1, 41))
    assert log.verify().intact


WRITER = """
import sys
from pathlib import Path
from clinical_symile.governance import AuditLog
log = AuditLog(Path(sys.argv[1]))
for _ in range(int(sys.argv[2])):
    print(log.append({"event": "view"}), flush=True)
"""


def writer(log: AuditLog, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(log.path), str(count)], stdout=subprocess.PIPE, text=True)


def test_processes_share_a_log_from_its_first_record_on(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.db")
    writers = [writer(log, 25) for _ in range(3)]
    numbers = [int(line) for process in writers for line in process.communicate()[0].split()]
    assert sorted(numbers) == list(range(1, 76))
    assert log.verify().intact
    assert log.verify().records == 75


def test_a_killed_writer_loses_nothing_it_acknowledged(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.db")
    acknowledged = 0
    for round_ in range(4):
        process = writer(log, 10_000)
        assert process.stdout is not None
        acknowledged = int(process.stdout.readline())
        time.sleep(0.05 + 0.03 * round_)
        process.send_signal(signal.SIGKILL)
        rest = process.communicate()[0].split("\n")
        acknowledged = max([acknowledged, *(int(line) for line in rest[:-1] if line)])
        verdict = log.verify()
        assert verdict.intact, verdict.problem
        assert verdict.records >= acknowledged

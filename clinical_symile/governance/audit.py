"""The audit log: who asked what of which model and gallery, and what was shown. Append-only, chained, without identifiers.

Each record carries a message authentication code over itself and the code of the record before it::

    mac_n = HMAC-SHA256(key, canonical(seq, time, once, body) || mac_{n-1}),    mac_0 = HMAC-SHA256(key, "genesis")

so an edited, deleted, inserted or reordered record breaks the chain. A chain cannot see that its tail was cut off; for this
every code is also written to a second file, the anchors, and ``verify`` takes a head that was kept elsewhere.

A ranking may be shown only after its record is on the disk: an event that cannot be written is an error.
"""

from __future__ import annotations

import datetime as dt
import getpass
import hashlib
import hmac
import json
import os
import re
import secrets
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clinical_symile.errors import ClinicalSymileError
from clinical_symile.stage import atomic_path, file_lock

_SCHEMA = """
CREATE TABLE IF NOT EXISTS audit (
  seq INTEGER PRIMARY KEY, time TEXT NOT NULL, once TEXT UNIQUE, body TEXT NOT NULL, mac TEXT NOT NULL UNIQUE);
CREATE TRIGGER IF NOT EXISTS audit_keeps_records BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS audit_loses_none BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'append-only'); END;
"""
_ANCHOR = re.compile(r"(\d+) ([0-9a-f]{64})")

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{16,64}$")]


class AuditEvent(BaseModel):
    """One event of the dashboard. There is no field for an identifier or for free text, and other fields are refused.

    Attributes:
        event: what happened.
        actor: who did it; stored as a keyed hash. Default: the local user.
        model_version: the version that answered, such as ``symile-mimic/3``.
        model_digest: the weights that answered.
        gallery_digest: the gallery that was searched.
        query_digest: ``AuditLog.fingerprint`` of what was asked; a plain hash of a known file would identify the patient.
        modalities: what the query consisted of.
        positions: positions in the gallery of what was shown, best first.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    event: Literal["start", "query", "view", "refusal", "stop"]
    actor: str | None = Field(None, max_length=256)
    model_version: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}/\d{1,9}$")] | None = None
    model_digest: Digest | None = None
    gallery_digest: Digest | None = None
    query_digest: Digest | None = None
    modalities: tuple[Literal["cxr", "ecg", "labs"], ...] = ()
    positions: tuple[Annotated[int, Field(ge=0)], ...] = ()


@dataclass(frozen=True)
class AuditVerdict:
    """Whether the log is what was written. ``head`` is worth keeping elsewhere: it proves later that no tail was cut off."""

    intact: bool
    records: int
    head: str
    problem: str = ""


class AuditLog:
    """An audit log on disk. Safe for several threads and processes; holds no connection open.

    Args:
        path: the sqlite file. Its key and its anchors lie beside it, readable by the owner only.
        key_file: the key, if it lies elsewhere. Who can read the key can forge the log, so a hospital keeps it elsewhere.
    """

    def __init__(self, path: Path, key_file: Path | None = None) -> None:
        self.path = path
        self.key_file = key_file or path.with_suffix(".key")
        self.anchors = path.with_suffix(".anchors")

    def append(self, event: AuditEvent | Mapping[str, Any], *, once: str | None = None) -> int:
        """Records an event; returns when it is on the disk.

        Args:
            event: the event, or its fields.
            once: names the occasion: a second event under the same name is not recorded again (a page that runs twice).

        Returns:
            The record's number.

        Raises:
            ClinicalSymileError: the event has a field it should not have, or could not be written.
        """
        try:
            checked = event if isinstance(event, AuditEvent) else AuditEvent.model_validate(event)
        except ValidationError as error:
            wrong = ", ".join(sorted({".".join(str(part) for part in item["loc"]) for item in error.errors()}))
            raise ClinicalSymileError(f"audit event: not allowed in the field(s) {wrong}; nothing was recorded") from None
        fields = checked.model_dump(mode="json", exclude_defaults=True, exclude={"actor"})
        with self._failing_closed():
            key = self._prepare()
            fields["actor"] = _keyed(key, checked.actor or getpass.getuser())[:16]
            return self._write(key, _canonical(fields), _keyed(key, once) if once is not None else None)

    def fingerprint(self, *parts: bytes) -> str:
        """A keyed digest of what was asked, the same each time for the same input, of no use to anyone without the key.

        Raises:
            ClinicalSymileError: the log's key could not be made or read.
        """
        inner = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).digest()
        with self._failing_closed():
            return hmac.digest(self._prepare(), inner, "sha256").hex()

    def verify(self, head: str | None = None) -> AuditVerdict:
        """Reads the whole log and checks it against its key, its anchors and, if given, a head that was kept elsewhere."""
        if not self.path.exists():
            problem = "the log is missing, but its anchors are here" if self.anchors.exists() else ""
            return AuditVerdict(not problem, 0, "", problem)
        try:
            key = self.key_file.read_bytes()
            mac, count, kept = _genesis(key), 0, self._read_anchors()
            head_seen = head is None
            for count, row in enumerate(self._rows(), 1):
                mac = _mac(key, row["seq"], row["time"], row["once"], row["body"], mac)
                if row["seq"] != count:
                    return AuditVerdict(False, count, mac, f"record {count} is missing: the next one is number {row['seq']}")
                if not hmac.compare_digest(mac, row["mac"]):
                    return AuditVerdict(False, count, mac, f"record {count} was changed, or stands in another record's place")
                if kept.pop(count, {mac}) != {mac}:
                    return AuditVerdict(False, count, mac, f"record {count} is not the one that was anchored")
                head_seen = head_seen or mac == head
        except (sqlite3.Error, OSError) as error:
            return AuditVerdict(False, 0, "", f"cannot be read: {error}")
        if kept:
            return AuditVerdict(False, count, mac, f"the records after {count} are gone: record {max(kept)} was anchored")
        if not head_seen:
            return AuditVerdict(False, count, mac, "the given head is not in the log: records are gone, or it is another log")
        return AuditVerdict(True, count, mac)

    def monthly_counts(self) -> dict[str, dict[str, int]]:
        """Month (``2026-11``) -> event -> number of records."""
        counts: dict[str, dict[str, int]] = {}
        for row in self._rows() if self.path.exists() else ():
            month = counts.setdefault(row["time"][:7], {})
            event = json.loads(row["body"])["event"]
            month[event] = month.get(event, 0) + 1
        return counts

    @contextmanager
    def _failing_closed(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise ClinicalSymileError(
                f"{self.path}: the audit log cannot be written ({error}), so nothing may be shown; make room or mend its rights"
            ) from error

    def _prepare(self) -> bytes:
        """Makes the log, if it is not there, and returns its key."""
        if not (self.path.exists() and self.key_file.exists()):
            # Two first users at once: the second finds everything made.
            with file_lock(self.path.with_suffix(".lock")):
                if self.path.exists() and not self.key_file.exists():
                    raise ClinicalSymileError(f"{self.key_file}: the key of the audit log is missing; put it back")
                if self.anchors.exists() and not self.path.exists():
                    raise ClinicalSymileError(f"{self.path}: is missing, but its anchors are here; put it back or move both away")
                if not self.key_file.exists():
                    with atomic_path(self.key_file) as temporary:  # made with rights 0600
                        temporary.write_bytes(secrets.token_bytes(32))
                if not self.path.exists():
                    with atomic_path(self.path) as temporary, closing(sqlite3.connect(temporary)) as connection:
                        connection.executescript("PRAGMA journal_mode=WAL;" + _SCHEMA)
        return self.key_file.read_bytes()

    def _write(self, key: bytes, body: str, once: str | None) -> int:
        with self._connect() as connection:
            connection.execute("BEGIN IMMEDIATE")  # reads the head under the lock under which it writes
            if once is not None:
                earlier = connection.execute("SELECT seq FROM audit WHERE once = ?", (once,)).fetchone()
                if earlier:
                    connection.execute("ROLLBACK")
                    return int(earlier["seq"])
            last = connection.execute("SELECT seq, mac FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
            seq, previous = (last["seq"] + 1, last["mac"]) if last else (1, _genesis(key))
            time = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
            mac = _mac(key, seq, time, once, body, previous)
            connection.execute("INSERT INTO audit VALUES (?, ?, ?, ?, ?)", (seq, time, once, body, mac))
            connection.execute("COMMIT")
        self._anchor(seq, mac)
        return seq

    def _anchor(self, seq: int, mac: str) -> None:
        descriptor = os.open(self.anchors, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, f"{seq} {mac}\n".encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _read_anchors(self) -> dict[int, set[str]]:
        kept: dict[int, set[str]] = {}
        for line in self.anchors.read_text(encoding="ascii").splitlines() if self.anchors.exists() else ():
            match = _ANCHOR.fullmatch(line)
            if match:  # a line that a crash cut short anchors nothing
                kept.setdefault(int(match[1]), set()).add(match[2])
        return kept

    def _rows(self) -> Iterator[sqlite3.Row]:
        with self._connect() as connection:
            yield from connection.execute("SELECT seq, time, once, body, mac FROM audit ORDER BY seq")

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        # One connection per call: a dashboard's threads must not share one, and opening costs less than the fsync.
        with closing(sqlite3.connect(self.path, timeout=30, isolation_level=None)) as connection:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA synchronous=FULL")
            yield connection


def _genesis(key: bytes) -> str:
    return _keyed(key, "genesis")


def _mac(key: bytes, seq: int, time: str, once: str | None, body: str, previous: str) -> str:
    return _keyed(key, _canonical([seq, time, once, body]) + previous)


def _keyed(key: bytes, text: str) -> str:
    return hmac.digest(key, text.encode(), "sha256").hex()


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)

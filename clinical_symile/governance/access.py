"""Who may see credentialed data: the attestation of one person, kept on that person's account.

PhysioNet credentials people, not machines: everyone who sees MIMIC images needs an agreement and training of their own.
"""

from __future__ import annotations

import datetime as dt
import json
import os
from pathlib import Path

from pydantic import Field

from clinical_symile.errors import ConfigError, GateRefused
from clinical_symile.governance.documents import Document, validated
from clinical_symile.governance.policy import Policy
from clinical_symile.stage import digest_json, write_json


class Attestation(Document):
    """What a person states about their own access to credentialed data."""

    physionet_username: str = Field(pattern=r"^[A-Za-z0-9_.@-]{1,64}$")
    dua_version: str = Field(min_length=1, description="of the Credentialed Health Data Use Agreement")
    dua_signed: dt.date
    training_expires: dt.date = Field(description="of the human-subjects training certificate (CITI)")

    @property
    def digest(self) -> str:
        """What the audit log may hold of it."""
        return digest_json(self.model_dump(mode="json"))


def attestation_file() -> Path:
    """Where this user's attestation is: ``CLINICAL_SYMILE_ATTESTATION``, or in the user's configuration folder."""
    chosen = os.environ.get("CLINICAL_SYMILE_ATTESTATION")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "clinical-symile" / "attestation.json"


def write_attestation(attestation: Attestation, file: Path | None = None) -> Path:
    """Writes an attestation, readable by its owner only."""
    file = file or attestation_file()
    write_json(file, attestation.model_dump(mode="json"))  # atomic writing makes files with rights 0600
    return file


def load_attestation(policy: Policy, file: Path | None = None, today: dt.date | None = None) -> Attestation:
    """The attestation of this user, if it is one that counts today.

    Args:
        policy: says which agreements count.
        file: default ``attestation_file()``.
        today: default the current date in UTC.

    Raises:
        GateRefused: there is none, others can read or change it, or it has expired. The message says what to do.
    """
    file = file or attestation_file()
    remedy = "run 'clinical-symile governance attest' after signing the agreement on physionet.org"
    try:
        status = file.stat()
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise GateRefused(f"{file}: there is no attestation of access to credentialed data; {remedy}") from None
    except (OSError, ValueError):
        raise GateRefused(f"{file}: is not a readable attestation; {remedy}") from None
    if status.st_mode & 0o077 or status.st_uid != os.getuid():
        raise GateRefused(f"{file}: must belong to this user and be closed to others; chmod 600 it, or {remedy}")
    try:
        attestation = validated(Attestation, content, file)
    except ConfigError as error:
        raise GateRefused(f"{error}; {remedy}") from None
    try:
        require_counting(attestation, policy, today)
    except GateRefused as error:
        raise GateRefused(f"{file}: {error}") from None
    return attestation


def require_counting(attestation: Attestation, policy: Policy, today: dt.date | None = None) -> None:
    """Refuses an attestation that does not count today, wherever it is kept.

    Raises:
        GateRefused: its agreement is not one that counts or not yet signed, or the training has expired.
    """
    today = today or dt.datetime.now(dt.UTC).date()
    if attestation.dua_version not in policy.attestation.dua_versions:
        accepted = ", ".join(policy.attestation.dua_versions)
        raise GateRefused(f"agreement {attestation.dua_version} does not count (accepted: {accepted}); sign the current one")
    if attestation.dua_signed > today:
        raise GateRefused(f"the agreement is dated {attestation.dua_signed}, which is in the future; correct it")
    if attestation.training_expires < today:
        raise GateRefused(
            f"the training expired on {attestation.training_expires}; renew it on physionet.org, "
            "then run 'clinical-symile governance attest'"
        )

"""An attestation counts for one person, for one agreement, and not for ever."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pytest

from clinical_symile.cli.govern import attest
from clinical_symile.errors import GateRefused
from clinical_symile.governance import Attestation, attestation_file, load_attestation, load_policy, write_attestation

TODAY = dt.date(2026, 11, 24)
GOOD = {
    "physionet_username": "a.researcher",
    "dua_version": "1.5.0",
    "dua_signed": "2026-01-10",
    "training_expires": "2027-03-01",
}


def test_an_attestation_is_written_for_its_owner_and_read_again(tmp_path: Path) -> None:
    attestation = Attestation.model_validate(GOOD)
    file = write_attestation(attestation, tmp_path / "deep" / "attestation.json")
    assert file.stat().st_mode & 0o777 == 0o600
    assert load_attestation(load_policy(), file, TODAY) == attestation


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"training_expires": "2026-11-23"}, "training expired on 2026-11-23"),
        ({"dua_version": "1.4.0"}, r"agreement 1\.4\.0 does not count"),
        ({"dua_signed": "2027-01-01"}, "in the future"),
        ({"physionet_username": ""}, "physionet_username"),
        ({"supervisor": "x"}, "supervisor"),
    ],
)
def test_one_that_does_not_count_is_refused(tmp_path: Path, change: dict[str, str], message: str) -> None:
    file = tmp_path / "attestation.json"
    file.write_text(json.dumps({**GOOD, **change}), encoding="utf-8")
    file.chmod(0o600)
    with pytest.raises(GateRefused, match=message):
        load_attestation(load_policy(), file, TODAY)


def test_attesting_anew_does_not_lose_one_that_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "attestation.json"
    monkeypatch.setenv("CLINICAL_SYMILE_ATTESTATION", str(file))
    write_attestation(Attestation.model_validate(GOOD))
    kept = file.read_bytes()
    with pytest.raises(GateRefused, match="training expired"):
        attest("a.researcher", "1.5.0", dt.datetime(2026, 1, 10), dt.datetime(2026, 2, 1))
    assert file.read_bytes() == kept


def test_training_counts_on_its_last_day(tmp_path: Path) -> None:
    file = write_attestation(Attestation.model_validate({**GOOD, "training_expires": TODAY}), tmp_path / "a.json")
    load_attestation(load_policy(), file, TODAY)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660, 0o606])
def test_one_that_others_can_open_is_refused(tmp_path: Path, mode: int) -> None:
    file = write_attestation(Attestation.model_validate(GOOD), tmp_path / "a.json")
    file.chmod(mode)
    with pytest.raises(GateRefused, match="chmod 600"):
        load_attestation(load_policy(), file, TODAY)


def test_none_or_no_json_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(GateRefused, match="clinical-symile governance attest"):
        load_attestation(load_policy(), tmp_path / "none.json", TODAY)
    file = tmp_path / "a.json"
    file.write_text("{", encoding="utf-8")
    with pytest.raises(GateRefused, match="not a readable attestation"):
        load_attestation(load_policy(), file, TODAY)


def test_its_place_belongs_to_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLINICAL_SYMILE_ATTESTATION", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert attestation_file() == tmp_path / "clinical-symile" / "attestation.json"
    monkeypatch.setenv("CLINICAL_SYMILE_ATTESTATION", str(tmp_path / "mine.json"))
    assert attestation_file() == tmp_path / "mine.json"

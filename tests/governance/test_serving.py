"""The gate of serving: a fixture that may be shown, and one defect for each check."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from clinical_symile.errors import GateRefused
from clinical_symile.governance import Attestation, AuditLog, Service, check_serving, load_policy, write_attestation
from clinical_symile.governance.evidence import model_digest

TODAY = load_policy().dependencies.as_of


@pytest.fixture
def service(model_dir: Path, tmp_path: Path) -> Service:
    digest = model_digest(model_dir)
    return Service(
        host="127.0.0.1",
        model_dir=model_dir,
        registered_digest=digest,
        reviewed_on=TODAY - dt.timedelta(days=30),
        gallery={"access": "synthetic", "digest": "9" * 64, "inputs": {"model": digest}},
        audit_log=tmp_path / "audit.db",
        attestation=tmp_path / "attestation.json",
        today=TODAY,
    )


def failed(service: Service) -> list[str]:
    return [result.id for result in check_serving(service).results if not result.passed]


def test_a_good_service_may_be_shown(service: Service) -> None:
    AuditLog(service.audit_log).append({"event": "start"})
    verdict = check_serving(service)
    assert verdict.require().subject["gallery"] == "9" * 64
    assert not verdict.warnings


def _tampered_log(service: Service) -> Service:
    AuditLog(service.audit_log).append({"event": "start"})
    service.audit_log.unlink()
    return service


def _changed_weights(service: Service) -> Service:
    (service.model_dir / "model.safetensors").write_bytes(b"others!")
    return service


def _pickle(service: Service) -> Service:
    (service.model_dir / "model.pkl").write_bytes(b"")
    return service


@pytest.mark.parametrize(
    ("checks", "defect"),
    [
        (["S02"], lambda service: replace(service, host="0.0.0.0")),
        (["S02"], lambda service: replace(service, host="")),
        (["S05"], lambda service: replace(service, gallery={**service.gallery, "access": "credentialed"})),
        (["S05"], lambda service: replace(service, gallery={**service.gallery, "access": None})),
        (["E07"], lambda service: replace(service, gallery={**service.gallery, "inputs": {"model": "0" * 64}})),
        (["E07"], lambda service: replace(service, registered_digest="0" * 64)),
        (["C06"], lambda service: replace(service, reviewed_on=TODAY - dt.timedelta(days=181))),
        (["S03"], _tampered_log),
        (["M02"], _changed_weights),
        (["M01", "M02"], _pickle),
        (["M06.age"], lambda service: replace(service, today=TODAY + dt.timedelta(days=91))),
    ],
)
def test_each_check_catches_its_own_defect(service: Service, checks: list[str], defect: Callable[[Service], Service]) -> None:
    assert failed(defect(service)) == checks


def test_credentialed_data_needs_an_attestation(service: Service) -> None:
    credentialed = replace(service, gallery={**service.gallery, "access": "credentialed"})
    with pytest.raises(GateRefused, match="clinical-symile governance attest"):
        check_serving(credentialed).require()
    attestation = Attestation(
        physionet_username="someone", dua_version="1.5.0", dua_signed=TODAY, training_expires=TODAY + dt.timedelta(days=100)
    )
    assert service.attestation is not None
    write_attestation(attestation, service.attestation)
    assert check_serving(credentialed).require().passed
    later = replace(credentialed, today=TODAY + dt.timedelta(days=101))
    assert "S05" in [result.id for result in check_serving(later).refusals]

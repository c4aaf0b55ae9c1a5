"""The gate of serving: what must hold before the dashboard shows anything."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clinical_symile.errors import GateRefused
from clinical_symile.governance.access import load_attestation
from clinical_symile.governance.audit import AuditLog
from clinical_symile.governance.checks import CheckResult, Verdict
from clinical_symile.governance.documents import load_intended_use
from clinical_symile.governance.evidence import installed_packages, model_digest
from clinical_symile.governance.integrity import (
    checksums_agree,
    deny_list_is_fresh,
    intended_use_is_research,
    no_denied_dependency,
    only_plain_files,
)
from clinical_symile.governance.policy import Policy, load_policy


@dataclass(frozen=True)
class Service:
    """What is about to be shown, and how.

    Attributes:
        host: the address that the dashboard listens on.
        model_dir: the folder of the model that will answer.
        registered_digest: the digest under which the registry knows it.
        reviewed_on: when a person last gave it its alias; its card was read then.
        gallery: the gallery's manifest.
        audit_log: where the log is.
        attestation: the viewer's attestation; default: the file of this user.
        today: default the current date in UTC.
    """

    host: str
    model_dir: Path
    registered_digest: str
    reviewed_on: dt.date
    gallery: Mapping[str, Any]
    audit_log: Path
    attestation: Path | None = None
    today: dt.date = field(default_factory=lambda: dt.datetime.now(dt.UTC).date())


def check_serving(service: Service, policy: Policy | None = None) -> Verdict:
    """Judges whether a model and its gallery may be shown. ``check_serving(...).require()`` refuses what may not.

    Args:
        service: what is about to be shown.
        policy: default: the installed one.
    """
    policy = policy or load_policy()
    results = (
        listens_on_loopback(service, policy),
        viewer_may_see(service, policy),
        gallery_is_of_this_model(service),
        card_is_recent(service, policy),
        audit_log_is_intact(service),
        only_plain_files(service.model_dir),
        checksums_agree(service.model_dir),
        no_denied_dependency(installed_packages(), policy),
        deny_list_is_fresh(policy, service.today),
        intended_use_is_research(load_intended_use(), policy),
    )
    subject = {"model": service.registered_digest, "gallery": str(service.gallery.get("digest", "")), "policy": policy.digest}
    return Verdict("serve", subject, results)


def listens_on_loopback(service: Service, policy: Policy) -> CheckResult:
    """S02: the dashboard can be reached from this machine only."""
    good = service.host in policy.serving.hosts
    remedy = "" if good else f"listen on {policy.serving.hosts[0]}, and let a gateway with a login reach it"
    return CheckResult("S02", good, "block", f"listens on {service.host or 'all interfaces'}", "server.address", remedy)


def viewer_may_see(service: Service, policy: Policy) -> CheckResult:
    """S05: the gallery's access class is open to anyone, or the viewer has an attestation that counts."""
    access = service.gallery.get("access")
    if access in policy.serving.without_attestation:
        return CheckResult("S05", True, "block", f"the gallery is {access}: no attestation is needed", "gallery manifest")
    if access != "credentialed":
        remedy = "run 'clinical-symile index --overwrite' on a dataset whose access class is known"
        return CheckResult("S05", False, "block", f"the gallery's access class is {access!r}", "gallery manifest", remedy)
    try:
        attestation = load_attestation(policy, service.attestation, service.today)
    except GateRefused as refusal:
        remedy = "each viewer of credentialed data needs an attestation of their own: clinical-symile governance attest"
        return CheckResult("S05", False, "block", f"the gallery is credentialed: {refusal}", "attestation", remedy)
    found = f"the gallery is credentialed, the viewer attested (training valid until {attestation.training_expires})"
    return CheckResult("S05", True, "block", found, attestation.digest)


def gallery_is_of_this_model(service: Service) -> CheckResult:
    """E07: model, registry and gallery agree on one digest."""
    digests = {
        "the model": model_digest(service.model_dir),
        "the registry's version": service.registered_digest,
        "the gallery's model": str(service.gallery.get("inputs", {}).get("model")),
    }
    good = len(set(digests.values())) == 1
    found = "; ".join(f"{name} is {digest[:12]}" for name, digest in digests.items())
    remedy = "" if good else "run 'clinical-symile index' for the run of this version, or promote the version of this gallery"
    return CheckResult("E07", good, "block", found, "gallery manifest: inputs.model", remedy)


def card_is_recent(service: Service, policy: Policy) -> CheckResult:
    """C06: a person looked at the version not longer ago than the policy allows."""
    age = (service.today - service.reviewed_on).days
    good = age <= policy.card.max_age_days
    found = f"the card was read {age} days ago (at most {policy.card.max_age_days})"
    remedy = "" if good else "read its card again, then 'clinical-symile registry promote' it again"
    return CheckResult("C06", good, "block", found, "registry: reviewed_on", remedy)


def audit_log_is_intact(service: Service) -> CheckResult:
    """S03: the audit log verifies from its first record to its last."""
    verdict = AuditLog(service.audit_log).verify()
    found = verdict.problem or f"{verdict.records} records verify"
    remedy = "" if verdict.intact else "keep the file as evidence, find out what happened, and start a new log elsewhere"
    return CheckResult("S03", verdict.intact, "block", found, str(service.audit_log), remedy)

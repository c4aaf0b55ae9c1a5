"""Policy, checks, cards, attestations, audit log: the code that enforces the documents in the folder ``governance/``."""

from clinical_symile.governance.access import (
    Attestation,
    attestation_file,
    load_attestation,
    require_counting,
    write_attestation,
)
from clinical_symile.governance.audit import AuditEvent, AuditLog, AuditVerdict
from clinical_symile.governance.card import ModelCard, render_model_card
from clinical_symile.governance.checks import CheckResult, Verdict
from clinical_symile.governance.data_card import render_data_card
from clinical_symile.governance.documents import (
    IntendedUse,
    Risk,
    RiskRegister,
    load_intended_use,
    load_risk_register,
)
from clinical_symile.governance.evidence import Evidence
from clinical_symile.governance.policy import Policy, load_policy
from clinical_symile.governance.privacy import RedactingFilter, find_identifiers, redact, suppress_small_cells, suppress_table
from clinical_symile.governance.registration import Approval, approve_registration, check_registration
from clinical_symile.governance.serving import Service, check_serving
from clinical_symile.governance.upkeep import check_upkeep

__all__ = [
    "Approval",
    "Attestation",
    "AuditEvent",
    "AuditLog",
    "AuditVerdict",
    "CheckResult",
    "Evidence",
    "IntendedUse",
    "ModelCard",
    "Policy",
    "RedactingFilter",
    "Risk",
    "RiskRegister",
    "Service",
    "Verdict",
    "approve_registration",
    "attestation_file",
    "check_registration",
    "check_serving",
    "check_upkeep",
    "find_identifiers",
    "load_attestation",
    "load_intended_use",
    "load_policy",
    "load_risk_register",
    "redact",
    "render_data_card",
    "render_model_card",
    "require_counting",
    "suppress_small_cells",
    "suppress_table",
    "write_attestation",
]

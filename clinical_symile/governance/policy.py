"""The policy: ``governance/policy.yaml`` as typed values that every gate reads."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from pydantic import Field, field_validator

from clinical_symile.config import AccessClass
from clinical_symile.governance.documents import Document, read_yaml, validated
from clinical_symile.resources import resource_root
from clinical_symile.stage import digest_json


class RegistrationRules(Document):
    """What a run's evaluation must show before it becomes a version."""

    metric: str = Field(min_length=1)
    interval_above_chance: bool
    confidence_min: float = Field(gt=0.5, lt=1)
    bootstrap_min: int = Field(ge=100)
    subjects_min: int = Field(ge=2)
    compare_with: dict[str, tuple[str, ...]]


class IntendedUseRules(Document):
    """What the statement of intended use must say."""

    statement_contains: str = Field(min_length=1)
    out_of_scope: tuple[str, ...] = Field(min_length=1)


class CardRules(Document):
    """When a model card is too old."""

    max_age_days: int = Field(ge=1)


class ServingRules(Document):
    """Where the dashboard may listen, and for whom a gallery may be opened."""

    hosts: tuple[str, ...] = Field(min_length=1)
    without_attestation: tuple[AccessClass, ...]

    @field_validator("without_attestation")
    @classmethod
    def _never_credentialed(cls, classes: tuple[AccessClass, ...]) -> tuple[AccessClass, ...]:
        # The licence of the source data decides this one; a policy file cannot waive it.
        if "credentialed" in classes:
            raise ValueError("credentialed data always needs an attestation")
        return classes


class AttestationRules(Document):
    """Which data use agreements count."""

    dua_versions: tuple[str, ...] = Field(min_length=1)


class DisclosureRules(Document):
    """Statistical disclosure control of everything aggregated over patients."""

    min_cell: int = Field(ge=2)


class DeniedVersions(Document):
    """Releases of a package that must not be used."""

    package: str = Field(min_length=1)
    versions: str = Field(min_length=1, description="PEP 440 specifier; a release that satisfies it is denied")
    reason: str = Field(min_length=1)

    @field_validator("versions")
    @classmethod
    def _is_specifier(cls, versions: str) -> str:
        try:
            SpecifierSet(versions)
        except InvalidSpecifier:
            raise ValueError(f"{versions!r} is no version specifier such as '==2.6.2' or '<2.10'") from None
        return versions

    def denies(self, version: str) -> bool:
        """Whether this version of the package is denied."""
        return SpecifierSet(self.versions).contains(version, prereleases=True)


class DependencyRules(Document):
    """The deny-list, and when it was last checked against the advisories."""

    as_of: dt.date
    review_after_days: int = Field(ge=1)
    deny: tuple[DeniedVersions, ...]


class Policy(Document):
    """The whole of ``governance/policy.yaml``."""

    registration: RegistrationRules
    intended_use: IntendedUseRules
    card: CardRules
    serving: ServingRules
    attestation: AttestationRules
    disclosure: DisclosureRules
    dependencies: DependencyRules

    @property
    def digest(self) -> str:
        """SHA-256 of the policy's content; comments and layout of the file do not count."""
        return digest_json(self.model_dump(mode="json"))


def load_policy(file: Path | None = None) -> Policy:
    """Reads a policy.

    Args:
        file: default ``governance/policy.yaml`` of this installation.

    Raises:
        ConfigError: the file is missing, is no YAML, or has an unknown key or a value that is not allowed.
    """
    file = file or resource_root() / "governance" / "policy.yaml"
    return validated(Policy, read_yaml(file), file)

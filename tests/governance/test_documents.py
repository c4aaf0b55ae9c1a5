"""Policy, intended use and risk register: read strictly, and true."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import yaml

from clinical_symile.errors import ConfigError
from clinical_symile.governance import Policy, load_intended_use, load_policy, load_risk_register
from clinical_symile.governance.policy import DeniedVersions
from clinical_symile.resources import resource_root

REPOSITORY = Path(__file__).resolve().parents[2]


def policy_file(tmp_path: Path, **changes: object) -> Path:
    content = yaml.safe_load((resource_root() / "governance" / "policy.yaml").read_text(encoding="utf-8"))
    for path, value in changes.items():
        section, _, key = path.partition("__")
        content[section] = {**content[section], key: value} if key else value
    file = tmp_path / "policy.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return file


def test_the_policy_is_what_the_documentation_says() -> None:
    policy = load_policy()
    assert policy.registration.interval_above_chance
    assert policy.registration.bootstrap_min >= 2000
    assert policy.disclosure.min_cell == 11
    assert set(policy.serving.hosts) == {"127.0.0.1", "::1", "localhost"}
    assert "credentialed" not in policy.serving.without_attestation


@pytest.mark.parametrize("version", ["2.6.2", "2.6.3"])
@pytest.mark.parametrize("package", ["lightning", "pytorch-lightning"])
def test_the_malicious_releases_are_denied(package: str, version: str) -> None:
    rules = load_policy().dependencies.deny
    assert any(rule.package == package and rule.denies(version) for rule in rules)
    assert not any(rule.package == package and rule.denies("2.6.6") for rule in rules)


@pytest.mark.parametrize(
    ("specifier", "version", "denied"),
    [("<2.10.0", "2.9.1+cpu", True), ("<2.10.0", "2.13.0+cpu", False), ("<3.11.1", "3.11.0rc0", True), ("==1.0", "1.0.0", True)],
)
def test_versions_are_compared_as_versions(specifier: str, version: str, denied: bool) -> None:
    assert DeniedVersions(package="p", versions=specifier, reason="r").denies(version) is denied


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"registration__bootstrap": 5}, "registration.bootstrap"),
        ({"serving__without_attestation": ["synthetic", "credentialed"]}, "always needs an attestation"),
        ({"dependencies__deny": [{"package": "p", "versions": "two", "reason": "r"}]}, "no version specifier"),
        ({"registration__confidence_min": 1.5}, "registration.confidence_min"),
        ({"extra": {}}, "extra"),
    ],
)
def test_a_wrong_policy_is_refused_with_its_key(tmp_path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_policy(policy_file(tmp_path, **change))


def test_the_digest_is_of_the_content(tmp_path: Path) -> None:
    assert load_policy(policy_file(tmp_path)).digest == load_policy().digest
    stricter = load_policy(policy_file(tmp_path, registration__bootstrap_min=5000))
    assert isinstance(stricter, Policy)
    assert stricter.digest != load_policy().digest


def test_missing_and_broken_documents_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load_policy(tmp_path / "nowhere.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [", encoding="utf-8")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_risk_register(broken)
    with pytest.raises(ConfigError, match="between two lines"):
        load_intended_use(broken)


def test_code_in_a_document_is_not_run(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(f"registration: !!python/object/apply:os.mkdir ['{tmp_path / 'made'}']", encoding="utf-8")
    with pytest.raises(ConfigError):
        load_policy(file)
    assert not (tmp_path / "made").exists()


def test_intended_use_is_research_only() -> None:
    use = load_intended_use()
    assert "research use only" in use.statement.lower()
    assert {"diagnosis", "triage", "treatment"} <= use.out_of_scope.keys()


@pytest.mark.parametrize("risk", load_risk_register().risks, ids=lambda risk: risk.id)
def test_every_control_and_every_test_of_the_register_exists(risk: object) -> None:
    assert risk.control_exists(), f"{risk.id}: there is no {risk.enforced_by}"
    file, _, name = risk.test.partition("::")
    functions = [node.name for node in ast.walk(ast.parse((REPOSITORY / file).read_text())) if isinstance(node, ast.FunctionDef)]
    assert name in functions, f"{risk.id}: there is no test {risk.test}"


def test_a_control_that_is_gone_is_noticed() -> None:
    risk = load_risk_register().risks[0]
    gone = "clinical_symile.governance.integrity:nothing"
    assert not risk.model_copy(update={"enforced_by": gone}).control_exists()
    assert not risk.model_copy(update={"enforced_by": "clinical_symile.nowhere:nothing"}).control_exists()

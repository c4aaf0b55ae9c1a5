"""How the dashboard is served: on loopback, silent, and under no other profile."""

from __future__ import annotations

import os

import pytest

from app.server import CONFIG_VARIABLE, HARDENED, WORKSPACE_VARIABLE, require_hardened, streamlit_command
from clinical_symile.config import ExperimentConfig
from clinical_symile.errors import GateRefused
from clinical_symile.stage import Workspace

CONFIG = ExperimentConfig()


def test_command_carries_every_hardened_option(tmp_path):
    command, _ = streamlit_command(Workspace(tmp_path), CONFIG, 8599)
    assert "--server.address=127.0.0.1" in command
    assert "--server.port=8599" in command
    assert "--browser.gatherUsageStats=false" in command
    assert "--client.showErrorDetails=none" in command
    given = {argument.removeprefix("--").partition("=")[0] for argument in command if argument.startswith("--")}
    assert set(HARDENED) <= given


def test_environment_says_where_and_with_what(tmp_path, monkeypatch):
    monkeypatch.setenv("STREAMLIT_SERVER_ADDRESS", "0.0.0.0")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    config = CONFIG.model_copy(update={"registry": CONFIG.registry.model_copy(update={"name": "other"})})
    _, environment = streamlit_command(Workspace(tmp_path), config, 8599)
    assert environment[WORKSPACE_VARIABLE] == str(tmp_path)
    assert ExperimentConfig.model_validate_json(environment[CONFIG_VARIABLE]) == config
    assert not any(name.startswith("STREAMLIT_") for name in environment), "the environment could soften the profile"
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert environment["PYTHONPATH"].endswith(f"{os.pathsep}/elsewhere")


def test_streamlit_understands_every_option():
    """A misspelt option would be ignored by nobody but us."""
    from streamlit import config

    known = config._config_options_template
    assert [name for name in HARDENED if name not in known] == []


def test_hardened_profile_is_accepted():
    require_hardened(HARDENED.__getitem__)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("server.address", None),
        ("server.address", "0.0.0.0"),
        ("server.allowedHosts", []),
        ("client.showErrorLinks", "auto"),
        ("browser.gatherUsageStats", True),
        ("server.enableXsrfProtection", False),
    ],
)
def test_any_softer_profile_is_refused(name, value):
    with pytest.raises(GateRefused, match=rf"clinical-symile review.*{name}"):
        require_hardened({**HARDENED, name: value}.__getitem__)

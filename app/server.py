"""How the dashboard is served: one hardened profile, given to Streamlit on its command line and checked again by the app.

Streamlit by default listens on all interfaces, reports its use, and offers to send error texts to a search engine and a
language model. Options on the command line win over configuration files and the environment, so nothing that lies on the
machine can soften them; ``require_hardened`` refuses a dashboard that was started in another way.

Known limit: this profile has no login. Whoever may open a port of this machine may open the dashboard.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from clinical_symile.errors import GateRefused
from clinical_symile.resources import resource_root

if TYPE_CHECKING:
    from clinical_symile.config import ExperimentConfig
    from clinical_symile.stage import Workspace

ADDRESS: Final = "127.0.0.1"
WORKSPACE_VARIABLE: Final = "CLINICAL_SYMILE_WORKSPACE"
CONFIG_VARIABLE: Final = "CLINICAL_SYMILE_CONFIG"

HARDENED: Final[dict[str, Any]] = {
    "server.address": ADDRESS,
    "server.allowedHosts": ["127.0.0.1", "localhost"],
    "server.enableCORS": True,
    "server.enableXsrfProtection": True,
    "server.xsrfCookieSameSite": "strict",
    "server.maxUploadSize": 64,
    "server.maxMessageSize": 64,
    "server.enableStaticServing": False,
    "server.enableAgentApi": False,
    "server.fileWatcherType": "none",
    "server.headless": True,
    "browser.gatherUsageStats": False,
    "client.showErrorDetails": "none",
    "client.showErrorLinks": False,
    "client.toolbarMode": "minimal",
    "client.disableDataExport": True,
    "global.developmentMode": False,
    "logger.enableRich": False,  # would print exceptions past the filter that removes identifiers
}
"""What must hold while the dashboard runs."""

_THEME: Final[dict[str, Any]] = {
    "theme.base": "light",
    "theme.primaryColor": "#1f6480",
    "theme.backgroundColor": "#ffffff",
    "theme.secondaryBackgroundColor": "#f2f5f7",
    "theme.textColor": "#1c2530",
    "theme.borderColor": "#d8e0e6",
    "theme.baseRadius": "small",
    "theme.grayTextColor": "#56626e",
    "theme.headingFontWeights": "[600, 600, 600]",
    "theme.headingFontSizes": '["1.7rem", "1.3rem", "1.1rem"]',
    "theme.paddingTop": "1rem",
    "theme.sidebar.backgroundColor": "#f2f5f7",
}

_ENVIRONMENT: Final = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "HF_HUB_OFFLINE": "1",
    "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1",
}


def streamlit_command(workspace: Workspace, config: ExperimentConfig, port: int) -> tuple[list[str], dict[str, str]]:
    """The command and the environment that serve the dashboard.

    Args:
        workspace: what is shown.
        config: names the registered model and the tracking store.
        port: on 127.0.0.1.
    """
    root = resource_root()
    command = [sys.executable, "-m", "streamlit", "run", str(root / "app" / "main.py"), f"--server.port={port}"]
    for name, value in {**HARDENED, **_THEME}.items():
        command += [f"--{name}={_as_text(part)}" for part in (value if isinstance(value, list) else [value])]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("STREAMLIT_")}
    search_path = os.pathsep.join(part for part in (str(root), os.environ.get("PYTHONPATH", "")) if part)
    own = {WORKSPACE_VARIABLE: str(workspace.root), CONFIG_VARIABLE: config.model_dump_json(), "PYTHONPATH": search_path}
    return command, {**inherited, **_ENVIRONMENT, **own}


def require_hardened(get_option: Callable[[str], Any]) -> None:
    """Refuses to show anything under another profile.

    Args:
        get_option: ``streamlit.get_option``.

    Raises:
        GateRefused: names the options that differ, and how to start the dashboard.
    """
    different = [name for name, wanted in HARDENED.items() if not _same(get_option(name), wanted)]
    if different:
        raise GateRefused(
            f"the dashboard must be started with 'clinical-symile review', which serves it on {ADDRESS} only; "
            f"this one differs in {', '.join(different)}"
        )


def _same(actual: Any, wanted: Any) -> bool:
    if isinstance(wanted, list):
        return sorted(actual or []) == sorted(wanted)
    return _as_text(actual) == _as_text(wanted)


def _as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

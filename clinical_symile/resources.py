"""Where the files are that come with the code but are not modules: configurations, governance documents, the app."""

from __future__ import annotations

from pathlib import Path

from clinical_symile.errors import ClinicalSymileError

_PACKAGE = Path(__file__).resolve().parent


def resource_root() -> Path:
    """The folder that holds ``app/``, ``pipelines/`` and ``governance/``: the checkout, or the installed wheel's copy."""
    for root in (_PACKAGE.parent, _PACKAGE / "_bundled"):
        if (root / "governance" / "policy.yaml").is_file():
            return root
    raise ClinicalSymileError("governance/policy.yaml is missing beside the package; install Clinical Symile again")


def preset(name: str, folder: str = "configs") -> Path:
    """The path of ``pipelines/<folder>/<name>.yaml``."""
    return resource_root() / "pipelines" / folder / f"{name}.yaml"

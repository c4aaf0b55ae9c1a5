"""The documents under ``governance/`` that code reads: intended use and risk register.

A document is a file that a person edits and that a gate enforces; so each has a typed model, and unknown keys are errors.
"""

from __future__ import annotations

import datetime as dt
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clinical_symile.errors import ConfigError
from clinical_symile.resources import resource_root


class Document(BaseModel):
    """Base of everything that is read from ``governance/``: unknown keys are errors, and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


DocumentT = TypeVar("DocumentT", bound=BaseModel)


class IntendedUse(Document):
    """What the software is for, and what it is not for (``governance/intended_use.md``)."""

    statement: str = Field(min_length=1, description="the sentence that every page and card shows")
    users: tuple[str, ...] = Field(min_length=1)
    uses: tuple[str, ...] = Field(min_length=1)
    out_of_scope: dict[str, str] = Field(description="use -> why it is out of scope")
    limitations: tuple[str, ...] = Field(min_length=5)


class Risk(Document):
    """One hazard and what stands against it."""

    id: str = Field(pattern=r"^R\d{2}$")
    hazard: str = Field(min_length=1)
    cause: str = Field(min_length=1)
    control: str = Field(min_length=1)
    enforced_by: str = Field(pattern=r"^[a-z_.]+:[A-Za-z_.]+$", description="module:attribute that is the control")
    test: str = Field(pattern=r"^tests/[\w/]+\.py::\w+$", description="the test that shows the control works")
    residual: Literal["low", "medium", "high"]
    owner: str = Field(min_length=1)
    review_by: dt.date

    def control_exists(self) -> bool:
        """Whether the code that the register calls the control is there."""
        module_name, _, path = self.enforced_by.partition(":")
        try:
            target: Any = import_module(module_name)
        except ModuleNotFoundError:
            return False
        for name in path.split("."):
            target = getattr(target, name, None)
        return target is not None


class RiskRegister(Document):
    """All hazards (``governance/risk_register.yaml``)."""

    risks: tuple[Risk, ...] = Field(min_length=1)


def load_intended_use(file: Path | None = None) -> IntendedUse:
    """Reads the front matter of ``governance/intended_use.md``; the prose below it is for people.

    Raises:
        ConfigError: the file is missing, has no front matter, or has unknown or missing keys.
    """
    file = file or resource_root() / "governance" / "intended_use.md"
    _, separator, rest = _read(file).partition("---\n")
    front, closing, _ = rest.partition("\n---\n")
    if not separator or not closing:
        raise ConfigError(f"{file}: must begin with YAML between two lines '---'")
    return validated(IntendedUse, parse_yaml(front, file), file)


def load_risk_register(file: Path | None = None) -> RiskRegister:
    """Reads ``governance/risk_register.yaml``.

    Raises:
        ConfigError: the file is missing, or has unknown or missing keys, or two risks of the same id.
    """
    file = file or resource_root() / "governance" / "risk_register.yaml"
    register = validated(RiskRegister, read_yaml(file), file)
    ids = [risk.id for risk in register.risks]
    twice = sorted({name for name in ids if ids.count(name) > 1})
    if twice:
        raise ConfigError(f"{file}: {', '.join(twice)} is used for two risks")
    return register


def read_yaml(file: Path) -> Any:
    """The content of a YAML file; no code in it is run.

    Raises:
        ConfigError: the file is missing or no YAML.
    """
    return parse_yaml(_read(file), file)


def parse_yaml(text: str, file: Path) -> Any:
    """The content of YAML text that came from ``file``.

    Raises:
        ConfigError: the text is no YAML.
    """
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from None


def validated(model: type[DocumentT], content: Any, file: Path) -> DocumentT:
    """The content as a typed document.

    Raises:
        ConfigError: one line per mistake, each naming the file and the key.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        lines = [f"{file}: {'.'.join(str(part) for part in item['loc']) or 'content'}: {item['msg']}" for item in error.errors()]
        raise ConfigError("\n".join(lines)) from None


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"{file}: is missing or not readable; it comes with Clinical Symile, so install it again") from None

"""Errors that a user may see: what is wrong, where, and what to do about it."""

from __future__ import annotations


class ClinicalSymileError(ValueError):
    """Base of every error that the command line and the app show without a traceback. Exit code 1."""

    exit_code = 1


class ConfigError(ClinicalSymileError):
    """A configuration file, an override or an option is wrong. Exit code 2."""

    exit_code = 2


class InputError(ClinicalSymileError):
    """A file or table that was given to us is missing, unreadable or not what it should be. Exit code 3."""

    exit_code = 3


class UnusableFile(InputError):
    """One X-ray or ECG that cannot be used; exit code 3.

    ``reason`` does not name the file, so that equal reasons can be counted and shown without an identifier.
    """

    def __init__(self, path: object, reason: str) -> None:
        # Both arguments go to Exception.args: the error travels between processes.
        super().__init__(path, reason)
        self.path = str(path)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class TooManyRejects(InputError):
    """More inputs were rejected than the configuration allows. Exit code 4."""

    exit_code = 4


class GateRefused(ClinicalSymileError):
    """Governance refuses an action: registering, serving or exporting. Exit code 5."""

    exit_code = 5


class IncompleteStage(ClinicalSymileError):
    """A stage needs the finished output of another stage that is not there. Exit code 6."""

    exit_code = 6

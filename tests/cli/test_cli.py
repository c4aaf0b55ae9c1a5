"""The command line as a person meets it: quick help, and one clear message with an exit code for each mistake."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "mlflow", "lightning", "monai", "streamlit", "pandas", "duckdb", "matplotlib", "scipy")


def run_cli(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "clinical_symile", *arguments], capture_output=True, text=True, check=False, cwd=cwd, timeout=300
    )


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("train", "--help"), ("registry", "--help")])
def test_help_and_version_load_nothing_heavy(arguments: tuple[str, ...]) -> None:
    """What makes ``--help`` answer in under a second is that nothing heavy is imported; a clock would be a flaky judge."""
    program = (
        "import sys\nfrom clinical_symile.cli.main import main\n"
        f"sys.argv = ['clinical-symile', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    code = end.code\n"
        f"print('LOADED', [name for name in {HEAVY!r} if name in sys.modules], code or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.splitlines()[-1] == "LOADED [] 0", done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("train", "--set", "train.lrr=1"), 2, "did you mean 'lr'?"),
        (("train", "--config", "no_such_preset"), 2, "presets:"),
        (("simulate", "--synergy", "1.5"), 2, "simulation.synergy"),
        (("prepare",), 6, "run 'clinical-symile cohort'"),
        (("train",), 6, "run 'clinical-symile prepare'"),
        (("evaluate",), 6, "clinical-symile"),
        (("index",), 6, "clinical-symile"),
        (("cohort", "--mimic-iv", "nowhere", "--mimic-cxr", "nowhere", "--mimic-ecg", "nowhere"), 3, "nowhere"),
        (("cohort", "--manifest", "nowhere.csv", "--labs", "nowhere.csv"), 3, "nowhere.csv"),
        (("registry", "list"), 0, ""),
    ],
)
def test_a_mistake_is_one_message_and_an_exit_code(tmp_path: Path, arguments: tuple[str, ...], code: int, message: str) -> None:
    done = run_cli(*arguments, "--workspace", str(tmp_path / "ws"), cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert message in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_cohort_without_a_hospital_says_what_to_do(tmp_path: Path) -> None:
    done = run_cli("cohort", "--workspace", str(tmp_path / "ws"))
    assert done.returncode == 6
    assert "clinical-symile simulate" in done.stderr
    assert not (tmp_path / "ws" / "cohort" / "manifest.json").exists()


def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    done = run_cli("run", "--config", "demo", "--dry-run", "--workspace", str(tmp_path / "ws"))
    assert done.returncode == 0, done.stderr
    assert "simulate: would run" in done.stdout
    assert not (tmp_path / "ws").exists()


def test_doctor_reports_and_finds_nothing_broken(tmp_path: Path) -> None:
    done = run_cli("doctor", "--workspace", str(tmp_path / "ws"))
    assert done.returncode == 0, done.stdout + done.stderr
    for subject in ("torch", "GPU", "DICOM decoders", "tracking store", "policy"):
        assert subject in done.stdout


def test_doctor_names_the_remedy_for_a_bad_store(tmp_path: Path) -> None:
    workspace = tmp_path / "ws"
    workspace.mkdir(mode=0o755)
    done = run_cli("doctor", "--workspace", str(workspace))
    assert "chmod 700" in done.stdout

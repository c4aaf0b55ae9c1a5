"""The command line as a person meets it: quick help, and one clear message with an exit code for each mistake."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from clinical_symile.cli import stages
from clinical_symile.cli.common import Invocation, stage_command
from clinical_symile.cli.serve import _require_free, serve
from clinical_symile.config import ExperimentConfig
from clinical_symile.errors import ConfigError
from clinical_symile.stage import RunOptions, Workspace

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
        (("review",), 6, "run 'clinical-symile prepare'"),
        (("registry", "list"), 0, ""),
        (("cohort",), 6, "--mimic-iv"),
        (("audit", "verify"), 0, "nothing is recorded yet"),
        (("audit", "report"), 0, "nothing is recorded yet"),
    ],
)
def test_a_mistake_is_one_message_and_an_exit_code(tmp_path: Path, arguments: tuple[str, ...], code: int, message: str) -> None:
    done = run_cli(*arguments, "--workspace", str(tmp_path / "ws"), cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert message in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_an_error_does_not_repeat_an_identifier(tmp_path: Path) -> None:
    """The folders and files of MIMIC are called after its patients."""
    done = run_cli("prepare", "--workspace", str(tmp_path / "p10000032"))
    assert done.returncode == 6
    assert "[subject_folder]" in done.stderr
    assert "10000032" not in done.stderr


def test_the_better_run_is_found_without_candidate_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A validation split that is too small for them measures the loss only."""
    bests = {"symile": {"val_loss": 2.0}, "clip": {"val_loss": 1.0}}
    monkeypatch.setattr(stages, "require_complete", lambda folder, command: {"best": bests[folder.name]})
    call = Invocation(ExperimentConfig(), Workspace(tmp_path), RunOptions())
    assert stages.better_run(call, ("symile", "clip")) == "symile"
    bests["clip"]["accuracy_10way"] = 0.2
    assert stages.better_run(call, ("symile", "clip")) == "clip"


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
    for subject in ("torch", "GPU", "DICOM decoders", "tracking store", "policy", "denied releases"):
        assert subject in done.stdout


def test_doctor_names_the_remedy_for_a_bad_store(tmp_path: Path) -> None:
    workspace = tmp_path / "ws"
    workspace.mkdir(mode=0o755)
    done = run_cli("doctor", "--workspace", str(workspace))
    assert "chmod 700" in done.stdout


@pytest.mark.parametrize("command", [("doctor",), ("registry", "list"), ("simulate",)])
def test_a_file_is_no_workspace(tmp_path: Path, command: tuple[str, ...]) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("precious")
    done = run_cli(*command, "--workspace", str(file))
    assert done.returncode == 2
    assert "notes.txt: is a file" in done.stderr
    assert file.read_text() == "precious"


def test_a_taken_port_is_refused_before_a_link_is_printed() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match=r"is taken.*--set review\.port="):
            _require_free(taken.getsockname()[1])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    _require_free(port)


def test_an_interrupt_says_that_the_work_continues(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def work(invocation: Invocation) -> None:
        raise KeyboardInterrupt

    app = typer.Typer()
    app.command()(stage_command(work))
    with pytest.raises(SystemExit) as end:
        app(["--workspace", str(tmp_path)])
    assert end.value.code == 130
    assert "the same command continues" in capsys.readouterr().err


def test_the_dashboard_takes_this_process_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a child it would live on, and keep the port, when ``review`` is ended by its id."""
    started: list[str] = []
    monkeypatch.setattr("clinical_symile.cli.serve.require_complete", lambda folder, command: {})
    monkeypatch.setattr("clinical_symile.tracking.find_champion", lambda workspace, config: None)
    monkeypatch.setattr("clinical_symile.cli.serve._require_free", lambda port: None)
    monkeypatch.setattr("os.execve", lambda program, command, environment: started.extend(command))
    serve(Invocation(ExperimentConfig(), Workspace(tmp_path), RunOptions()))
    assert started[:3] == [sys.executable, "-m", "streamlit"]

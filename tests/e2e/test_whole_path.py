"""``clinical-symile run``: from a simulated hospital to a registered model and its gallery, and once more with nothing to do."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

Cli = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, learnable_config: Path, cli: Cli) -> tuple[list[str], Path, str]:
    """The options, the workspace and the output of one whole run."""
    folder = tmp_path_factory.mktemp("whole")
    options = ["--config", str(learnable_config), "--workspace", str(folder / "ws")]
    return options, folder / "ws", cli("run", *options).stdout


def read(file: Path) -> dict:
    return json.loads(file.read_text())


def test_the_report_sets_the_model_beside_clip_chance_and_the_oracle(ran: tuple[list[str], Path, str]) -> None:
    report = read(ran[1] / "reports" / "symile" / "report.json")
    assert set(report["metrics"]) == {"symile", "clip"}
    estimate, chance, oracle = (
        part["accuracy_5way"] for part in (report["metrics"]["symile"], report["chance"], report["oracle"])
    )
    assert chance == pytest.approx(0.2)
    assert chance < estimate["low"] <= estimate["value"] <= estimate["high"]
    assert estimate["value"] < oracle["high"], "nobody who is honest beats the oracle"
    other, difference = report["metrics"]["clip"]["accuracy_5way"], report["paired_differences"]["clip"]["accuracy_5way"]
    assert difference["value"] == pytest.approx(estimate["value"] - other["value"], abs=2e-6)
    assert difference["low"] < difference["value"] < difference["high"]


def test_the_better_run_is_registered_with_a_card_without_gaps(ran: tuple[list[str], Path, str], cli: Cli) -> None:
    options, workspace, output = ran
    assert "registered: symile-mimic/1 as champion" in output
    listed = cli("registry", "list", *options).stdout
    assert "symile-mimic/1 [champion]" in listed
    galleries = list((workspace / "gallery").iterdir())
    assert [folder.name for folder in galleries] == [listed.split("run ")[1].split(",")[0]], "the champion's gallery, no other"


def test_the_gallery_holds_each_held_out_xray_once(ran: tuple[list[str], Path, str]) -> None:
    workspace = ran[1]
    (gallery,) = (workspace / "gallery").iterdir()
    embeddings = np.load(gallery / "embeddings.npy")
    rows = pd.read_parquet(workspace / "dataset" / "manifest.parquet")
    held_out = rows[rows.split != "train"]
    assert len(embeddings) == len(held_out.drop_duplicates(["subject_id", "cxr_sha256"]))
    assert np.isfinite(embeddings).all()


def test_a_second_run_does_nothing_again(ran: tuple[list[str], Path, str], cli: Cli) -> None:
    options, workspace, _ = ran
    manifests = sorted(workspace.rglob("manifest.json"))
    before = {file: file.stat().st_mtime_ns for file in manifests}
    again = cli("run", *options)
    assert again.stderr.count("already done") == len([file for file in manifests if "tracking" not in file.parts])
    assert {file: file.stat().st_mtime_ns for file in manifests} == before
    assert "symile-mimic/2" not in cli("registry", "list", *options).stdout, "the same model is not registered twice"


def test_nothing_is_readable_by_others_or_left_half_done(ran: tuple[list[str], Path, str]) -> None:
    workspace = ran[1]
    assert not list(workspace.rglob("*.tmp"))
    assert not list(workspace.rglob(".stage.json"))
    for file in (*workspace.glob("runs/*/model/*.safetensors"), *workspace.glob("gallery/*/embeddings.npy")):
        assert file.stat().st_mode & 0o077 == 0, f"{file.name} derives from patients, but others can read it"


def test_no_log_line_holds_an_identifier(ran: tuple[list[str], Path, str], cli: Cli) -> None:
    options, workspace, _ = ran
    admissions = pd.read_parquet(workspace / "cohort" / "admissions.parquet")
    ids = {str(value) for column in ("subject_id", "hadm_id", "ecg_study_id", "cxr_study_id") for value in admissions[column]}
    said = cli("evaluate", *options, "--overwrite", "--baseline", "clip")
    numbers = set(re.findall(r"\d{5,}", said.stdout + said.stderr))
    assert ids, "there must be something to look for"
    assert not numbers & ids

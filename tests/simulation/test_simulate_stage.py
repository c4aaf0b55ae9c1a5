"""The stage: same bytes for the same seed whatever the number of processes, resumable, skipped when done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clinical_symile.config import ExperimentConfig, SimulationConfig
from clinical_symile.simulation import simulate
from clinical_symile.stage import RunOptions, Workspace


def run(root: Path, jobs: int = 1, **values: object) -> dict:
    config = ExperimentConfig(simulation=SimulationConfig(**{"admissions": 20, "synergy": 0.6, **values}))
    return simulate(config, Workspace(root), RunOptions(jobs=jobs, quiet=True))


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    root = tmp_path_factory.mktemp("reference")
    return root, run(root)


def test_a_killed_run_continues_to_the_same_bytes(reference: tuple[Path, dict], tmp_path: Path, monkeypatch) -> None:
    from clinical_symile.simulation import hospital

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(hospital, "_write_tables", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, jobs=2)
    output = tmp_path / "hospital"
    assert not (output / "manifest.json").exists()
    images = sorted(output.rglob("*.jpg"))
    images[0].unlink()
    kept = images[1].stat().st_mtime_ns
    (output / ".partial" / "left-over.jpg.77").write_bytes(b"half a file")
    assert run(tmp_path, jobs=2)["outputs"] == reference[1]["outputs"]
    assert images[1].stat().st_mtime_ns == kept, "what was finished is not made again"
    assert not (output / ".partial").exists()


def test_a_finished_run_is_skipped(reference: tuple[Path, dict]) -> None:
    root, manifest = reference
    before = (root / "hospital" / "manifest.json").stat().st_mtime_ns
    assert run(root) == manifest
    assert (root / "hospital" / "manifest.json").stat().st_mtime_ns == before


def test_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str], configured) -> None:
    simulate(configured(), Workspace(tmp_path), RunOptions(dry_run=True))
    assert not list(tmp_path.iterdir())
    assert "complete admissions: 24" in capsys.readouterr().out


def test_manifest_facts(reference: tuple[Path, dict]) -> None:
    root, manifest = reference
    assert manifest["facts"]["access"] == "synthetic"
    assert manifest["counts"]["complete_admissions"] == 20
    assert json.loads((root / "hospital" / "law.json").read_text())["synergy"] == 0.6

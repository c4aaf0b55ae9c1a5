"""kill -9 at any moment of training, then the same call again: the weights are those of an undisturbed run, bit for bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("every", [pytest.param(9, id="some"), pytest.param(1, id="all", marks=pytest.mark.slow)])
def test_killed_at_any_moment(tmp_path: Path, every: int) -> None:
    script = Path(__file__).with_name("crash_points.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), str(every)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert len(result["resumed"]) >= 3, "the run had too few moments to be killed at"
    different = [moment for moment, digest in result["resumed"].items() if digest != result["undisturbed"]]
    assert not different, f"killed at moments {different} the run ended in other weights"


def test_a_resumed_run_leaves_what_an_undisturbed_one_leaves(tmp_path: Path, tiny) -> None:
    from clinical_symile.stage import RunOptions
    from clinical_symile.training import NullTracker
    from clinical_symile.training.fit import fit

    class PowerCutError(RuntimeError):
        pass

    reads = 0

    def fail_late() -> None:
        nonlocal reads
        reads += 1
        if reads == 7:  # in the second epoch
            raise PowerCutError

    quiet = RunOptions(quiet=True)
    fit(tiny.MODEL, tiny.TRAIN, tiny.tiny_data(), tmp_path / "whole", quiet, NullTracker())
    with pytest.raises(PowerCutError):
        fit(tiny.MODEL, tiny.TRAIN, tiny.tiny_data(fail_late), tmp_path / "cut", quiet, NullTracker())
    fit(tiny.MODEL, tiny.TRAIN, tiny.tiny_data(), tmp_path / "cut", quiet, NullTracker())

    def files(folder: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in folder.rglob("*.safetensors")}

    def lines(folder: Path) -> list[dict]:
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]

    assert files(tmp_path / "cut") == files(tmp_path / "whole")
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")
    assert [line["epoch"] for line in lines(tmp_path / "cut")] == [1, 2, 3]

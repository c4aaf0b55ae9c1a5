"""Seconds and peak memory of the stage ``cohort`` on tables of MIMIC's size, as Markdown.

    python tests/benchmarks/mimic_tables.py TABLES --share 1 --files
    python tests/benchmarks/cohort_scale.py TABLES [--runs 3] [--jobs 2] [--set cohort.rules=strict]

Each run is a process of its own in an empty workspace, four times over: from csv.gz without opening ECG files; again, when the
Parquet cache is there; again, opening the ECG files that could be chosen; and again, when it is known what they hold. The
figures are medians with (minimum-maximum); memory is the largest resident size of any of the stage's processes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PARTS = ("from csv.gz", "from the Parquet cache", "and ECG files opened", "and ECG files known")

_COHORT = """
import sys
from pathlib import Path
from clinical_symile.cohort import build_cohort
from clinical_symile.config import load_config
from clinical_symile.modalities.ecg import examine
from clinical_symile.stage import RunOptions, Workspace
workspace, jobs, opened, *overrides = sys.argv[1:]
options = RunOptions(quiet=True, jobs=int(jobs))
build_cohort(load_config(None, overrides), Workspace(Path(workspace)), options, examine if opened == "ecg" else None)
"""


def measure(workspace: Path, part: str, jobs: int, overrides: list[str]) -> tuple[float, float]:
    """Wall seconds and peak memory in MB of one process; stops at the first failure."""
    opened = "ecg" if "ECG" in part else "no-ecg"
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", _COHORT, str(workspace), str(jobs), opened, *overrides])
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status != 0:
        raise SystemExit(f"cohort {part} failed with status {status}")
    return seconds, usage.ru_maxrss / 1024


def facts(workspace: Path) -> dict[str, Any]:
    """What the stage says about its result."""
    manifest = json.loads((workspace / "cohort" / "manifest.json").read_text())
    return manifest["counts"] | {"digest": manifest["digest"]}


def main() -> None:
    """Runs the stage and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--no-ecg", action="store_true", help="only the two parts that open no ECG file")
    parser.add_argument("--set", action="append", default=[], help="section.key=value")
    arguments = parser.parse_args()
    places = {"mimic_iv": "mimic-iv", "mimic_cxr": "mimic-cxr", "mimic_ecg": "mimic-ecg"}
    overrides = [f"hospital.{key}={arguments.tables.resolve() / folder}" for key, folder in places.items()]
    overrides += ["hospital.access=synthetic", *arguments.set]
    parts = PARTS[:2] if arguments.no_ecg else PARTS
    seconds: dict[str, list[float]] = {part: [] for part in parts}
    memory: dict[str, list[float]] = {part: [] for part in parts}
    found: dict[str, dict[str, Any]] = {}
    for _ in range(arguments.runs):
        with tempfile.TemporaryDirectory(dir=arguments.tables.parent) as folder:
            workspace = Path(folder) / "ws"
            for part in parts:
                shutil.rmtree(workspace / "cohort", ignore_errors=True)
                wall, peak = measure(workspace, part, arguments.jobs, overrides)
                seconds[part].append(wall)
                memory[part].append(peak)
                if found.setdefault(part, facts(workspace)) != facts(workspace):
                    raise SystemExit(f"cohort {part}: two runs do not agree")
    print("| cohort | seconds | peak memory, MB | admissions |\n|---|---|---|---|")
    for part in parts:
        walls, peaks = seconds[part], memory[part]
        print(
            f"| {part} | {statistics.median(walls):.1f} ({min(walls):.1f}-{max(walls):.1f}) "
            f"| {statistics.median(peaks):.0f} ({min(peaks):.0f}-{max(peaks):.0f}) | {found[part]['admissions']:,} |"
        )


if __name__ == "__main__":
    main()

"""Seconds and peak memory of each stage of the demo, each stage a process of its own, as a Markdown table.

    python tests/benchmarks/demo_stages.py [--runs 3] [--config demo]

Each run starts from an empty workspace. The figures are medians with (minimum-maximum); the memory is the largest resident
size of the stage's process or of any of its children, as the operating system accounts it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

STAGES: tuple[tuple[str, ...], ...] = (
    ("simulate",),
    ("cohort",),
    ("prepare",),
    ("train", "--loss", "symile"),
    ("train", "--loss", "clip"),
    ("evaluate", "--run", "symile", "--baseline", "clip"),
    ("evaluate", "--run", "clip", "--baseline", "symile"),
    ("registry", "register", "--run", "symile"),
    ("index", "--run", "symile"),
)


def measure(command: list[str]) -> tuple[float, float]:
    """Wall seconds and peak memory in MB of one command; stops at the first failure."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status != 0:
        raise SystemExit(f"{' '.join(command)} failed with status {status}")
    return seconds, usage.ru_maxrss / 1024


def main() -> None:
    """Runs the stages and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--config", default="demo")
    arguments = parser.parse_args()
    seconds, memory = defaultdict(list), defaultdict(list)
    for _ in range(arguments.runs):
        with tempfile.TemporaryDirectory() as folder:
            for stage in STAGES:
                shared = ["--config", arguments.config, "--workspace", str(Path(folder) / "ws"), "--quiet"]
                wall, peak = measure([sys.executable, "-m", "clinical_symile", *stage, *shared])
                seconds[stage].append(wall)
                memory[stage].append(peak)
    print("| stage | seconds | peak memory, MB |\n|---|---|---|")
    for stage in STAGES:
        wall, peak = seconds[stage], memory[stage]
        print(
            f"| `{' '.join(stage)}` | {statistics.median(wall):.1f} ({min(wall):.1f}-{max(wall):.1f}) "
            f"| {statistics.median(peak):.0f} ({min(peak):.0f}-{max(peak):.0f}) |"
        )
    totals = [sum(run) for run in zip(*seconds.values(), strict=True)]
    print(f"| all stages, one process each | {statistics.median(totals):.1f} ({min(totals):.1f}-{max(totals):.1f}) | |")


if __name__ == "__main__":
    main()

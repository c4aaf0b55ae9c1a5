"""The README's commands for real MIMIC, word for word, on a hospital that lies on the disk as MIMIC does.

Only three things are replaced: the folders of the data, the preset (by a tiny model), and ``review``, which would not end.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
Cli = Callable[..., subprocess.CompletedProcess[str]]


def commands() -> list[list[str]]:
    """The commands of the section on real MIMIC."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## On real MIMIC")[1]
    block = re.search(r"```sh\n(.*?)```", section, flags=re.DOTALL)
    assert block is not None
    lines = block.group(1).replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("clinical-symile ")]


@pytest.mark.slow
def test_the_commands_for_mimic_run_on_files_in_mimics_layout(tmp_path: Path, learnable_config: Path, cli: Cli) -> None:
    cli("simulate", "--config", learnable_config, "--workspace", tmp_path / "elsewhere")
    hospital = tmp_path / "elsewhere" / "hospital"
    replaced = {
        "symile_mimic_paper": str(learnable_config),
        "/data/mimic-iv-2.2": str(hospital / "mimic-iv"),
        "/data/mimic-cxr-jpg-2.0.0": str(hospital / "mimic-cxr"),
        "/data/mimic-iv-ecg-1.0": str(hospital / "mimic-ecg"),
        "ws": str(tmp_path / "ws"),
    }
    said = {}
    for command in commands():
        words = [replaced.get(word, word) for word in command]
        if words[0] == "review":
            words.append("--dry-run")
        said[" ".join(command[:2])] = cli(*words)
    assert "registered: symile-mimic/1" in said["registry register"].stdout
    assert len(said) == 8 - 1, "two commands begin with 'train --config'"
    # Files that were not simulated into this workspace are taken for what they look like: credentialed.
    assert '"access": "credentialed"' in (tmp_path / "ws" / "gallery" / "symile" / "manifest.json").read_text()

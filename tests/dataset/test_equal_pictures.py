"""The same picture under two names is never beside itself in a set that was drawn; a released set stays as it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from clinical_symile.config import ExperimentConfig
from clinical_symile.dataset import prepare
from clinical_symile.stage import RunOptions, Workspace

QUIET = RunOptions(quiet=True, jobs=1)


def repeated(workspace: Workspace) -> int:
    """Sets that show a picture twice."""
    sets = pd.read_parquet(workspace.dataset / "candidates.parquet")
    picture = pd.read_parquet(workspace.dataset / "manifest.parquet").set_index("hadm_id")["cxr_sha256"]
    return sum(picture[part["candidate_hadm_id"]].duplicated().any() for _, part in sets.groupby("query_hadm_id"))


@pytest.mark.parametrize("released", [False, True])
def test_a_picture_under_two_names(make_cohort: Callable[..., Workspace], tmp_path: Path, released: bool) -> None:
    workspace = make_cohort(tmp_path)
    shutil.copy(tmp_path / "files/0.jpg", tmp_path / "files/4.jpg")  # two admissions of test
    if released:
        file = workspace.cohort / "manifest.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"splits": {"candidate_sets": {}}}))
    counts = prepare(ExperimentConfig(), workspace, QUIET)["counts"]
    sets = pd.read_parquet(workspace.dataset / "candidates.parquet")
    assert counts["candidate_sets_dropped"] == 0
    if released:
        assert sets.equals(pd.read_parquet(workspace.cohort / "candidates.parquet").sort_values(
            ["split", "query_hadm_id", "position"], ignore_index=True
        ))  # fmt: skip
        assert repeated(workspace) == counts["candidate_sets_with_equal_pictures"] > 0
        assert counts["candidate_sets_refilled"] == 0
    else:
        assert repeated(workspace) == counts["candidate_sets_with_equal_pictures"] == 0
        assert counts["candidate_sets_refilled"] > 0
        assert (sets.groupby("query_hadm_id").size() == 4).all()

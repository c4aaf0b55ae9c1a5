"""The oracle's line: the rank code agrees with the simulation's own expectation, and ties are ties."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clinical_symile.evaluation.metrics import metric_columns
from clinical_symile.evaluation.task import RetrievalTask
from clinical_symile.evaluation.truth import find_oracle, oracle_digest, oracle_rows
from clinical_symile.simulation.law import CHANNEL_NAMES, sample_signs
from clinical_symile.simulation.oracle import Oracle


@pytest.fixture
def task(world) -> RetrievalTask:
    return RetrievalTask.of(world.store, "test")


def oracle_for(task: RetrievalTask, synergy: float) -> Oracle:
    return Oracle(task.hadm_ids, sample_signs(len(task.hadm_ids), synergy, np.random.default_rng(3)), synergy)


@pytest.mark.parametrize("synergy", [0.0, 0.5, 1.0])
def test_accuracy_is_the_oracles_own_expectation(task: RetrievalTask, synergy: float) -> None:
    oracle = oracle_for(task, synergy)
    sets, bank = task.rank(oracle_rows(oracle, task))
    accuracy = metric_columns(sets, bank, (1,))["accuracy_5way"].summary()
    expected = oracle.expected_accuracy(task.hadm_ids[task.queries], task.hadm_ids[task.candidates], task.positive)
    assert accuracy == pytest.approx(expected)
    assert accuracy > 0.2, "the oracle knows more than chance"


def test_sums_in_another_order_are_ties(task: RetrievalTask) -> None:
    class Jittery:
        """Gives every candidate the same score, up to the last bit."""

        def log_scores(self, queries: np.ndarray, candidates: np.ndarray, /) -> np.ndarray:
            return np.where(np.arange(candidates.shape[1]) % 2, 0.1 + 0.2, 0.3) + np.zeros((len(queries), 1))

    _, bank = task.rank(oracle_rows(Jittery(), task))
    np.testing.assert_array_equal(bank.tied + 1, bank.candidates)


def test_digest_follows_what_the_oracle_says(task: RetrievalTask) -> None:
    assert oracle_digest(oracle_for(task, 0.5), task) == oracle_digest(oracle_for(task, 0.5), task)
    assert oracle_digest(oracle_for(task, 0.5), task) != oracle_digest(oracle_for(task, 0.6), task)


def test_real_hospitals_have_no_oracle() -> None:
    assert find_oracle({"kind": "mimic", "simulated_truth": None}, Path()) is None
    assert find_oracle({}, Path()) is None


def test_a_simulated_hospital_that_is_gone_leaves_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert find_oracle({"simulated_truth": "gone/truth.parquet"}, tmp_path) is None
    assert "no oracle" in caplog.text


@pytest.mark.parametrize("truth", ["hospital", "hospital/truth.parquet", "{root}/hospital", "{root}/hospital/truth.parquet"])
def test_the_oracle_is_found_beside_the_workspaces_hospital(tmp_path: Path, task: RetrievalTask, truth: str) -> None:
    signs = sample_signs(len(task.hadm_ids), 0.5, np.random.default_rng(3))
    columns = {
        f"{modality}_{channel}": getattr(signs, modality)[:, position]
        for modality in signs._fields
        for position, channel in enumerate(CHANNEL_NAMES)
    }
    (tmp_path / "hospital").mkdir()
    pq.write_table(pa.table({"hadm_id": task.hadm_ids, **columns}), tmp_path / "hospital" / "truth.parquet")
    (tmp_path / "hospital" / "law.json").write_text(json.dumps({"synergy": 0.5, "channels": list(CHANNEL_NAMES)}))
    found = find_oracle({"simulated_truth": truth.format(root=tmp_path)}, tmp_path)
    assert found is not None
    assert oracle_digest(found, task) == oracle_digest(oracle_for(task, 0.5), task)

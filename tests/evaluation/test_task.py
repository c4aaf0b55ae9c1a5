"""The task of a split: what takes part, and that blocks change nothing."""

from __future__ import annotations

import numpy as np
import pytest

from clinical_symile.errors import InputError
from clinical_symile.evaluation import task as task_module
from clinical_symile.evaluation.task import RetrievalTask


def scores_of(task: RetrievalTask, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-4, 5, (len(task), len(task.rows))).astype(float)


def test_reads_queries_sets_and_bank(world) -> None:
    task = RetrievalTask.of(world.store, "test")
    assert len(task) == 40
    assert len(task.rows) == 40
    assert task.candidates.shape == (40, 5)
    np.testing.assert_array_equal(task.rows[task.queries], world.store.rows("test"))
    assert task.sets_with_same_patient == 0


def test_ranks_agree_with_a_loop(world) -> None:
    task = RetrievalTask.of(world.store, "test")
    scores = scores_of(task)
    sets, bank = task.rank(lambda block: scores[block])
    for query in range(len(task)):
        own = scores[query, task.queries[query]]
        rivals = [c for c in range(5) if c != task.positive[query]]
        in_set = scores[query, task.candidates[query, rivals]]
        assert (sets.higher[query], sets.tied[query], sets.candidates[query]) == ((in_set > own).sum(), (in_set == own).sum(), 5)
        others = task.subjects != task.query_subjects[query]
        in_bank = scores[query, others]
        assert bank.higher[query] == (in_bank > own).sum()
        assert bank.tied[query] == (in_bank == own).sum()
        assert bank.candidates[query] == others.sum() + 1, "the query's own X-ray counts, its patient's others do not"
    assert bank.candidates.min() == 39, "test patients with two admissions lose one candidate"
    assert bank.candidates.max() == 40


def test_another_xray_of_the_patient_is_neither_right_nor_wrong(world) -> None:
    task = RetrievalTask.of(world.store, "test")
    scores = scores_of(task)
    _, before = task.rank(lambda block: scores[block])
    same_patient = task.subjects[None, :] == task.query_subjects[:, None]
    same_patient[np.arange(len(task)), task.queries] = False
    assert same_patient.any()
    scores[same_patient] = 1000.0
    _, after = task.rank(lambda block: scores[block])
    np.testing.assert_array_equal(before.expected(), after.expected())


@pytest.mark.parametrize("block", [1, 7, 40, 1000])
def test_blocks_do_not_change_ranks(world, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    task = RetrievalTask.of(world.store, "test")
    scores = scores_of(task)
    whole = task.rank(lambda block: scores[block])
    monkeypatch.setattr(task_module, "BLOCK", block)
    for expected, found in zip(whole, task.rank(lambda block: scores[block]), strict=True):
        np.testing.assert_array_equal(expected.expected(), found.expected())


def test_candidates_of_another_split_are_refused(world, monkeypatch: pytest.MonkeyPatch) -> None:
    queries, candidates, positive = world.store.candidates("test")
    candidates[0, (positive[0] + 1) % 5] = 0
    monkeypatch.setattr(world.store, "candidates", lambda split: (queries, candidates, positive))
    with pytest.raises(InputError, match="1 entries of the candidate sets are admissions of no or another split"):
        RetrievalTask.of(world.store, "test")


def test_a_positive_of_another_admission_is_refused(world, monkeypatch: pytest.MonkeyPatch) -> None:
    queries, candidates, positive = world.store.candidates("test")
    monkeypatch.setattr(world.store, "candidates", lambda split: (queries, candidates, (positive + 1) % 5))
    with pytest.raises(InputError, match="40 candidate sets have the X-ray of another admission"):
        RetrievalTask.of(world.store, "test")


def test_a_split_without_sets_is_refused(world, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = np.empty(0, int), np.empty((0, 5), int), np.empty(0, int)
    monkeypatch.setattr(world.store, "candidates", lambda split: nothing)
    with pytest.raises(InputError, match="'test' has no candidate sets"):
        RetrievalTask.of(world.store, "test")

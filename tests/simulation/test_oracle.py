"""The oracle of one hospital: scores against a naive loop, ties, impossible candidates, errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinical_symile.errors import InputError
from clinical_symile.simulation import Oracle, chance_within, oracle_accuracy, sample_signs
from clinical_symile.simulation.law import CHANNEL_NAMES, Signs, joint


def hospital(n: int, synergy: float, seed: int = 0) -> tuple[np.ndarray, Signs, Oracle]:
    rng = np.random.default_rng(seed)
    ids = rng.permutation(n) + 20_000_000
    signs = sample_signs(n, synergy, rng)
    return ids, signs, Oracle(ids, signs, synergy)


@pytest.mark.parametrize("synergy", [0.0, 0.4, 1.0])
def test_scores_are_the_sum_of_log_density_ratios(synergy: float) -> None:
    ids, signs, oracle = hospital(12, synergy)
    scores = oracle.log_scores(ids[:4], ids)
    table = joint(synergy)
    for q in range(4):
        for c in range(12):
            density = 1.0
            for k in range(len(CHANNEL_NAMES)):
                given_both = table[signs.ecg[q, k], signs.labs[q, k]]
                density *= given_both[signs.cxr[c, k]] / given_both.sum() / 0.5
            assert np.exp(scores[q, c]) == pytest.approx(density), (q, c)
    assert np.isfinite(np.diag(scores)).all(), "a query's own X-ray is always possible"


def test_candidate_sets_are_columns_of_the_full_score_matrix() -> None:
    ids, _, oracle = hospital(40, 0.5)
    sets = np.stack([np.roll(np.arange(40), -i)[:10] for i in range(40)])
    full = oracle.log_scores(ids, ids)
    np.testing.assert_array_equal(oracle.log_scores(ids, ids[sets]), np.take_along_axis(full, sets, axis=1))


@pytest.mark.parametrize("synergy", [0.0, 0.5, 1.0])
def test_a_large_hospital_reaches_the_population_accuracy(synergy: float) -> None:
    n = 4000
    ids, _, oracle = hospital(n, synergy, seed=2)
    rng = np.random.default_rng(9)
    others = (np.arange(n)[:, None] + rng.integers(1, n, (n, 9))) % n
    sets = np.concatenate([np.arange(n)[:, None], others], axis=1)
    accuracy = oracle.expected_accuracy(ids, ids[sets], np.zeros(n, dtype=int))
    assert accuracy == pytest.approx(oracle_accuracy(synergy), abs=0.03)


def test_ties_are_split_evenly() -> None:
    scores = np.array([[1.0, 1.0, 1.0, 0.0], [2.0, 3.0, -np.inf, 2.0], [-np.inf, -np.inf, -np.inf, -np.inf]])
    assert chance_within(scores, [0, 0, 2], 1) == pytest.approx([1 / 3, 0, 1 / 4])
    assert chance_within(scores, [0, 0, 2], 2) == pytest.approx([2 / 3, 1 / 2, 1 / 2])


def test_the_order_of_additions_makes_no_difference() -> None:
    a, b = 0.1 + 0.2 + 0.3, 0.3 + 0.2 + 0.1
    assert a != b, "this test needs two sums that differ in the last bit"
    assert chance_within(np.array([[a, b]]), [0], 1)[0] == 0.5


@given(st.lists(st.sampled_from([-np.inf, 0.0, 0.5, 1.0]), min_size=1, max_size=8), st.data())
def test_chances_over_all_positions_add_up_to_k(row: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(row)))
    scores = np.tile(row, (len(row), 1))
    assert chance_within(scores, np.arange(len(row)), k).sum() == pytest.approx(k)


def test_recall_grows_to_one() -> None:
    ids, _, oracle = hospital(64, 1.0)
    recall = [oracle.recall_at(k, ids, ids) for k in (1, 5, 10, 64)]
    assert recall == sorted(recall)
    assert recall[-1] == 1.0
    assert recall[0] > 1 / 64


def test_recall_needs_the_positive_in_the_gallery() -> None:
    ids, _, oracle = hospital(10, 1.0)
    with pytest.raises(InputError, match="not in the gallery"):
        oracle.recall_at(1, ids, ids[:5])


def test_unknown_admissions_are_named_as_a_mistake() -> None:
    ids, _, oracle = hospital(10, 1.0)
    with pytest.raises(InputError, match="2 admissions are not in the truth table"):
        oracle.log_scores([1, 2], ids)


def test_signs_that_the_law_cannot_draw_are_refused() -> None:
    zero, one = np.zeros((1, 5), np.uint8), np.ones((1, 5), np.uint8)
    with pytest.raises(InputError, match="cannot draw"):
        Oracle([1], Signs(one, one, zero), synergy=0.0)


def test_a_wrong_folder_is_explained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"law\.json.*simulate"):
        Oracle.load(tmp_path)
    (tmp_path / "law.json").write_text(json.dumps({"synergy": 0.5, "channels": ["other"]}))
    with pytest.raises(InputError, match="another version"):
        Oracle.load(tmp_path)
    (tmp_path / "law.json").write_text(json.dumps({"synergy": 0.5, "channels": CHANNEL_NAMES}))
    with pytest.raises(InputError, match="truth"):
        Oracle.load(tmp_path)

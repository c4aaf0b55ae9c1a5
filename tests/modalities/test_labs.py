"""Laboratory statistics against a naive ECDF, SciPy's percentile of a score, and the properties an ECDF has."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import percentileofscore
from sklearn.utils.estimator_checks import parametrize_with_checks

from clinical_symile.errors import InputError
from clinical_symile.modalities.lab_encoder import LabPercentileEncoder
from clinical_symile.modalities.labs import LabStatistics, encode
from clinical_symile.types import LAB_ITEM_IDS

NAN = math.nan
ITEMS = ("50802", "50804", "50813")
# Few distinct values, as laboratories round: ties are the rule. 0.7 is below its own float32 value's float64 neighbour.
LAB_VALUES = st.sampled_from([NAN, -3.0, 0.0, 0.1, 0.7, 0.7000001, 7.4, 12.0, 1e6])
MATRICES = st.integers(1, 30).flatmap(lambda n: arrays(np.float64, (n, len(ITEMS)), elements=LAB_VALUES))


def naive_percentiles(train: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The paper's definition, one value at a time."""
    out = np.empty(values.shape)
    for k in range(values.shape[1]):
        observed = [np.float32(v) for v in train[:, k] if not math.isnan(v)]
        placed = [sum(o <= v for o in observed) / len(observed) for v in observed]
        mean = sum(placed) / len(placed) if placed else 0.5
        for i, value in enumerate(values[:, k]):
            if math.isnan(value):
                out[i, k] = mean
            else:
                out[i, k] = sum(o <= np.float32(value) for o in observed) / len(observed) if observed else 0.5
    return out


def test_ties_take_the_upper_step_and_the_missing_take_the_mean() -> None:
    """Closed form: of 1, 2, 2, 4 the value 2 is at or above three quarters."""
    statistics = LabStatistics.fit([[1.0], [2.0], [2.0], [4.0], [NAN]], ["50802"])
    percentiles, observed = statistics.transform([[0.0], [1.0], [2.0], [3.0], [4.0], [9.0], [NAN]])
    assert percentiles[:, 0].tolist() == [0.0, 0.25, 0.75, 0.75, 1.0, 1.0, 0.6875]  # mean of 1/4, 3/4, 3/4, 1
    assert observed[:, 0].tolist() == [1, 1, 1, 1, 1, 1, 0]
    assert percentiles.dtype == np.float32
    assert observed.dtype == np.uint8


@given(train=MATRICES, values=MATRICES)
def test_transform_equals_the_naive_definition(train: np.ndarray, values: np.ndarray) -> None:
    percentiles, observed = LabStatistics.fit(train, ITEMS).transform(values)
    np.testing.assert_allclose(percentiles, naive_percentiles(train, values), rtol=0, atol=6e-8)
    np.testing.assert_array_equal(observed, ~np.isnan(values))


def test_transform_equals_scipys_weak_percentile() -> None:
    rng = np.random.default_rng(1)
    train = np.round(rng.normal(140, 4, (500, 1)), 0)
    values = np.arange(120, 160.0)[:, None]
    percentiles, _ = LabStatistics.fit(train, ["50983"]).transform(values)
    expected = [percentileofscore(train[:, 0], value, kind="weak") / 100 for value in values[:, 0]]
    np.testing.assert_allclose(percentiles[:, 0], expected, rtol=0, atol=1e-7)


@given(train=MATRICES)
def test_percentile_rises_with_the_value_and_stays_in_the_unit_interval(train: np.ndarray) -> None:
    ladder = np.repeat(np.linspace(-5, 15, 41)[:, None], len(ITEMS), axis=1)
    percentiles, _ = LabStatistics.fit(train, ITEMS).transform(ladder)
    assert (np.diff(percentiles, axis=0) >= 0).all()
    assert ((percentiles >= 0) & (percentiles <= 1)).all()


@given(train=MATRICES)
def test_values_stored_as_float32_are_encoded_alike(train: np.ndarray) -> None:
    """0.7 as float32 lies below 0.7 as float64: without one precision for both, a tie would break."""
    statistics = LabStatistics.fit(train, ITEMS)
    raw, _ = statistics.transform(train)
    stored, _ = statistics.transform(train.astype(np.float32))
    np.testing.assert_array_equal(raw, stored)


@given(train=MATRICES, values=MATRICES)
def test_json_keeps_every_bit(train: np.ndarray, values: np.ndarray) -> None:
    statistics = LabStatistics.fit(train, ITEMS)
    text = json.dumps(statistics.to_json(), allow_nan=False)
    for restored in (LabStatistics.from_json(text), LabStatistics.from_json(json.loads(text))):
        assert restored.to_json() == statistics.to_json()
        for before, after in zip(statistics.transform(values), restored.transform(values), strict=True):
            np.testing.assert_array_equal(before, after)


def test_an_item_never_measured_in_training_is_placed_in_the_middle() -> None:
    statistics = LabStatistics.fit([[1.0, NAN], [2.0, NAN]], ["50802", "50804"])
    percentiles, observed = statistics.transform([[NAN, NAN], [1.5, 8.0]])
    assert percentiles.tolist() == [[0.75, 0.5], [0.5, 0.5]]
    assert observed.tolist() == [[0, 0], [1, 1]]


def test_statistics_come_from_the_training_rows_alone() -> None:
    rng = np.random.default_rng(0)
    train = rng.normal(size=(40, len(LAB_ITEM_IDS)))
    statistics = LabStatistics.fit(train)
    before = statistics.to_json()
    statistics.transform(rng.normal(5, 1, size=(40, len(LAB_ITEM_IDS))))
    assert statistics.to_json() == before
    assert [item["itemid"] for item in before["items"]] == list(LAB_ITEM_IDS)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1.0, 2.0]], r"shape \(n, 3\)"),
        ([1.0, 2.0, 3.0], r"shape \(n, 3\)"),
        ([[1.0, np.inf, 2.0]], "finite"),
        ([["high"] * 3], "numbers"),
    ],
)
def test_wrong_values_are_refused(values: list, message: str) -> None:
    with pytest.raises(InputError, match=message):
        LabStatistics.fit(values, ITEMS)


@pytest.mark.parametrize(
    "damage",
    [
        lambda tree: tree.pop("items"),
        lambda tree: tree.update(format=99),
        lambda tree: tree["items"][0].update(values=[2.0, 1.0, 3.0]),
        lambda tree: tree["items"][0].update(counts=[1, 2]),
        lambda tree: tree["items"][0].update(counts=[0, 1, 2]),
        lambda tree: tree["items"][0].update(mean_percentile=1.5),
        lambda tree: tree["items"][0].update(mean_percentile="high"),
    ],
)
def test_damaged_statistics_are_refused(damage) -> None:
    tree = LabStatistics.fit([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0], [3.0, 3.0, 3.0]], ITEMS).to_json()
    damage(tree)
    with pytest.raises(InputError, match="laboratory statistics"):
        LabStatistics.from_json(tree)


def test_text_that_is_not_json_is_refused() -> None:
    with pytest.raises(InputError, match="not what 'prepare' writes"):
        LabStatistics.from_json("{")


def test_encode_puts_percentiles_before_indicators() -> None:
    vector = encode(np.array([[0.25, 0.5]], np.float32), np.array([[1, 0]], np.uint8))
    assert vector.tolist() == [[0.25, 0.5, 1.0, 0.0]]
    assert vector.dtype == np.float32
    with pytest.raises(InputError, match="same shape"):
        encode(np.zeros((1, 2), np.float32), np.zeros((2, 2), np.uint8))


@parametrize_with_checks([LabPercentileEncoder()])
def test_encoder_keeps_scikit_learns_contract(estimator, check) -> None:
    check(estimator)


def test_encoder_gives_the_same_vector_and_names_its_columns() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"50813": [1.0, 2.0, NAN], "50912": [NAN, 1.1, 0.9]})
    encoder = LabPercentileEncoder().set_output(transform="pandas")
    encoded = encoder.fit_transform(frame)
    assert list(encoded.columns) == ["50813_percentile", "50912_percentile", "50813_observed", "50912_observed"]
    expected = encode(*LabStatistics.fit(frame.to_numpy(), ["50813", "50912"]).transform(frame.to_numpy()))
    np.testing.assert_array_equal(encoded.to_numpy(), expected)

"""The patient-clustered bootstrap: a naive oracle, its coverage, and what clustering and pairing change."""

from __future__ import annotations

import time

import numpy as np
import pytest
import scipy.stats

from clinical_symile.errors import InputError
from clinical_symile.evaluation.bootstrap import PatientBootstrap, percentile_interval
from clinical_symile.evaluation.metrics import Column


def bootstrap_of(subjects: np.ndarray, resamples: int = 2000, seed: int = 0) -> PatientBootstrap:
    return PatientBootstrap(subjects, resamples, np.random.default_rng(seed))


def width(replicates: np.ndarray) -> float:
    low, high = percentile_interval(replicates, 0.95)
    return high - low


def test_every_resample_is_that_of_a_naive_loop() -> None:
    rng = np.random.default_rng(0)
    subjects = rng.integers(100, 112, 30)
    values = rng.integers(0, 4, 30).astype(float)
    bootstrap = bootstrap_of(subjects, resamples=200)
    means, medians = bootstrap.means(np.stack([values, values**2], axis=1)), bootstrap.medians(values)
    patients = np.unique(subjects)
    for row, weights in enumerate(bootstrap.weights):
        assert weights.sum() == len(patients), "each resample draws as many patients as there are"
        drawn = np.concatenate(
            [np.tile(values[subjects == patient], int(w)) for patient, w in zip(patients, weights, strict=True)]
        )
        assert means[row, 0] == pytest.approx(drawn.mean())
        assert means[row, 1] == pytest.approx((drawn**2).mean())
        assert medians[row] == np.median(drawn)


def test_draws_are_multinomial() -> None:
    weights = bootstrap_of(np.arange(50), resamples=4000).weights.astype(float)
    # A patient's weight is Binomial(50, 1/50): mean 1, variance 49/50.
    assert weights.mean() == 1.0
    assert weights.var() == pytest.approx(49 / 50, rel=0.03)


def test_same_seed_same_resamples_and_subject_names_do_not_matter() -> None:
    subjects = np.array([7, 7, 3, 5, 5, 5])
    first, again, other = bootstrap_of(subjects), bootstrap_of(subjects), bootstrap_of(subjects, seed=1)
    np.testing.assert_array_equal(first.weights, again.weights)
    assert (first.weights != other.weights).any()
    np.testing.assert_array_equal(first.weights, bootstrap_of(subjects + 10_000_000).weights)


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    subjects, values = rng.integers(0, 40, 60), rng.random(60)
    whole = bootstrap_of(subjects)
    expected = whole.means(values[:, None]), whole.medians(values)
    monkeypatch.setattr("clinical_symile.evaluation.bootstrap._BLOCK", 700)
    np.testing.assert_allclose(whole.means(values[:, None]), expected[0], rtol=1e-14)
    np.testing.assert_array_equal(whole.medians(values), expected[1])


def test_replicates_use_each_columns_own_statistic() -> None:
    subjects, values = np.arange(9), np.array([0.0, 0, 0, 0, 0, 0, 0, 0, 9])
    replicates = bootstrap_of(subjects).replicates({"mean": Column(values), "median": Column(values, "median")})
    assert replicates["mean"].max() > 0
    assert np.median(replicates["median"]) == 0.0


def test_scipy_agrees_when_every_patient_asks_once() -> None:
    hits = (np.random.default_rng(0).random(300) < 0.3).astype(float)
    theirs = scipy.stats.bootstrap((hits,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1))
    ours = percentile_interval(bootstrap_of(np.arange(300), 20_000).means(hits[:, None])[:, 0], 0.95)
    assert ours == pytest.approx(tuple(theirs.confidence_interval), abs=0.005)


def test_interval_is_the_central_share() -> None:
    assert percentile_interval(np.arange(101.0), 0.9) == pytest.approx((5.0, 95.0))


def test_identical_queries_give_an_interval_without_width() -> None:
    assert percentile_interval(bootstrap_of(np.arange(20)).means(np.ones((20, 1)))[:, 0], 0.95) == (1.0, 1.0)


def test_one_patient_is_refused() -> None:
    with pytest.raises(InputError, match="at least two patients, but this split has 1"):
        bootstrap_of(np.array([5, 5, 5]))


def test_admissions_of_one_patient_do_not_count_twice() -> None:
    """Copies of a query under the same patient add nothing: the interval stays. Taken for new patients, it shrinks."""
    rng = np.random.default_rng(0)
    hits = (rng.random(150) < 0.4).astype(float)
    copies, patients = np.tile(hits, 3), np.tile(np.arange(150), 3)
    honest = width(bootstrap_of(patients).means(copies[:, None])[:, 0])
    original = width(bootstrap_of(np.arange(150)).means(hits[:, None])[:, 0])
    careless = width(bootstrap_of(np.arange(450)).means(copies[:, None])[:, 0])
    assert honest == pytest.approx(original, rel=0.1)
    assert careless == pytest.approx(original / np.sqrt(3), rel=0.1)


def test_pairing_narrows_the_interval_of_correlated_models() -> None:
    rng = np.random.default_rng(0)
    subjects = np.arange(464)
    first = (rng.random(464) < 0.45).astype(float)
    # The second model agrees with the first on nine queries of ten.
    second = np.where(rng.random(464) < 0.9, first, rng.random(464) < 0.45).astype(float)
    paired = bootstrap_of(subjects)
    difference = paired.means(first[:, None])[:, 0] - paired.means(second[:, None])[:, 0]
    unpaired = paired.means(first[:, None])[:, 0] - bootstrap_of(subjects, seed=1).means(second[:, None])[:, 0]
    assert width(difference) < 0.5 * width(unpaired)


def test_two_thousand_resamples_of_five_hundred_queries_take_well_under_a_second() -> None:
    rng = np.random.default_rng(0)
    subjects = rng.integers(0, 480, 500)
    columns = {str(number): Column(rng.random(500)) for number in range(5)} | {"median": Column(rng.random(500), "median")}
    started = time.process_time()
    bootstrap_of(subjects).replicates(columns)
    assert time.process_time() - started < 1.0


def clustered_hits(rng: np.random.Generator, patients: int) -> tuple[np.ndarray, np.ndarray]:
    """Queries of patients who differ in how hard they are; the expected hit rate is 0.4 for every number of admissions."""
    admissions = rng.integers(1, 5, patients)
    difficulty = rng.beta(1.0, 1.5, patients)
    subjects = np.repeat(np.arange(patients), admissions)
    return subjects, (rng.random(len(subjects)) < difficulty[subjects]).astype(float)


@pytest.mark.slow
def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    truth, datasets = 0.4, 1500
    covered = careless = 0
    for number in range(datasets):
        subjects, hits = clustered_hits(rng, 200)
        low, high = percentile_interval(bootstrap_of(subjects, 1000, number).means(hits[:, None])[:, 0], 0.95)
        covered += low <= truth <= high
        low, high = percentile_interval(bootstrap_of(np.arange(len(hits)), 1000, number).means(hits[:, None])[:, 0], 0.95)
        careless += low <= truth <= high
    assert 0.93 <= covered / datasets <= 0.97, f"patients resampled: {covered / datasets:.3f}"
    assert careless / datasets < 0.9, f"admissions resampled as if independent: {careless / datasets:.3f}"


@pytest.mark.slow
def test_intervals_of_paired_differences_cover_zero() -> None:
    rng = np.random.default_rng(1)
    datasets = 1500
    covered = 0
    for number in range(datasets):
        subjects, first = clustered_hits(rng, 200)
        # Exchangeable with the first, so the true difference is 0, and agreeing with it on four queries of five.
        swapped = rng.random(len(first)) < 0.2
        second = np.where(swapped, rng.random(len(first)) < 0.4, first)
        first = np.where(swapped, rng.random(len(first)) < 0.4, first)
        bootstrap = bootstrap_of(subjects, 1000, number)
        low, high = percentile_interval(bootstrap.means((first - second)[:, None])[:, 0], 0.95)
        covered += low <= 0 <= high
    assert 0.93 <= covered / datasets <= 0.97, f"{covered / datasets:.3f}"

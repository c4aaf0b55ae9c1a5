"""The law: its table, its closed forms and its sampler agree with each other and with first principles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinical_symile.simulation.law import (
    CHANNELS,
    MINIMUM_SEVERITY,
    draw_severities,
    informations,
    joint,
    log_posterior_ratio,
    sample_signs,
)

synergies = st.floats(0, 1, allow_nan=False)


def entropy(p: np.ndarray) -> float:
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())


def mutual_information(table: np.ndarray) -> float:
    """I(a; b) in nats from a joint table p[a, b]."""
    return entropy(table.sum(1)) + entropy(table.sum(0)) - entropy(table)


@given(synergies)
def test_joint_is_a_fair_symmetric_law(synergy: float) -> None:
    table = joint(synergy)
    assert table.sum() == pytest.approx(1)
    assert (table >= 0).all()
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        assert table.sum(others) == pytest.approx([0.5, 0.5])
    for order in ((0, 2, 1), (1, 0, 2), (2, 1, 0)):
        np.testing.assert_allclose(table, table.transpose(order), err_msg="the three modalities play the same part")


@given(synergies)
def test_informations_agree_with_enumeration(synergy: float) -> None:
    table = joint(synergy)
    closed = informations(synergy)
    pairs = [mutual_information(table.sum(axis)) for axis in (1, 0, 2)]
    assert [closed.ecg_cxr, closed.labs_cxr, closed.ecg_labs] == pytest.approx(pairs, abs=1e-12)
    both = mutual_information(table.reshape(4, 2))
    assert closed.both_cxr == pytest.approx(both, abs=1e-12)
    assert closed.total_correlation == pytest.approx(3 * np.log(2) - entropy(table), abs=1e-12)
    assert closed.synergy == pytest.approx(both - pairs[0] - pairs[1], abs=1e-12)


def test_at_full_synergy_any_two_modalities_are_independent_and_two_decide_the_third() -> None:
    full = informations(1.0)
    assert full.ecg_cxr == full.labs_cxr == full.ecg_labs == 0
    assert full.both_cxr == pytest.approx(np.log(2))
    np.testing.assert_allclose(joint(1.0).sum(0), 0.25)


def test_without_synergy_one_modality_says_all() -> None:
    none = informations(0.0)
    assert none.ecg_cxr == none.both_cxr == pytest.approx(np.log(2))


@given(synergies)
def test_posterior_is_bayes_rule(synergy: float) -> None:
    table, ratio = joint(synergy), log_posterior_ratio(synergy)
    for e, labs, x in np.ndindex(2, 2, 2):
        evidence = table[e, labs].sum()
        if evidence == 0:
            assert np.isnan(ratio[e, labs, x])
        else:
            assert np.exp(ratio[e, labs, x]) * 0.5 == pytest.approx(table[e, labs, x] / evidence)


@pytest.mark.parametrize("synergy", [0.0, 0.3, 0.8, 1.0])
def test_sampler_follows_the_law(synergy: float) -> None:
    n = 40_000
    signs = sample_signs(n, synergy, np.random.default_rng(7))
    code = 4 * signs.ecg + 2 * signs.labs + signs.cxr
    for channel in range(len(CHANNELS)):
        seen = np.bincount(code[:, channel], minlength=8) / n
        # Five standard errors of a proportion.
        assert np.abs(seen - joint(synergy).ravel()).max() < 5 * np.sqrt(0.25 / n), CHANNELS[channel].name


def test_channels_are_independent() -> None:
    signs = sample_signs(40_000, 0.5, np.random.default_rng(3))
    correlation = np.corrcoef(np.concatenate(signs, axis=1).T)
    k = len(CHANNELS)
    same_channel = np.tile(np.eye(k, dtype=bool), (3, 3))
    assert np.abs(correlation[~same_channel]).max() < 0.03


def test_synergy_changes_no_ecg() -> None:
    """The same seed at another synergy is the same hospital with other ties."""
    low, high = (sample_signs(500, s, np.random.default_rng(1)) for s in (0.0, 1.0))
    np.testing.assert_array_equal(low.ecg, high.ecg)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_severities_start_at_a_clear_level_and_only_where_a_sign_is(seed: int) -> None:
    rng = np.random.default_rng(seed)
    signs = rng.integers(0, 2, (50, 5), dtype=np.uint8)
    severities = draw_severities(signs, rng)
    np.testing.assert_array_equal(severities > 0, signs == 1)
    assert severities[signs == 1].min(initial=1) >= MINIMUM_SEVERITY
    assert severities.max() <= 1

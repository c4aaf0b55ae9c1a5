"""The ECG: physics that must hold exactly, and signs that a cardiologist would look for."""

from __future__ import annotations

import numpy as np
import pytest

from clinical_symile.simulation.ecg import ADC_PER_MV, render_ecg
from clinical_symile.simulation.law import CHANNEL_NAMES
from clinical_symile.types import ECG_FS_HZ, ECG_LEADS

LEAD = {name: column for column, name in enumerate(ECG_LEADS)}


def ecg_mv(seed: int = 0, age: int = 60, **severities: float) -> np.ndarray:
    shows = tuple(severities.get(name, 0.0) for name in CHANNEL_NAMES)
    return render_ecg(shows, age, np.random.default_rng(seed)) / ADC_PER_MV


def beats(ecg: np.ndarray) -> np.ndarray:
    """Sample numbers of the QRS complexes, from the slope of all leads."""
    slope = np.abs(np.diff(ecg, axis=0)).sum(1)
    smooth = np.convolve(slope, np.ones(30) / 30, "same")
    peaks = [i for i in range(1, len(smooth) - 1) if smooth[i] == smooth[max(0, i - 110) : i + 111].max() > 0.35 * smooth.max()]
    return np.array(peaks)


def mean_beat(ecg: np.ndarray) -> np.ndarray:
    """(400, 12): from 0.3 s before to 0.5 s after the complex, median over the beats, baseline removed."""
    cuts = [ecg[b - 150 : b + 250] for b in beats(ecg) if b >= 150 and b + 250 <= len(ecg)]
    beat = np.median(cuts, axis=0)
    return beat - np.median(beat, axis=0)


@pytest.mark.parametrize("seed", range(3))
def test_einthoven_and_goldberger(seed: int) -> None:
    lead = dict(zip(ECG_LEADS, ecg_mv(seed, edema=0.7, hyperinflation=0.6).T, strict=True))
    np.testing.assert_allclose(lead["III"], lead["II"] - lead["I"], atol=1e-12)
    step = 1 / ADC_PER_MV
    np.testing.assert_allclose(lead["aVR"], -(lead["I"] + lead["II"]) / 2, atol=step)
    np.testing.assert_allclose(lead["aVL"], (lead["I"] - lead["III"]) / 2, atol=step)
    np.testing.assert_allclose(lead["aVF"], (lead["II"] + lead["III"]) / 2, atol=step)


def test_shape_type_and_size() -> None:
    adc = render_ecg((0, 0, 0, 0, 0), 60, np.random.default_rng(0))
    assert adc.shape == (5000, 12)
    assert adc.dtype == np.int16
    assert 0.5 < np.abs(adc).max() / ADC_PER_MV < 3


@pytest.mark.parametrize("seed", range(6))
def test_rate(seed: int) -> None:
    slow = 60 * ECG_FS_HZ / np.diff(beats(ecg_mv(seed))).mean()
    fast = 60 * ECG_FS_HZ / np.diff(beats(ecg_mv(seed, consolidation=0.5))).mean()
    assert 55 < slow < 88
    assert 100 < fast < 140


@pytest.mark.parametrize("seed", range(4))
def test_fibrillation_is_irregular_and_has_no_p_wave(seed: int) -> None:
    sinus, fibrillation = ecg_mv(seed), ecg_mv(seed, edema=0.5)

    def variation(ecg: np.ndarray) -> float:
        intervals = np.diff(beats(ecg))
        return float(intervals.std() / intervals.mean())

    def p_wave(ecg: np.ndarray) -> float:
        beat = mean_beat(ecg)[:, LEAD["II"]]
        return float(beat[60:115].max() - beat[30:50].mean())

    assert variation(sinus) < 0.06 < 0.1 < variation(fibrillation)
    assert p_wave(sinus) > 0.07
    assert p_wave(fibrillation) < p_wave(sinus)


@pytest.mark.parametrize("seed", range(4))
def test_hypertrophy_turns_the_axis_and_raises_voltages(seed: int) -> None:
    def net(ecg: np.ndarray, lead: str) -> float:
        beat = mean_beat(ecg)[125:180, LEAD[lead]]
        return float(beat.max() + beat.min())

    normal, large = ecg_mv(seed), ecg_mv(seed, cardiomegaly=0.5)
    assert net(normal, "I") > 0
    assert net(normal, "aVF") > 0, "normal axis: I and aVF positive"
    assert net(large, "I") > 0 > net(large, "aVF"), "left axis: I positive, aVF negative"
    sokolow = mean_beat(large)[:, LEAD["V5"]].max() - mean_beat(large)[:, LEAD["V1"]].min()
    assert sokolow > 2.8
    assert mean_beat(large)[:, LEAD["aVL"]].max() > 1.1, "R in aVL above 1.1 mV is a criterion of hypertrophy"


@pytest.mark.parametrize("seed", range(4))
def test_lateral_t_waves_are_inverted(seed: int) -> None:
    for lead in ("I", "aVL", "V4", "V5", "V6"):
        t_wave = mean_beat(ecg_mv(seed, effusion=0.5))[230:340, LEAD[lead]]
        assert t_wave.mean() < -0.03, lead
    assert mean_beat(ecg_mv(seed))[230:340, LEAD["V5"]].mean() > 0.05


@pytest.mark.parametrize("seed", range(4))
def test_bundle_branch_block_is_wide_and_ends_to_the_right(seed: int) -> None:
    normal, block = mean_beat(ecg_mv(seed)), mean_beat(ecg_mv(seed, hyperinflation=0.5))
    late = slice(165, 195)
    assert block[late, LEAD["V1"]].max() > 0.3 > normal[late, LEAD["V1"]].max()
    assert block[late, LEAD["I"]].min() < -0.15
    assert block[late, LEAD["V6"]].min() < -0.2


def test_same_generator_same_ecg() -> None:
    np.testing.assert_array_equal(ecg_mv(5, edema=0.8), ecg_mv(5, edema=0.8))

"""A 12-lead ECG from a moving heart dipole.

The dipole has three components in mV (x to the left arm, y to the feet, z to the back). Every wave of a beat is a Gaussian
with an amplitude vector; Dower's matrix projects the dipole on the eight independent leads I, II, V1-V6, and the others
follow from Einthoven and Goldberger:

    III = II - I,  aVR = -(I + II)/2,  aVL = I - II/2,  aVF = II - I/2.

Dower et al. 1980, "On deriving the electrocardiogram from vectorcardiographic leads", Clin Cardiol 3:87.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clinical_symile.simulation.law import CHANNEL_NAMES, Array
from clinical_symile.simulation.plan import Severities
from clinical_symile.types import ECG_FS_HZ, ECG_LEADS, ECG_SAMPLES, ECG_SECONDS

ADC_PER_MV: Final = 200

_INDEPENDENT: Final = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
_DOWER: Final = np.array(
    [
        [0.632, -0.235, 0.059],
        [0.235, 1.066, -0.132],
        [-0.515, 0.157, -0.917],
        [0.044, 0.164, -1.387],
        [0.882, 0.098, -1.277],
        [1.213, 0.127, -0.601],
        [1.125, 0.127, -0.086],
        [0.831, 0.076, 0.230],
    ]
)


class Wave(NamedTuple):
    """A Gaussian wave of the dipole: centre and width in seconds relative to the R peak, amplitude (x, y, z) in mV."""

    centre_s: float
    width_s: float
    amplitude: Array


class Rhythm(NamedTuple):
    """When the ventricles beat, and whether the atria contract before them."""

    beats_s: Array
    sinus: bool


def render_ecg(shows: Severities, age: int, rng: np.random.Generator) -> NDArray[np.int16]:
    """Draws one ECG.

    Args:
        shows: severity of each channel's sign, 0 where absent.
        age: in years; conduction slows a little and voltages fall with age.
        rng: source of randomness.

    Returns:
        (5000, 12) ADC units, 200 per mV, leads in the order of ``types.ECG_LEADS``.
    """
    severity = dict(zip(CHANNEL_NAMES, shows, strict=True))
    rhythm = _rhythm(severity["consolidation"], severity["edema"], rng)
    dipole = _dipole(severity, age, rhythm, rng)
    leads = dipole @ _DOWER.T + _disturbance(rng)
    if not rhythm.sinus:
        leads += _fibrillation(rng)
    return _to_adc(leads)


def _rhythm(tachycardia: float, fibrillation: float, rng: np.random.Generator) -> Rhythm:
    """Beats from a little before the record to a little after it.

    Sinus: intervals vary by about 3 %, mostly with respiration. Fibrillation: independent gamma-distributed intervals
    with a coefficient of variation of 0.2 to 0.28, never shorter than 0.3 s.
    """
    rate = rng.normal(70, 5) if tachycardia == 0 else 108 + 16 * tachycardia + rng.normal(0, 4)
    mean = 60.0 / float(np.clip(rate, 52, 140))
    count = int((ECG_SECONDS + 3) / mean * 1.8) + 5
    if fibrillation > 0:
        variation = 0.16 + 0.12 * fibrillation
        intervals = np.maximum(rng.gamma(1 / variation**2, mean * variation**2, count), 0.30)
    else:
        phase = rng.uniform(0, 2 * np.pi)
        respiration = np.sin(phase + 2 * np.pi * 0.25 * mean * np.arange(count))
        intervals = mean * (1 + 0.02 * respiration + 0.01 * rng.standard_normal(count))
    beats = np.cumsum(intervals) - 1.2 - rng.uniform(0, mean)
    return Rhythm(beats[beats < ECG_SECONDS + 0.6], fibrillation == 0)


def _dipole(severity: dict[str, float], age: int, rhythm: Rhythm, rng: np.random.Generator) -> Array:
    """The dipole (5000, 3) in mV: all waves of all beats."""
    signal = np.zeros((ECG_SAMPLES, 3))
    gain = 1.0 - 0.002 * (age - 60) + rng.normal(0, 0.08)
    tilt = _small_rotation(rng)
    intervals = np.diff(rhythm.beats_s, prepend=rhythm.beats_s[0] - np.median(np.diff(rhythm.beats_s)))
    depolarisation = _depolarisation(severity["cardiomegaly"], severity["hyperinflation"], rng)
    pr = float(np.clip(0.155 + 0.0005 * (age - 60) + rng.normal(0, 0.012), 0.12, 0.2))
    repolarisation = _repolarisation(severity["effusion"], rng)
    qt_corrected = 0.405 + rng.normal(0, 0.012)
    for beat, interval in zip(rhythm.beats_s, intervals, strict=True):
        # Fridericia: QT = QTc * RR^(1/3). In fibrillation the interval before the beat counts, but less than in sinus rhythm.
        cycle = interval if rhythm.sinus else 0.5 * (interval + float(np.median(intervals)))
        stretch = float(np.cbrt(np.clip(cycle, 0.4, 1.2)))
        waves = list(depolarisation)
        if rhythm.sinus:
            waves.append(Wave(-pr + 0.01, 0.021, np.array([0.06, 0.11, -0.025])))
            waves.append(Wave(-pr + 0.038, 0.02, np.array([0.05, 0.05, 0.025])))
        end = qt_corrected * stretch - 0.045
        waves += [Wave(end - 0.115 * stretch, 0.055 * stretch, 0.55 * repolarisation)]
        waves += [Wave(end - 0.065 * stretch, 0.036 * stretch, 0.75 * repolarisation)]
        strength = 1.0 + 0.03 * rng.standard_normal()
        for wave in waves:
            _add_wave(signal, beat, wave, gain * strength)
    return signal @ tilt


def _depolarisation(hypertrophy: float, bundle_branch_block: float, rng: np.random.Generator) -> list[Wave]:
    """Septum, free wall, base; hypertrophy turns and enlarges the free wall's vector, the block adds a late right one."""
    vary = 1.0 + 0.08 * rng.standard_normal(4)
    wall = np.array([1.02, 0.78, 0.42])
    base = np.array([-0.18, -0.22, 0.42])
    if hypertrophy > 0:
        wall = np.array([1.35, -0.55, 0.72]) * (1.0 + 0.4 * hypertrophy)
        base = np.array([0.05, -0.5, 0.55]) * (0.7 + 0.5 * hypertrophy)
    waves = [
        Wave(-0.030, 0.0085, vary[0] * np.array([-0.11, 0.04, -0.20])),
        Wave(0.0, 0.0115, vary[1] * wall),
        Wave(0.024, 0.0105, vary[2] * base),
    ]
    if bundle_branch_block > 0:
        late = np.array([-0.62, -0.02, -0.62]) * (0.75 + 0.6 * bundle_branch_block)
        waves.append(Wave(0.062, 0.0165, vary[3] * late))
        waves.append(Wave(0.090, 0.016, 0.4 * vary[3] * late))
    return waves


def _repolarisation(inversion: float, rng: np.random.Generator) -> Array:
    """Peak T vector: normally to the left, down and forward; inverted in the lateral leads it points to the right."""
    upright = np.array([0.30, 0.20, -0.16])
    inverted = np.array([-0.30 - 0.14 * inversion, 0.10, -0.10])
    vector = inverted if inversion > 0 else upright
    return vector * (1.0 + 0.1 * rng.standard_normal()) + 0.015 * rng.standard_normal(3)


def _add_wave(signal: Array, beat_s: float, wave: Wave, gain: float) -> None:
    centre = beat_s + wave.centre_s
    first = max(int((centre - 4 * wave.width_s) * ECG_FS_HZ), 0)
    last = min(int((centre + 4 * wave.width_s) * ECG_FS_HZ) + 2, ECG_SAMPLES)
    if first < last:
        time = np.arange(first, last) / ECG_FS_HZ - centre
        shape = np.exp(-0.5 * (time / wave.width_s) ** 2)
        signal[first:last] += gain * shape[:, None] * wave.amplitude


def _small_rotation(rng: np.random.Generator) -> Array:
    """The heart does not lie alike in any two chests: a rotation by about five degrees around each axis."""
    x, y, z = rng.normal(0, np.deg2rad(5), 3)
    generator = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + generator + 0.5 * generator @ generator


def _fibrillation(rng: np.random.Generator) -> Array:
    """Fibrillation waves, 5 to 8 per second, wandering in frequency and size; largest in V1 and II. Returns (5000, 8)."""
    time = np.arange(ECG_SAMPLES) / ECG_FS_HZ
    frequency = rng.uniform(5.2, 7.2) + 0.7 * _wander(rng, 0.6)
    phase = 2 * np.pi * np.cumsum(frequency) / ECG_FS_HZ + rng.uniform(0, 2 * np.pi)
    size = 0.055 * (1 + 0.35 * _wander(rng, 0.8)) * rng.uniform(0.8, 1.4)
    wave = size * (np.sin(phase) + 0.35 * np.sin(2 * phase + 0.6) + 0.15 * np.sin(2 * np.pi * 4.1 * time))
    share = np.array([0.35, 0.9, 1.5, 0.9, 0.5, 0.35, 0.3, 0.25])
    return wave[:, None] * share


def _disturbance(rng: np.random.Generator) -> Array:
    """Baseline wander with respiration, muscle and mains, on the eight recorded leads. Returns (5000, 8) in mV."""
    time = np.arange(ECG_SAMPLES) / ECG_FS_HZ
    count = len(_INDEPENDENT)
    noise = rng.standard_normal((ECG_SAMPLES, count)) * rng.uniform(0.004, 0.014)
    breathing = np.sin(2 * np.pi * rng.uniform(0.18, 0.32) * time + rng.uniform(0, 2 * np.pi))
    mains = np.sin(2 * np.pi * 60 * time + rng.uniform(0, 2 * np.pi))
    noise += breathing[:, None] * rng.normal(0, 0.025, count) + mains[:, None] * rng.normal(0, 0.003, count)
    for lead in range(count):
        noise[:, lead] += 0.03 * _wander(rng, 0.15) * rng.uniform(0.2, 1.2)
    return noise


def _wander(rng: np.random.Generator, cutoff_hz: float) -> Array:
    """A smooth random function of about unit size without content above ``cutoff_hz``: (5000,)."""
    knots = np.arange(-2, int(ECG_SECONDS * 2 * cutoff_hz) + 4)
    heights = rng.standard_normal(len(knots))
    position = np.arange(ECG_SAMPLES) / ECG_FS_HZ * 2 * cutoff_hz
    left = np.floor(position).astype(int)
    blend = 0.5 - 0.5 * np.cos(np.pi * (position - left))
    return (1 - blend) * heights[left + 2] + blend * heights[left + 3]


def _to_adc(leads: Array) -> NDArray[np.int16]:
    """Quantises I, II, V1-V6, then derives the limb leads from the quantised ones, so that III = II - I holds exactly."""
    adc = dict(zip(_INDEPENDENT, np.round(leads.T * ADC_PER_MV).astype(np.int32), strict=True))
    adc["III"] = adc["II"] - adc["I"]
    adc["aVR"] = -(adc["I"] + adc["II"]) // 2
    adc["aVL"] = (2 * adc["I"] - adc["II"]) // 2
    adc["aVF"] = (2 * adc["II"] - adc["I"]) // 2
    return np.stack([adc[lead] for lead in ECG_LEADS], axis=1).astype(np.int16)

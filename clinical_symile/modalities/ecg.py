"""12-lead ECGs: a WFDB record becomes 10 s of int16 samples at 500 Hz, which stay exactly invertible to millivolts.

Leads are found by *name*, never by position: MIMIC-IV-ECG stores aVF before aVL, most others the reverse.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clinical_symile.errors import InputError, UnusableFile
from clinical_symile.modalities.intake import is_dicom
from clinical_symile.modalities.wfdb_header import Header, Signal, read_header
from clinical_symile.modalities.wfdb_samples import read_samples
from clinical_symile.types import ECG_FS_HZ, ECG_LEADS, ECG_SAMPLES, ECG_SECONDS, EcgCondition

MAX_ABS_MV: Final = 32767 / 200
"""163.8 mV: what MIMIC's 16 bits at 200 per mV hold, so no MIMIC record is refused for its size, but microvolts that are
labelled mV are: their QRS complexes would measure hundreds of mV."""

_MV_PER_UNIT: Final = {"mv": 1.0, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3}
"""In lower case; the two last are the micro sign and the Greek letter."""

_INT16_MAX: Final = 32767
_INVALID: Final = -32768
"""Format 16's mark of a missing sample; never a value here."""


@dataclass(frozen=True, eq=False)
class EcgRecord:
    """Ten seconds of a 12-lead ECG.

    Attributes:
        adc: (5000, 12) int16 samples, leads in the order of ``types.ECG_LEADS``.
        gain: (12,) float64, ADC units per mV.
        baseline: (12,) float64, the ADC value of 0 mV, a whole number.
        fs_hz: samples per second, always 500.
        source_fs_hz: the file's own sampling rate; another value means that the record was resampled.
    """

    adc: NDArray[np.int16]
    gain: NDArray[np.float64]
    baseline: NDArray[np.float64]
    fs_hz: int = ECG_FS_HZ
    source_fs_hz: float = float(ECG_FS_HZ)

    @property
    def flat_leads(self) -> tuple[str, ...]:
        """Leads without any deflection: an electrode that was off. They are accepted, since the paper accepts them."""
        flat = self.adc.min(axis=0) == self.adc.max(axis=0)
        return tuple(ECG_LEADS[lead] for lead in np.flatnonzero(flat))

    def to_mv(self) -> NDArray[np.float32]:
        """(5000, 12) float32 in mV."""
        return to_mv(self.adc, self.gain, self.baseline)


def read_ecg(record_path: Path | str, root: Path | None = None) -> EcgRecord:
    """Reads a 12-lead ECG from a WFDB record.

    At 500 Hz the digital values are kept as they are, without loss. At other rates, and where they do not fit 16 bits,
    the signal is resampled in mV with a polyphase filter (``scipy.signal.resample_poly``, which removes what 500 Hz
    cannot hold) and rounded to 1/1000 mV, or to 1/200 mV when it exceeds 32.7 mV: never more than 2.5 µV off. Of longer
    records the first 10 s are taken. Leads that are missing are not derived from others.

    Args:
        record_path: path without extension (``.hea`` is tolerated).
        root: folder that the record's files must lie in after following links; default: the record's own folder.

    Raises:
        UnusableFile: no 12-lead ECG of 10 s can be made of it; the reason says why.
    """
    path = Path(record_path)
    if path.suffix == ".hea":
        path = path.with_suffix("")
    if is_dicom(path):
        raise UnusableFile(path, "is a DICOM file; DICOM waveforms are not read yet, export the ECG as WFDB (.hea and .dat)")
    header = read_header(path, root)
    channels = _find_leads(header, path)
    signals = [header.signals[channel] for channel in channels]
    for lead, signal in zip(ECG_LEADS, signals, strict=True):
        _require_calibrated(lead, signal, path)
    digital, missing = read_samples(path, header, channels, ECG_SECONDS)
    ten_seconds = math.ceil(ECG_SECONDS * header.fs_hz)
    if header.fs_hz == ECG_FS_HZ or missing[ten_seconds:].any():  # what follows is only there to resample with
        digital, missing = digital[:ten_seconds], missing[:ten_seconds]
    gain = np.array([signal.gain / _MV_PER_UNIT[signal.unit.lower()] for signal in signals])
    baseline = np.array([signal.baseline for signal in signals], dtype=np.float64)
    if missing.any():
        leads = [ECG_LEADS[lead] for lead in np.flatnonzero(missing.any(axis=0))]
        raise UnusableFile(path, f"has missing samples (NaN) in {', '.join(leads)}")
    record = _to_record(digital, gain, baseline, header.fs_hz, path)
    if len(record.flat_leads) == len(ECG_LEADS):
        raise UnusableFile(path, "is flat: no lead shows any deflection")
    return record


def examine(record_path: Path | str, root: Path | None = None) -> EcgCondition:
    """What is wrong with a record, if anything; its files are opened once.

    The paper drops records with any NaN sample or only zeros *before* it takes the earliest; a record that cannot be
    read at all would have stopped it, and has a fault here too. A flat lead is no fault: the paper accepts it.

    Args:
        record_path: as for ``read_ecg``.
        root: as for ``read_ecg``.
    """
    try:
        return EcgCondition(flat_leads=read_ecg(record_path, root).flat_leads)
    except UnusableFile as error:
        return EcgCondition(fault=error.reason)


def to_mv(adc: NDArray[np.int16], gain: NDArray[np.floating], baseline: NDArray[np.floating]) -> NDArray[np.float32]:
    """From ADC values to millivolts, lead by lead.

    mV = (adc - baseline) / gain

    Args:
        adc: (…, 5000, 12) int16.
        gain: (…, 12) ADC units per mV.
        baseline: (…, 12) ADC value of 0 mV.

    Returns:
        (…, 5000, 12) float32 in mV.
    """
    return _to_mv64(adc, gain, baseline).astype(np.float32)


def minmax(ecg_mv: NDArray[np.floating]) -> NDArray[np.float32]:
    """Scales each record, all its leads together, to [-1, 1].

    out = 2 (x - min x) / (max x - min x) - 1, with min and max over the whole record (Saporta et al. 2024, appendix on
    Symile-MIMIC): the amplitude in mV is lost, the proportions between leads stay.

    Args:
        ecg_mv: (…, t, l) in mV.

    Returns:
        (…, 1, t, l) float32; computed in float64.

    Raises:
        InputError: a record is constant, or holds NaN or infinity.
    """
    signal = np.asarray(ecg_mv, dtype=np.float64)
    low, high = signal.min(axis=(-2, -1), keepdims=True), signal.max(axis=(-2, -1), keepdims=True)
    spread = high - low
    if not (np.isfinite(spread) & (spread > 0)).all():
        raise InputError("an ECG that is constant, or holds NaN, has no minimum and maximum to scale by; it must be left out")
    return np.expand_dims(2 * (signal - low) / spread - 1, axis=-3).astype(np.float32)


def encode(adc: NDArray[np.int16], gain: NDArray[np.floating], baseline: NDArray[np.floating]) -> NDArray[np.float32]:
    """What the ECG encoder sees: ``minmax`` of the millivolts, in float64 until the last step.

    From the ADC values of a record it is within one float32 rounding (6e-8) of the same formula on wfdb's ``p_signal``.

    Args:
        adc: (…, 5000, 12) int16.
        gain: (…, 12) ADC units per mV.
        baseline: (…, 12) ADC value of 0 mV.

    Returns:
        (…, 1, 5000, 12) float32 in [-1, 1].

    Raises:
        InputError: a record is constant.
    """
    return minmax(_to_mv64(adc, gain, baseline))


def _to_mv64(adc: NDArray[np.integer], gain: NDArray[np.floating], baseline: NDArray[np.floating]) -> NDArray[np.float64]:
    baseline64, gain64 = np.asarray(baseline, dtype=np.float64), np.asarray(gain, dtype=np.float64)
    return (adc - baseline64[..., None, :]) / gain64[..., None, :]


def _find_leads(header: Header, path: Path) -> list[int]:
    """The channel of each lead, in the order of ``ECG_LEADS``."""
    names = [signal.name.lower() for signal in header.signals]
    missing = [lead for lead in ECG_LEADS if lead.lower() not in names]
    if missing:
        raise UnusableFile(path, f"lacks the leads {', '.join(missing)}; a 12-lead ECG is needed, missing leads are not derived")
    twice = [lead for lead in ECG_LEADS if names.count(lead.lower()) > 1]
    if twice:
        raise UnusableFile(path, f"has more than one signal named {', '.join(twice)}")
    return [names.index(lead.lower()) for lead in ECG_LEADS]


def _require_calibrated(lead: str, signal: Signal, path: Path) -> None:
    if signal.unit.lower() not in _MV_PER_UNIT:
        raise UnusableFile(path, f"lead {lead} is in {signal.unit[:16]!r}, not in mV or µV")
    if signal.gain <= 0:
        raise UnusableFile(path, f"lead {lead} is not calibrated (gain {signal.gain:g})")
    if signal.samples_per_frame != 1 or signal.skew != 0:
        raise UnusableFile(path, f"lead {lead} is not sampled together with the others (samples per frame or skew)")


def _to_record(
    digital: NDArray[np.integer], gain: NDArray[np.float64], baseline: NDArray[np.float64], fs_hz: float, path: Path
) -> EcgRecord:
    mv = _to_mv64(digital, gain, baseline)
    peak = float(np.abs(mv[: math.ceil(ECG_SECONDS * fs_hz)]).max())
    if peak > MAX_ABS_MV:
        raise UnusableFile(path, f"reaches {peak:.4g} mV, which no ECG does: its unit or gain must be wrong")
    if fs_hz == ECG_FS_HZ:
        # float32, in which scales are stored, holds whole numbers up to 2^24.
        if digital.min() > _INVALID and digital.max() <= _INT16_MAX and np.abs(baseline).max() <= 2**24:
            return EcgRecord(digital.astype(np.int16), gain, baseline)
    else:
        mv = np.clip(_resample(mv, fs_hz)[:ECG_SAMPLES], -MAX_ABS_MV, MAX_ABS_MV)
    per_mv = 1000.0 if np.abs(mv).max() <= _INT16_MAX / 1000 else 200.0
    adc = np.rint(mv * per_mv).astype(np.int16)
    return EcgRecord(adc, np.full(len(ECG_LEADS), per_mv), np.zeros(len(ECG_LEADS)), source_fs_hz=fs_hz)


def _resample(mv: NDArray[np.float64], fs_hz: float) -> NDArray[np.float64]:
    from scipy.signal import resample_poly

    ratio = (Fraction(ECG_FS_HZ) / Fraction(fs_hz)).limit_denominator(1000)
    # Beyond its ends the signal is continued at its mean: zeros would put a step where a lead has an offset.
    return np.asarray(resample_poly(mv, ratio.numerator, ratio.denominator, axis=0, padtype="mean"))

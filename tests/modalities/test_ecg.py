"""12-lead ECGs: lossless where possible, resampled where not, refused with a reason where no 12-lead ECG can be made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wfdb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clinical_symile.errors import InputError, UnusableFile
from clinical_symile.modalities.ecg import MAX_ABS_MV, encode, examine, minmax, read_ecg, to_mv
from clinical_symile.types import ECG_LEADS, EcgCondition

WriteRecord = Callable[..., Path]
USUAL_ORDER = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


def waves(n_samples: int = 5000, fs: float = 500, leads: int = 12) -> np.ndarray:
    """(t, leads) mV; lead l has its own frequency and size, so that no two can be confused."""
    t = np.arange(n_samples)[:, None] / fs
    lead = np.arange(leads)
    return (0.5 + 0.1 * lead) * np.sin(2 * np.pi * (1 + lead) * t) + 0.02 * lead


@pytest.fixture
def write_record(tmp_path: Path) -> WriteRecord:
    """Writes a WFDB record with the wfdb package and gives its path without extension."""

    def write(signal: np.ndarray | None = None, *, fs: float = 500, leads: tuple[str, ...] = ECG_LEADS, **fields: Any) -> Path:
        signal = waves(leads=len(leads)) if signal is None else signal
        defaults: dict[str, Any] = {"units": ["mV"] * len(leads), "fmt": ["16"] * len(leads), "adc_gain": [1000.0] * len(leads)}
        options = {**defaults, "baseline": [0] * len(leads), **fields}
        digital = np.rint(signal * options["adc_gain"] + options["baseline"]).astype(np.int64)
        wfdb.wrsamp("rec", fs, sig_name=list(leads), d_signal=digital, write_dir=str(tmp_path), **options)
        return tmp_path / "rec"

    return write


def edit_header(record: Path, old: str, new: str) -> None:
    path = record.with_suffix(".hea")
    text = path.read_text()
    assert old in text, f"{old!r} is not in the header that wfdb wrote:\n{text}"
    path.write_text(text.replace(old, new))


# ---------------------------------------------------------------------------------------------- what is read


@pytest.mark.parametrize("names", [ECG_LEADS, USUAL_ORDER, tuple(lead.lower() for lead in reversed(USUAL_ORDER))])
def test_leads_are_found_by_name(write_record: WriteRecord, names: tuple[str, ...]) -> None:
    """aVF and aVL change places between MIMIC and the others; LUDB writes lower case."""
    signal = waves()
    by_name = {name.lower(): signal[:, column] for column, name in enumerate(names)}
    record = read_ecg(write_record(signal, leads=names))
    for column, lead in enumerate(ECG_LEADS):
        np.testing.assert_allclose(record.to_mv()[:, column], by_name[lead.lower()], atol=5.1e-4, err_msg=lead)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    gains=st.lists(st.floats(1, 30_000).map(lambda g: round(g, 3)), min_size=12, max_size=12),
    baselines=st.lists(st.integers(-5000, 5000), min_size=12, max_size=12),
    seed=st.integers(0, 2**16),
)
def test_digital_values_at_500_hz_are_kept_without_loss(
    write_record: WriteRecord, gains: list[float], baselines: list[int], seed: int
) -> None:
    digital = np.random.default_rng(seed).integers(-32767, 32768, (5000, 12))
    spread = np.abs(digital - baselines).max(axis=0) / MAX_ABS_MV
    gain = np.maximum(gains, np.ceil(spread))
    record_path = write_record((digital - baselines) / gain, adc_gain=gain.tolist(), baseline=baselines)
    record = read_ecg(record_path)
    np.testing.assert_array_equal(record.adc, digital)
    np.testing.assert_array_equal(record.gain, gain)
    np.testing.assert_array_equal(record.baseline, baselines)
    physical = wfdb.rdrecord(str(record_path)).p_signal
    np.testing.assert_allclose(record.to_mv(), physical, rtol=6e-8, atol=0)


@pytest.mark.parametrize(("unit", "per_mv"), [("mV", 1.0), ("mv", 1.0), ("MV", 1.0), ("uV", 1000.0), ("µV", 1000.0)])
def test_units(write_record: WriteRecord, unit: str, per_mv: float) -> None:
    path = write_record(waves())
    edit_header(path, "1000.0(0)/mV", f"{1000 / per_mv}(0)/{unit}")
    np.testing.assert_allclose(read_ecg(path).to_mv(), waves(), atol=5.1e-4)


@pytest.mark.parametrize("fs", [100, 250, 257, 360, 400, 1000, 2000])
def test_other_rates_are_resampled_to_500_hz(write_record: WriteRecord, fs: int) -> None:
    """Against the analytic signal, half a second inside the ends: up to 12 Hz, at most 1 % of the amplitude off."""
    n_samples = 12 * fs
    path = write_record(waves(n_samples, fs), fs=fs)
    record = read_ecg(path)
    assert record.source_fs_hz == fs
    assert record.adc.shape == (5000, 12)
    difference = np.abs(record.to_mv() - waves())[250:-250]
    assert difference.max() < 0.01 * waves().max(), f"{difference.max()} mV"


@pytest.mark.parametrize("fmt", ["16", "24", "32", "80", "212"])
def test_every_format_that_wfdb_writes_is_read_as_wfdb_reads_it(write_record: WriteRecord, fmt: str) -> None:
    """With gains small enough for the format's bits; lead by lead the same numbers as the package's."""
    gain = 60.0 if fmt == "80" else 1000.0
    path = write_record(waves(), fmt=[fmt] * 12, adc_gain=[gain] * 12)
    physical = wfdb.rdrecord(str(path)).p_signal
    np.testing.assert_allclose(read_ecg(path).to_mv(), physical, rtol=1e-7, atol=0)


def test_quantised_samples_are_within_the_promised_2_5_microvolts(write_record: WriteRecord) -> None:
    """Values that need 24 bits; small ones are rounded to 1 µV, large ones to 5 µV."""
    for scale in (1.0, 90.0):
        path = write_record(waves() * scale, fmt=["32"] * 12, adc_gain=[1e6] * 12)
        exact = wfdb.rdrecord(str(path)).p_signal
        assert np.abs(read_ecg(path).to_mv().astype(np.float64) - exact).max() <= 2.5e-3 + 1e-6


def test_of_a_longer_record_the_first_ten_seconds_are_taken(write_record: WriteRecord) -> None:
    ten_seconds = read_ecg(write_record(waves(5000))).adc
    longer = write_record(waves(8000))
    np.testing.assert_array_equal(read_ecg(longer).adc, ten_seconds)
    with_nan(longer, sample=5100)
    np.testing.assert_array_equal(read_ecg(longer).adc, ten_seconds)


def test_missing_samples_after_ten_seconds_do_not_count_at_other_rates_either(write_record: WriteRecord) -> None:
    longer = write_record(waves(12_000, 1000), fs=1000)
    with_nan(longer, sample=10_400)
    assert np.abs(read_ecg(longer).to_mv() - waves())[:-100].max() < 0.02


def test_more_signals_in_other_files_do_no_harm(write_record: WriteRecord) -> None:
    """As in PTB: fifteen signals, the Frank leads in a file of their own. It may even be missing."""
    path = write_record(waves())
    edit_header(path, "rec 12 ", "rec 15 ")
    with path.with_suffix(".hea").open("a") as header:
        header.writelines(f"rec.xyz 16 2000/mV 16 0 0 0 0 {name}\n" for name in ("vx", "vy", "vz"))
    np.testing.assert_allclose(read_ecg(path).to_mv(), waves(), atol=5.1e-4)


def test_a_header_without_a_length(write_record: WriteRecord) -> None:
    path = write_record(waves())
    edit_header(path, "rec 12 500 5000", "rec 12 500")
    np.testing.assert_allclose(read_ecg(path).to_mv(), waves(), atol=5.1e-4)


def test_flat_leads_are_accepted_and_named(write_record: WriteRecord) -> None:
    signal = waves()
    signal[:, [6, 8]] = 0
    assert read_ecg(write_record(signal)).flat_leads == ("V1", "V3")
    assert examine(write_record(signal)) == EcgCondition(flat_leads=("V1", "V3"))


# ---------------------------------------------------------------------------------------------- what is refused


def with_nan(record: Path, sample: int = 70) -> None:
    content = np.fromfile(record.with_suffix(".dat"), "<i2")
    content[12 * sample + 1] = -32768
    content.tofile(record.with_suffix(".dat"))


def cut(record: Path) -> None:
    path = record.with_suffix(".dat")
    path.write_bytes(path.read_bytes()[:60_000])


REFUSALS: list[tuple[str, dict[str, Any], Callable[[Path], None] | None]] = [
    ("lacks the leads V6", {"leads": ECG_LEADS[:11]}, None),
    ("lacks the leads III, aVR, aVF, aVL; .* not derived", {"leads": ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")}, None),
    ("more than one signal named II", {"leads": (*ECG_LEADS, "ii")}, None),
    ("has missing samples .NaN. in II$", {}, with_nan),
    ("is flat", {"signal": np.zeros((5000, 12))}, None),
    ("is flat", {"signal": np.ones((5000, 12)) * np.arange(12)}, None),
    ("lasts 9.99[0-9]* s; 10 s are needed", {"signal": waves(4999)}, None),
    ("lasts 5 s; 10 s are needed", {"signal": waves(5000, 1000), "fs": 1000}, None),
    ("file is cut short: it holds 5 s", {}, cut),
    ("its .dat file is missing", {}, lambda record: record.with_suffix(".dat").unlink()),
    ("the file is missing", {}, lambda record: record.with_suffix(".hea").unlink()),
    ("lead I is in 'NU', not in mV", {}, lambda record: edit_header(record, "/mV", "/NU")),
    ("lead I is not calibrated", {}, lambda record: edit_header(record, "1000.0(0)/mV", "0(0)/mV")),
    ("lead I is not calibrated", {}, lambda record: edit_header(record, "1000.0(0)/mV", "-200(0)/mV")),
    ("reaches 1820 mV, which no ECG does", {}, lambda record: edit_header(record, "1000.0(0)/mV", "1.0(0)/mV")),
    ("not sampled together", {}, lambda record: edit_header(record, " 16 1000", " 16x2 1000")),
    ("not sampled together", {}, lambda record: edit_header(record, " 16 1000", " 16:3 1000")),
    ("is a record of several segments", {}, lambda record: edit_header(record, "rec 12", "rec/2 12")),
    ("sampling rate of 50 Hz", {"fs": 50}, None),
    ("format 508, which is not read here", {}, lambda record: edit_header(record, " 16 1000", " 508 1000")),
]


@pytest.mark.parametrize(("reason", "made", "spoil"), REFUSALS, ids=[f"{n}-{reason}" for n, (reason, *_) in enumerate(REFUSALS)])
def test_what_is_no_12_lead_ecg_is_refused(
    write_record: WriteRecord, reason: str, made: dict[str, Any], spoil: Callable[[Path], None] | None
) -> None:
    record = write_record(**made)
    if spoil is not None:
        spoil(record)
    with pytest.raises(UnusableFile, match=reason) as raised:
        read_ecg(record)
    assert str(record) not in raised.value.reason
    assert examine(record).fault == raised.value.reason


def test_a_usable_record_has_no_reason(write_record: WriteRecord) -> None:
    assert examine(write_record()) == EcgCondition()


def test_a_dicom_waveform_is_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "ecg.dcm"
    path.write_bytes(bytes(128) + b"DICM")
    with pytest.raises(UnusableFile, match="DICOM waveforms are not read yet, export the ECG as WFDB"):
        read_ecg(path)


# ---------------------------------------------------------------------------------------------- to the encoder


def papers_tensor(p_signal: np.ndarray) -> np.ndarray:
    """The paper's min-max, on wfdb's physical signal, one record."""
    low, high = np.min(p_signal), np.max(p_signal)
    return (2 * (p_signal - low) / (high - low) - 1)[None]


def test_the_encoders_input_equals_the_papers_within_one_rounding(write_record: WriteRecord) -> None:
    gains = np.linspace(200.3, 3700.7, 12).round(2).tolist()
    path = write_record(waves(), adc_gain=gains, baseline=list(range(-30, 30, 5)))
    record = read_ecg(path)
    tensor = encode(record.adc, record.gain, record.baseline)
    assert tensor.shape == (1, 5000, 12)
    assert tensor.dtype == np.float32
    assert (tensor.min(), tensor.max()) == (-1, 1)
    np.testing.assert_allclose(tensor, papers_tensor(wfdb.rdrecord(str(path)).p_signal), rtol=0, atol=6e-8)
    np.testing.assert_allclose(minmax(record.to_mv()), tensor, rtol=0, atol=2.5e-7)  # from float32 mV: two roundings more


def test_batches_are_scaled_record_by_record() -> None:
    rng = np.random.default_rng(3)
    adc = rng.integers(-3000, 3000, (2, 3, 50, 12)).astype(np.int16)
    gain, baseline = rng.uniform(100, 900, (2, 3, 12)), rng.integers(-9, 9, (2, 3, 12)).astype(np.float64)
    batch = encode(adc, gain, baseline)
    assert batch.shape == (2, 3, 1, 50, 12)
    for place in np.ndindex(2, 3):
        one = encode(adc[place], gain[place], baseline[place])
        np.testing.assert_array_equal(batch[place], one)
        np.testing.assert_array_equal(to_mv(adc, gain, baseline)[place], to_mv(adc[place], gain[place], baseline[place]))


@pytest.mark.parametrize("bad", [np.zeros((50, 12)), np.full((50, 12), 0.3), np.full((50, 12), np.nan)])
def test_min_max_of_nothing_is_an_error_and_not_nan(bad: np.ndarray) -> None:
    with pytest.raises(InputError, match="constant, or holds NaN"):
        minmax(bad)
    with pytest.raises(InputError, match="constant, or holds NaN"):
        minmax(np.stack([waves(50), bad]))


def test_a_signal_file_that_may_not_be_read_is_rejected(write_record: WriteRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_record()

    def denied(file: Path, **options: object) -> None:
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr(np, "fromfile", denied)
    assert examine(path).fault == "its signal file cannot be read (Permission denied)"

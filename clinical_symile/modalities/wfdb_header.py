"""A strict reader of WFDB headers: the gate before the wfdb package sees a record.

The package itself believes a header that claims 4e9 samples (it reserves 7 GB), spins for minutes on 100,000 signal
lines, takes a record name with ``://`` to the network and a gain of 0 or -1 as it is. Here, a header either describes
an ordinary record of bounded size, whose signal files lie in its own folder, or is refused with a reason.

Format: header(5) of the WFDB Applications Guide, https://www.physionet.org/physiotools/wag/header-5.htm
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from clinical_symile.errors import UnusableFile
from clinical_symile.modalities.intake import require_regular_file

MAX_HEADER_BYTES: Final = 64 * 1024
MAX_SIGNALS: Final = 64
MAX_SAMPLES: Final = 1_000_000_000
FS_RANGE_HZ: Final = (100.0, 50_000.0)

BYTES_PER_SAMPLE: Final = {
    "8": 1.0, "16": 2.0, "24": 3.0, "32": 4.0, "61": 2.0, "80": 1.0, "160": 2.0, "212": 1.5, "310": 4 / 3, "311": 4 / 3,
}  # fmt: skip
"""The uncompressed signal formats. FLAC (508, 516, 524) can inflate a few bytes to any length and is refused."""

_RECORD_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}")
_FILE_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}(\.[A-Za-z0-9_]{1,16})?")
_FORMAT = re.compile(r"(?P<fmt>\d{1,4})(x(?P<per_frame>\d{1,6}))?(:(?P<skew>\d{1,9}))?(\+(?P<offset>\d{1,12}))?", re.ASCII)
_GAIN = re.compile(r"(?P<gain>[0-9.eE+-]{1,40})(\((?P<baseline>-?\d{1,10})\))?(/(?P<unit>\S{1,40}))?", re.ASCII)
_WHOLE = re.compile(r"-?\d{1,12}", re.ASCII)


@dataclass(frozen=True)
class Signal:
    """One signal line: where the samples are, and what they mean.

    Attributes:
        name: description of the signal; for an ECG, the lead.
        file: where its samples are.
        fmt: storage format, a key of ``BYTES_PER_SAMPLE``.
        byte_offset: bytes before the first sample.
        samples_per_frame: more than 1 when it is sampled faster than the record's frame rate.
        skew: frames by which it was recorded later than the others.
        gain: ADC units per physical unit; 0 = not calibrated.
        baseline: ADC value of 0 physical units.
        unit: physical unit.
    """

    name: str
    file: Path
    fmt: str
    byte_offset: int
    samples_per_frame: int
    skew: int
    gain: float
    baseline: int
    unit: str


@dataclass(frozen=True)
class Header:
    """What a record's header says; ``n_samples`` is worked out from the signal file where the header gives no length."""

    fs_hz: float
    n_samples: int
    states_length: bool
    signals: tuple[Signal, ...]


def read_header(record_path: Path, root: Path | None = None) -> Header:
    """Reads and checks ``<record_path>.hea``.

    Args:
        record_path: path of the record, without extension.
        root: folder that every file of the record must lie in after following links; default: the record's folder.

    Raises:
        UnusableFile: the header is missing, malformed, out of bounds, or names files outside ``root``.
    """
    name = record_path.name
    if not _RECORD_NAME.fullmatch(name):
        raise UnusableFile(record_path, "is not a WFDB record name (letters, digits, '_' and '-'; no extension)")
    folder = record_path.parent
    root = folder if root is None else root
    path = folder / f"{name}.hea"
    _require_inside(path, root, record_path)
    require_regular_file(path, MAX_HEADER_BYTES)
    try:
        lines = [line.strip() for line in _decode(path.read_bytes()).splitlines()]
    except OSError as error:
        raise UnusableFile(record_path, f"its header cannot be read ({error.strerror})") from None
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise UnusableFile(record_path, "its header holds no record line")
    try:
        return _parse(lines, folder, root, record_path)
    except ValueError as error:
        if isinstance(error, UnusableFile):
            raise
        raise UnusableFile(record_path, f"its header is malformed: {error}") from None


def _parse(lines: list[str], folder: Path, root: Path, record_path: Path) -> Header:
    first = lines[0].split()
    if "/" in first[0]:
        raise UnusableFile(record_path, "is a record of several segments, not one 10 s ECG")
    if first[0] != record_path.name:
        raise ValueError("its record line gives another record name than its file name")
    n_signals = _whole(first[1] if len(first) > 1 else "", "number of signals", 1, MAX_SIGNALS)
    fs_text = first[2].split("/")[0].split("(")[0] if len(first) > 2 else "250"  # 250 Hz is the format's default
    fs_hz = _real(fs_text, "sampling rate")
    if not FS_RANGE_HZ[0] <= fs_hz <= FS_RANGE_HZ[1]:
        raise UnusableFile(record_path, f"its sampling rate of {fs_hz:g} Hz is outside {FS_RANGE_HZ[0]:g}…{FS_RANGE_HZ[1]:g} Hz")
    if len(lines) - 1 != n_signals:
        raise ValueError(f"it announces {n_signals} signals and describes {len(lines) - 1}")
    signals = tuple(_signal(line, folder, record_path) for line in lines[1:])
    for file in {signal.file for signal in signals}:
        _require_inside(file, root, record_path)
    n_samples = _whole(first[3], "number of samples", 0, MAX_SAMPLES) if len(first) > 3 else 0  # 0 means not stated
    return Header(fs_hz, n_samples or _inferred_length(signals), n_samples > 0, signals)


def _signal(line: str, folder: Path, record_path: Path) -> Signal:
    fields = line.split(maxsplit=8)
    if len(fields) < 2 or not _FILE_NAME.fullmatch(fields[0]):
        raise ValueError("a signal line does not begin with a plain file name and a format")
    layout = _FORMAT.fullmatch(fields[1])
    if layout is None:
        raise ValueError(f"the signal format {fields[1][:20]!r} is not understood")
    if layout["fmt"] not in BYTES_PER_SAMPLE:
        raise UnusableFile(record_path, f"its signals are stored in format {layout['fmt']}, which is not read here")
    scale = _GAIN.fullmatch(fields[2]) if len(fields) > 2 else None
    if len(fields) > 2 and scale is None:
        raise ValueError(f"the gain {fields[2][:20]!r} is not understood")
    adc_zero = _whole(fields[4], "ADC zero", -(2**31), 2**31) if len(fields) > 4 else 0
    return Signal(
        name=fields[8].strip() if len(fields) > 8 else "",
        file=folder / fields[0],
        fmt=layout["fmt"],
        byte_offset=int(layout["offset"] or 0),
        samples_per_frame=int(layout["per_frame"] or 1),
        skew=int(layout["skew"] or 0),
        gain=_real(scale["gain"], "gain") if scale else 0.0,
        baseline=_whole(scale["baseline"], "baseline", -(2**31), 2**31) if scale and scale["baseline"] else adc_zero,
        unit=(scale["unit"] or "mV") if scale else "mV",
    )


def _require_inside(file: Path, root: Path, record_path: Path) -> None:
    """A file beside the record may be a link, but not out of ``root``."""
    try:
        inside = file.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):
        raise UnusableFile(record_path, f"its {file.suffix or 'signal'} file is in a loop of links") from None
    if not inside:
        raise UnusableFile(record_path, f"its {file.suffix or 'signal'} file leads out of its folder through a link")


def _inferred_length(signals: tuple[Signal, ...]) -> int:
    first = signals[0]
    if not first.file.is_file():
        return 0
    per_frame = sum(signal.samples_per_frame for signal in signals if signal.file == first.file)
    return int((first.file.stat().st_size - first.byte_offset) / (BYTES_PER_SAMPLE[first.fmt] * per_frame))


def _decode(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")  # old headers write µV in one byte


def _whole(text: str, what: str, low: int, high: int) -> int:
    if not _WHOLE.fullmatch(text) or not low <= int(text) <= high:
        raise ValueError(f"the {what} {text[:20]!r} is not a whole number from {low} to {high}")
    return int(text)


def _real(text: str, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"the {what} {text[:20]!r} is not a number")
    return value

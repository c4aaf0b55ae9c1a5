"""The samples of a WFDB record whose header has passed ``wfdb_header``."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clinical_symile.errors import UnusableFile
from clinical_symile.modalities.intake import require_regular_file
from clinical_symile.modalities.wfdb_header import BYTES_PER_SAMPLE, Header

_MISSING_16 = -32768
"""Format 16's mark of a missing sample."""


def read_samples(path: Path, header: Header, channels: list[int], seconds: int) -> tuple[NDArray[np.integer], NDArray[np.bool_]]:
    """Reads the beginning of a record, and one second more where there is one: resampling filters across the end.

    Format 16, which MIMIC and most archives use, is read directly: the wfdb package spends 5 ms a record on parsing the
    header once more, five times what the rest takes. Every other format is left to the package.

    Args:
        path: the record, without extension.
        header: its header.
        channels: indices of the signals to read.
        seconds: how many seconds must be there.

    Returns:
        digital (t, c) in the order of ``channels``, and missing (t, c), where there is no sample.

    Raises:
        UnusableFile: a signal file is missing, cut short or not decodable, or the record is too short.
    """
    needed = math.ceil(seconds * header.fs_hz)
    files = {header.signals[channel].file for channel in channels}
    absent = sorted(file.suffix or "signal" for file in files if not file.is_file())
    if absent:
        raise UnusableFile(path, f"its {', '.join(absent)} file is missing")
    if header.n_samples < needed:
        raise UnusableFile(path, f"lasts {header.n_samples / header.fs_hz:.4g} s; {seconds} s are needed")
    in_file = min(_samples_in(file, header) for file in files)
    if in_file < needed:
        raise UnusableFile(path, f"its signal file is cut short: it holds {in_file / header.fs_hz:.3g} s")
    wanted = min(header.n_samples, in_file, needed + math.ceil(header.fs_hz))
    if len(files) == 1 and all(
        signal.fmt == "16" and signal.samples_per_frame == 1 for signal in header.signals if signal.file in files
    ):
        try:
            digital = _read_format_16(files.pop(), header, channels, wanted)
        except OSError as error:  # its own text names the file
            raise UnusableFile(path, f"its signal file cannot be read ({error.strerror})") from None
        return digital, digital == _MISSING_16
    return _read_with_wfdb(path, header, channels, wanted)


def _samples_in(file: Path, header: Header) -> int:
    """How many samples of each signal a file can hold."""
    together = [signal for signal in header.signals if signal.file == file]
    bytes_per_frame = sum(signal.samples_per_frame * BYTES_PER_SAMPLE[signal.fmt] for signal in together)
    return max(int((file.stat().st_size - together[0].byte_offset) / bytes_per_frame), 0)


def _read_format_16(file: Path, header: Header, channels: list[int], wanted: int) -> NDArray[np.int16]:
    """Format 16: little-endian int16, the signals of a file taking turns."""
    together = [number for number, signal in enumerate(header.signals) if signal.file == file]
    offset = header.signals[together[0]].byte_offset
    frames = np.fromfile(file, dtype="<i2", count=wanted * len(together), offset=offset).reshape(wanted, len(together))
    return frames[:, [together.index(channel) for channel in channels]]


def _read_with_wfdb(
    path: Path, header: Header, channels: list[int], wanted: int
) -> tuple[NDArray[np.integer], NDArray[np.bool_]]:
    import wfdb

    if "::" in str(path) or "://" in str(path):  # wfdb would take it for an address
        raise UnusableFile(path, "lies in a folder whose name holds '::' or '://'")
    if not header.states_length:  # wfdb reads such a record as a whole
        for channel in channels:
            require_regular_file(header.signals[channel].file)
    try:
        record = wfdb.rdrecord(
            str(path),
            sampto=wanted if header.states_length else None,
            channels=sorted(channels),
            physical=False,
            return_res=64,
        )
        order = [sorted(channels).index(channel) for channel in channels]
        digital, missing = record.d_signal[:wanted, order], np.isnan(record.dac())[:wanted, order]
    # What wfdb raises for signal files that do not fit their header.
    except (ArithmeticError, AttributeError, LookupError, MemoryError, OSError, TypeError, ValueError, struct.error) as error:
        raise UnusableFile(path, f"its signals cannot be decoded ({type(error).__name__})") from None
    if digital.shape != (wanted, len(channels)):
        raise UnusableFile(path, f"its signals decode to the shape {digital.shape}, not {(wanted, len(channels))}")
    return digital, missing

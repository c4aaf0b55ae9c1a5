"""Writers of single files with reproducible bytes: WFDB records, JPEG images, gzipped CSV tables.

A file appears under its name only when it is whole: it is written beside the output first and renamed. There is no fsync,
because a resumed run can make the file again.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from clinical_symile.simulation.ecg import ADC_PER_MV
from clinical_symile.types import ECG_FS_HZ, ECG_LEADS

SIMULATED: Final = "SIMULATED by Clinical Symile: not a patient, not for diagnosis"
"""The label that every file carries."""


def write_bytes(target: Path, content: bytes, scratch: Path) -> None:
    """Writes ``content`` by way of a file in ``scratch``, which must be on the same disk.

    Args:
        target: where the file goes; its folders are made.
        content: all of it.
        scratch: folder for unfinished files.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = scratch / f"{target.name}.{os.getpid()}"
    unfinished.write_bytes(content)
    os.replace(unfinished, target)


def wfdb_header(name: str, subject_id: int, time: np.datetime64, adc: NDArray[np.int16]) -> bytes:
    """The header of a WFDB record as MIMIC-IV-ECG writes it; the last line is MIMIC's, the one before says what this is.

    Args:
        name: record name.
        subject_id: for the comment.
        time: start of the record.
        adc: (samples, leads) in format 16.
    """
    samples, leads = adc.shape
    clock = time.astype("datetime64[s]").item()
    lines = [f"{name} {leads} {ECG_FS_HZ} {samples} {clock:%H:%M:%S} {clock:%d/%m/%Y}"]
    for lead, column in zip(ECG_LEADS, adc.T, strict=True):
        # The checksum is the sum of the samples as a signed 16-bit number.
        checksum = (int(column.astype(np.int64).sum()) + 2**15) % 2**16 - 2**15
        lines.append(f"{name}.dat 16 {ADC_PER_MV}.0(0)/mV 16 0 {column[0]} {checksum} 0 {lead}")
    lines += [f"# {SIMULATED}", f"# <subject_id>: {subject_id}"]
    return ("\n".join(lines) + "\n").encode("ascii")


def wfdb_samples(adc: NDArray[np.int16]) -> bytes:
    """The ``.dat`` file: little-endian 16-bit samples, lead by lead within each sample."""
    return adc.astype("<i2").tobytes()


def jpeg(image: NDArray[np.uint8]) -> bytes:
    """A JPEG of quality 92 with the label as comment and as EXIF image description. Grey (h, w) or RGB (h, w, 3)."""
    exif = Image.Exif()
    exif[0x010E] = SIMULATED
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=92, comment=SIMULATED, exif=exif)
    return buffer.getvalue()


def csv_text(table: pa.Table) -> bytes:
    """A table as CSV like MIMIC's: quotes only where needed, empty for null, 15 rather than 15.0."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(table.column_names)
    for batch in table.to_batches(max_chunksize=50_000):
        writer.writerows(zip(*(_cells(column) for column in batch.columns), strict=True))
    return buffer.getvalue().encode()


def gzipped(content: bytes) -> bytes:
    """Compressed without a time stamp, so that the same table gives the same bytes."""
    return gzip.compress(content, compresslevel=5, mtime=0)


def _cells(column: pa.Array) -> list[object]:
    """Python values; the csv module writes None as nothing."""
    values = column.to_pylist()
    if pa.types.is_floating(column.type):
        return [None if value is None else f"{value:.12g}" for value in values]
    return values

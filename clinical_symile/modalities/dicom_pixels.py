"""From a DICOM file's pixel data to stored values, with whatever decoder is installed, without trusting the data."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import uid
from pydicom.encaps import generate_frames
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.pixels import get_decoder

from clinical_symile.errors import UnusableFile
from clinical_symile.modalities.codestream import codestream_size

PIXEL_ATTRIBUTES: Final = (
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "PlanarConfiguration",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "PixelData",
)
"""All that decoding needs."""

DAMAGE: Final = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
"""What pydicom and the decoders raise for damaged files; ``RuntimeError`` holds RecursionError and NotImplementedError."""

ISOLATED_PLUGIN: Final = "gdcm"
"""GDCM aborts the whole process on some damaged streams, so it works in a process of its own (half a second a file), and
only where no other decoder is installed. In the [dicom] extra it is the one that knows JPEG Lossless (the others are GPL)."""

ISOLATED_SECONDS: Final = 60


def decode(path: Path, dataset: pydicom.Dataset, syntax: uid.UID) -> NDArray[Any]:
    """Decodes the one frame of a grey picture.

    Args:
        path: the file, for messages and for the isolated decoder.
        dataset: its attributes, pixel data included.
        syntax: its transfer syntax.

    Returns:
        (rows, columns) integers.

    Raises:
        UnusableFile: no decoder is installed, or the pixel data are damaged or not what the header says.
    """
    decoder = get_decoder(syntax)
    if not decoder.is_available:
        raise UnusableFile(
            path,
            f"is compressed as {syntax.name}, and no decoder for it is installed: pip install 'clinical-symile[dicom]' "
            f"({'; '.join(decoder.missing_dependencies)})",
        )
    try:
        if syntax.is_encapsulated:
            _require_honest_frame(path, dataset)
            stored = _decompress(path, dataset, syntax, decoder.available_plugins)
        else:
            stored = np.asarray(dataset.pixel_array)
    except UnusableFile:
        raise
    except DAMAGE as error:
        detail = " ".join(str(error).split())[:200]
        raise UnusableFile(path, f"its pixel data ({syntax.name}) are damaged or cut short: {detail}") from None
    if stored.shape != (dataset.Rows, dataset.Columns):
        raise UnusableFile(path, f"its pixel data have the shape {stored.shape}, not {dataset.Rows} x {dataset.Columns}")
    return stored


def _decompress(path: Path, dataset: pydicom.Dataset, syntax: uid.UID, plugins: tuple[str, ...]) -> NDArray[Any]:
    failure: Exception | None = None
    for plugin in plugins:
        if plugin == ISOLATED_PLUGIN:
            continue
        try:
            dataset.pixel_array_options(decoding_plugin=plugin)
            return np.asarray(dataset.pixel_array)
        except DAMAGE as error:
            failure = error
    # Pillow knows only the 8-bit kind of JPEG Extended. Elsewhere its refusal counts: GDCM makes pictures of damaged data.
    if ISOLATED_PLUGIN in plugins and (failure is None or syntax == uid.JPEGExtended12Bit):
        return _decompress_isolated(path)
    raise failure or ValueError("no decoder could read them")


def _decompress_isolated(path: Path) -> NDArray[Any]:
    command = [sys.executable, "-m", "clinical_symile.modalities.isolated_decoder", str(path.resolve())]
    try:
        finished = subprocess.run(command, capture_output=True, timeout=ISOLATED_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise ValueError(f"the decoder did not finish within {ISOLATED_SECONDS} s") from None
    if finished.returncode != 0:
        raise ValueError("the decoder could not read them" if finished.returncode == 1 else "the decoder crashed on them")
    return np.asarray(np.load(io.BytesIO(finished.stdout), allow_pickle=False))


def _require_honest_frame(path: Path, dataset: pydicom.Dataset) -> None:
    """Refuses a compressed frame that would decode to more than the header says, before a decoder allocates it."""
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    height, width = int(dataset.Rows), int(dataset.Columns)
    inside = codestream_size(frame)
    if inside is not None and inside != (height, width):
        sizes = f"{inside[0]} x {inside[1]} pixels, but its header says {height} x {width}"
        raise UnusableFile(path, f"its compressed picture has {sizes}")
    raw_bytes = height * width * int(dataset.BitsAllocated) // 8
    if len(frame) > 2 * raw_bytes + 65536:
        raise UnusableFile(path, "its compressed picture is far longer than the uncompressed one would be")

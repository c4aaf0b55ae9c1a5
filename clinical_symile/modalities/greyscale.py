"""DICOM's grey scale: from stored values to what a viewer shows.

Radiographs have at most 16 bits, so everything between the stored value and the grey level is a function of one small
integer. It is worked out once for each value between the smallest and the largest stored one, and then looked up.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

GREYSCALE_ATTRIBUTES: Final = (
    "ModalityLUTSequence",
    "RescaleSlope",
    "RescaleIntercept",
    "VOILUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
)


def to_grey(stored: NDArray[Any], dataset: Dataset) -> NDArray[np.uint8]:
    """Stored values -> modality LUT -> VOI -> MONOCHROME1 inversion -> uint8.

    Pixels that are only padding become black and do not count when the range of values is taken.

    Args:
        stored: (h, w) integers as decoded.
        dataset: the attributes of the picture.

    Returns:
        (h, w) uint8, bone bright.
    """
    values = stored.astype(np.int32)
    padding = _padding(values, dataset)
    shown = values if padding is None else values[~padding]
    if shown.size == 0:
        return np.zeros(values.shape, dtype=np.uint8)
    low, high = int(shown.min()), int(shown.max())
    grey = voi(modality(np.arange(low, high + 1), dataset), dataset)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        grey = 1 - grey
    image = np.rint(255 * grey).astype(np.uint8)[np.clip(values, low, high) - low]
    if padding is not None:
        image[padding] = 0
    return image


def modality(values: NDArray[Any], dataset: Dataset) -> NDArray[np.float64]:
    """The modality LUT, or slope * value + intercept (DICOM PS3.3 C.11.1); the values themselves when there is neither."""
    sequence = dataset.get("ModalityLUTSequence")
    if sequence:
        return _look_up(values, sequence[0])[0]
    return values * _number(dataset, "RescaleSlope", 1.0) + _number(dataset, "RescaleIntercept", 0.0)


def voi(values: NDArray[np.float64], dataset: Dataset) -> NDArray[np.float64]:
    """The values of interest, as 0…1 of the VOI transformation's own output range (DICOM PS3.3 C.11.2).

    The first VOI LUT is used, else the first window, else the range of the values (as MIMIC-CXR-JPG did). So is it when
    the LUT or window leaves a blank picture, for example a window given in the units before rescaling.
    """
    for grey in (_voi_lut(values, dataset), _window(values, dataset)):
        if grey is not None and grey.min() < grey.max():
            return grey
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def _voi_lut(values: NDArray[np.float64], dataset: Dataset) -> NDArray[np.float64] | None:
    sequence = dataset.get("VOILUTSequence")
    if not sequence:
        return None
    entries, bits = _look_up(values, sequence[0])
    return np.clip(entries / (2**bits - 1), 0, 1)


def _window(values: NDArray[np.float64], dataset: Dataset) -> NDArray[np.float64] | None:
    centre, width = _number(dataset, "WindowCenter", math.nan), _number(dataset, "WindowWidth", math.nan)
    function = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
    if not (math.isfinite(centre) and math.isfinite(width) and width > 0):
        return None
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
    if function == "LINEAR_EXACT":
        return np.clip((values - centre) / width + 0.5, 0, 1)
    if width <= 1:  # the linear function of a width of 1 is a threshold
        return (values > centre - 0.5).astype(np.float64)
    return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)


def _look_up(values: NDArray[Any], item: Dataset) -> tuple[NDArray[np.float64], int]:
    """The LUT's entry for each value, and the number of bits that an entry has.

    Values before the first mapped one take the first entry, values after the last take the last.

    Raises:
        ValueError: its entries do not have 8 to 16 bits.
    """
    n_entries, first, bits = (int(number) for number in item.LUTDescriptor)
    if not 8 <= bits <= 16:
        raise ValueError(f"a LUT of {bits} bits an entry")
    n_entries = n_entries % 2**16 or 2**16  # 0 means 65,536, which does not fit its 16 bits
    data = item.LUTData
    if isinstance(data, bytes):
        # 8-bit entries may be packed two to a word.
        data = np.frombuffer(data, dtype=np.uint8 if len(data) < 2 * n_entries else "<u2")
    entries = np.atleast_1d(np.asarray(data)).astype(np.float64)[:n_entries]
    index = np.clip(np.rint(values) - first, 0, len(entries) - 1).astype(np.int64)
    return entries[index], bits


def _padding(values: NDArray[np.int32], dataset: Dataset) -> NDArray[np.bool_] | None:
    if dataset.get("PixelPaddingValue") is None:
        return None
    one = int(dataset.PixelPaddingValue)
    other = dataset.get("PixelPaddingRangeLimit")
    low, high = sorted((one, one if other is None else int(other)))
    padding = (values >= low) & (values <= high)
    return padding if padding.any() else None


def _number(dataset: Dataset, name: str, default: float) -> float:
    """The first value of a decimal attribute; the default where it is missing or empty."""
    value = dataset.get(name)
    if value is None or value == "":
        return default
    return float(value[0] if isinstance(value, list | tuple) or hasattr(value, "append") else value)

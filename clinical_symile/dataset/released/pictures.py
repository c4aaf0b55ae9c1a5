"""A released CXR tensor back to the grey picture that it was made of."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clinical_symile.errors import UnusableFile
from clinical_symile.modalities.cxr import IMAGENET_MEAN, IMAGENET_STD, normalise

_OUTSIDE: Final = 1.0
"""Grey levels below 0 or above 255 that a rounding, but not a picture in another scale, may reach."""


class Picture(NamedTuple):
    """A grey picture, and how well it stands for the tensor.

    Attributes:
        grey: (320, 320) uint8.
        is_grey: whether the three channels agree.
        error: largest absolute difference between the tensor and the picture normalised again; 0.0 means bit for bit.
    """

    grey: NDArray[np.uint8]
    is_grey: bool
    error: float


def recover_picture(tensor: NDArray[np.float32], path: Path | str) -> Picture:
    """Undoes the ImageNet normalisation of a grey picture.

    grey = round(255 (x[c] std[c] + mean[c])), which has one answer: neighbouring grey levels lie 0.017 apart in the tensor,
    a thousand times its rounding. Should the channels disagree (a picture in colours), their ITU-R 601-2 luma is taken, as
    ``read_cxr`` does.

    Args:
        tensor: (3, 320, 320) float32.
        path: named in an error.

    Raises:
        UnusableFile: the tensor holds NaN or infinity, is no such picture, or shows nothing.
    """
    if not np.isfinite(tensor).all():
        raise UnusableFile(path, "the X-ray holds NaN or infinity")
    mean = np.array(IMAGENET_MEAN, dtype=np.float32)[:, None, None]
    std = np.array(IMAGENET_STD, dtype=np.float32)[:, None, None]
    levels = (tensor * std + mean) * np.float32(255)
    if levels.min() < -_OUTSIDE or levels.max() > 255 + _OUTSIDE:
        raise UnusableFile(path, "the X-ray is no ImageNet-normalised picture: its grey levels leave 0…255")
    channels = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    is_grey = bool((channels[1:] == channels[0]).all())
    grey = channels[0] if is_grey else np.asarray(Image.fromarray(np.moveaxis(channels, 0, -1)).convert("L"))
    if grey.min() == grey.max():
        raise UnusableFile(path, "the X-ray shows nothing: every pixel has the same grey")
    return Picture(grey, is_grey, float(np.abs(normalise(grey) - tensor).max()))

"""An X-ray at a window and level, and its encoding for a browser."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clinical_symile.errors import InputError


def window(image: NDArray[np.uint8], level: float = 127.5, width: float = 255.0, *, invert: bool = False) -> NDArray[np.uint8]:
    """Maps the grey values around ``level`` to the whole range.

    out = 255 * clip((image - (level - width / 2)) / width, 0, 1), and 255 - out when inverted.

    Args:
        image: (h, w) stored grey values, 0 to 255.
        level: the grey value shown as mid-grey.
        width: how many grey values lie between black and white, > 0.
        invert: show bone black.

    Raises:
        InputError: the width is not above 0.
    """
    if not width > 0:
        raise InputError(f"window width: must be above 0, not {width}")
    shown = np.clip((image.astype(np.float32) - (level - width / 2)) / width, 0, 1)
    if invert:
        shown = 1 - shown
    return np.rint(shown * 255).astype(np.uint8)


def letterbox(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Centres a grey image on a black square, so that a grid of X-rays of different shapes is even.

    Args:
        image: (h, w).

    Returns:
        (s, s) with s = max(h, w).
    """
    height, width = image.shape
    side = max(height, width)
    square = np.zeros((side, side), dtype=np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = image
    return square


def cxr_png(image: NDArray[np.uint8]) -> bytes:
    """Encodes a grey image as PNG, without any metadata.

    Args:
        image: (h, w) uint8.

    Raises:
        InputError: the array is not a grey uint8 image.
    """
    if image.dtype != np.uint8 or image.ndim != 2:
        raise InputError(f"a grey image must be uint8 of shape (h, w), not {image.dtype} of shape {image.shape}")
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, format="PNG", compress_level=6)
    return encoded.getvalue()


def cxr_data_uri(image: NDArray[np.uint8]) -> str:
    """The PNG as a ``data:`` address, so that no web server has to hold the image under an address of its own."""
    return "data:image/png;base64," + base64.b64encode(cxr_png(image)).decode("ascii")

"""Chest X-rays: a file becomes a grey picture, the picture what is stored, the stored picture what the encoder sees.

The three steps together repeat the paper's recipe exactly. For a grey JPG (all of MIMIC-CXR-JPG), ::

    normalise(crop(to_store(read_cxr(path))))

has the very bits of ``Image.open(path).convert("RGB")``, torchvision's ``Resize(320)``, ``CenterCrop(320)``,
``ToTensor`` and ``Normalize``: the three channels of a grey picture are equal, and Pillow resizes each by itself, so
nothing is lost when one channel is kept as uint8 (Saporta et al. 2024, experiments/data_processing/symile_mimic).
"""

from __future__ import annotations

import struct
import warnings
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from clinical_symile.errors import InputError, UnusableFile
from clinical_symile.modalities.dicom import read_dicom
from clinical_symile.modalities.intake import require_picture_size, require_regular_file
from clinical_symile.types import CXR_SIZE

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)

_DICOM_MAGIC = b"DICM"
_JPEG_MAGIC = b"\xff\xd8\xff"
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_DICOM_FIRST_GROUPS = (b"\x02\x00", b"\x08\x00")


def read_cxr(path: Path | str, *, allow_burned_in: bool = False) -> NDArray[np.uint8]:
    """Reads an X-ray as a grey picture: JPG, PNG or DICOM, told apart by content, not by name.

    * JPG, PNG: colours become grey by ITU-R 601-2 luma (as Pillow does), transparent parts black, the orientation that
      EXIF states is applied. 16-bit PNG is stretched from its smallest to its largest value, since a PNG carries no window.
    * DICOM: see ``dicom.read_dicom``. A picture rendered through its window differs from the MIMIC-CXR-JPG version of the
      same study, which was made by min-max, inversion and histogram equalisation: do not mix the two in one data set.

    Args:
        path: the file.
        allow_burned_in: accept DICOM that says BurnedInAnnotation = YES.

    Returns:
        (h, w) uint8 in full size, bone bright.

    Raises:
        UnusableFile: with a reason that a researcher understands.
    """
    path = Path(path)
    require_regular_file(path)
    try:
        with path.open("rb") as handle:
            start = handle.read(132)
    except OSError as error:
        raise UnusableFile(path, f"cannot be read ({error.strerror})") from None
    if start[128:132] == _DICOM_MAGIC:
        image = read_dicom(path, allow_burned_in=allow_burned_in)
    elif start.startswith((_JPEG_MAGIC, _PNG_MAGIC)):
        image = _read_photo(path)
    elif start[:2] in _DICOM_FIRST_GROUPS:
        raise UnusableFile(
            path, "looks like DICOM without the 128-byte preamble and 'DICM' of a DICOM file; save it again as DICOM Part 10"
        )
    else:
        raise UnusableFile(path, "is neither JPG, PNG nor DICOM")
    if image.min() == image.max():
        raise UnusableFile(path, "shows nothing: every pixel has the same grey")
    return image


def to_store(image: NDArray[np.uint8], size: int = CXR_SIZE) -> NDArray[np.uint8]:
    """Resizes the short side to ``size`` and keeps the aspect, exactly like torchvision's ``Resize(size)`` on a Pillow image.

    The long side becomes int(size * long / short); bilinear with antialiasing.

    Args:
        image: (h, w) uint8.
        size: length of the short side, in pixels.

    Returns:
        (h', w') uint8 with min(h', w') = ``size``.

    Raises:
        InputError: the array is not a grey uint8 picture.
    """
    _require_grey(image)
    height, width = image.shape
    target = (int(size * width / height), size) if height <= width else (size, int(size * height / width))
    if target == (width, height):
        return image.copy()
    return np.array(Image.fromarray(image).resize(target, Image.Resampling.BILINEAR))


def crop(image: NDArray[np.uint8], size: int = CXR_SIZE, corner: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Cuts a square out of a stored picture.

    Args:
        image: (…, h, w).
        size: side of the square, in pixels.
        corner: (top, left); ``None`` is the centre, rounded like torchvision's ``CenterCrop``.

    Returns:
        (…, size, size), a view.

    Raises:
        InputError: the square does not fit.
    """
    height, width = image.shape[-2:]
    top, left = corner if corner is not None else (round((height - size) / 2), round((width - size) / 2))
    if not (0 <= top <= height - size and 0 <= left <= width - size):
        raise InputError(f"a square of {size} at (top {top}, left {left}) does not fit into a picture of {height} x {width}")
    return image[..., top : top + size, left : left + size]


def normalise(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Grey levels to what an ImageNet encoder expects.

    out[c] = (image / 255 - mean[c]) / std[c], each operation in float32, as torchvision's ``ToTensor`` and ``Normalize``.

    Args:
        image: (…, h, w) uint8.

    Returns:
        (…, 3, h, w) float32.

    Raises:
        InputError: the array is not uint8.
    """
    if image.dtype != np.uint8:
        raise InputError(f"a stored picture must be uint8, not {image.dtype}")
    # Only 256 inputs exist, so a table gives the same bits as the formula, once per grey level and channel.
    return np.stack([channel[image] for channel in _NORMALISED], axis=-3)


def _normalised_levels() -> NDArray[np.float32]:
    levels = np.arange(256, dtype=np.float32) / np.float32(255)
    mean = np.array(IMAGENET_MEAN, dtype=np.float32)[:, None]
    std = np.array(IMAGENET_STD, dtype=np.float32)[:, None]
    return (levels - mean) / std


_NORMALISED = _normalised_levels()


def _require_grey(image: NDArray[np.uint8]) -> None:
    if image.dtype != np.uint8 or image.ndim != 2:
        raise InputError(f"a grey picture must be uint8 of shape (h, w), not {image.dtype} of shape {image.shape}")


def _read_photo(path: Path) -> NDArray[np.uint8]:
    try:
        with warnings.catch_warnings():
            # Pillow only warns between its two own limits; ours, below both, is checked next.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=["JPEG", "PNG"]) as picture:
                require_picture_size(path, picture.height, picture.width)
                return _to_grey(ImageOps.exif_transpose(picture))
    except UnusableFile:
        raise
    except Image.DecompressionBombError:
        raise UnusableFile(path, "claims more pixels than any X-ray has (a decompression bomb?)") from None
    except UnidentifiedImageError:  # its own text names the file
        raise UnusableFile(path, "is damaged: its header is not that of a JPG or PNG") from None
    # SyntaxError is what Pillow's PNG reader raises for a broken file.
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, EOFError, struct.error) as error:
        detail = getattr(error, "strerror", None) or str(error)  # the system's own texts name the file
        raise UnusableFile(path, f"is damaged or incomplete: {detail}".splitlines()[0]) from None


def _to_grey(picture: Image.Image) -> NDArray[np.uint8]:
    if picture.mode.startswith("I"):
        return _stretch(np.asarray(picture))
    if picture.has_transparency_data:
        shown = picture.convert("RGBA")
        black = Image.new("RGBA", shown.size, (0, 0, 0, 255))
        picture = Image.alpha_composite(black, shown)
    return np.asarray(picture.convert("L"))


def _stretch(values: NDArray[np.integer]) -> NDArray[np.uint8]:
    low, high = int(values.min()), int(values.max())
    scaled = (values.astype(np.float64) - low) * (255 / max(high - low, 1))
    return np.rint(scaled).astype(np.uint8)

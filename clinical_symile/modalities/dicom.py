"""A DICOM radiograph becomes a grey picture, or is refused with a reason.

The order is: what the file says about its encoding, then what it says about the picture, and only then the pixels.
Nothing but the attributes listed here is looked at, so no name or identifier of a patient is ever decoded.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import uid
from pydicom.filereader import read_file_meta_info

from clinical_symile.errors import UnusableFile
from clinical_symile.modalities.dicom_pixels import DAMAGE, PIXEL_ATTRIBUTES, decode
from clinical_symile.modalities.greyscale import GREYSCALE_ATTRIBUTES, to_grey
from clinical_symile.modalities.intake import require_picture_size, require_regular_file
from clinical_symile.types import FRONTAL_VIEWS

RADIOGRAPHS: Final = ("CR", "DX", "RG")
CHEST_WORDS: Final = ("CHEST", "THORAX", "TORAX", "LUNG")
LATERAL_WORDS: Final = frozenset({"LAT", "LATERAL", "OBLIQUE", "DECUBITUS"})

SUPPORTED_SYNTAXES: Final = frozenset(
    {
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.RLELossless,
        uid.JPEGBaseline8Bit,
        uid.JPEGExtended12Bit,
        uid.JPEGLossless,
        uid.JPEGLosslessSV1,
        uid.JPEGLSLossless,
        uid.JPEGLSNearLossless,
        uid.JPEG2000Lossless,
        uid.JPEG2000,
        uid.HTJ2KLossless,
        uid.HTJ2KLosslessRPCL,
        uid.HTJ2K,
    }
)
"""Deflated files are left out because a 2 MB file can inflate to gigabytes before anything is known about it."""

_ATTRIBUTES = (
    "Modality",
    "PresentationIntentType",
    "BodyPartExamined",
    "ViewPosition",
    "ViewCodeSequence",
    "PatientOrientation",
    "SeriesDescription",
    "ProtocolName",
    "AcquisitionDeviceProcessingDescription",
    "PerformedProtocolCodeSequence",
    "BurnedInAnnotation",
    *PIXEL_ATTRIBUTES,
    *GREYSCALE_ATTRIBUTES,
)


def read_dicom(path: Path, *, allow_burned_in: bool = False) -> NDArray[np.uint8]:
    """Reads a frontal chest radiograph.

    Stored values -> modality LUT or rescale -> VOI LUT or window (else the range of values) -> inversion of MONOCHROME1
    -> 0…255 (DICOM PS3.3 C.11.1, C.11.2, C.7.6.3.1.2; PS3.4 N.2.1).

    Args:
        path: the file.
        allow_burned_in: accept pictures that say they have text burned in.

    Returns:
        (h, w) uint8, bone bright.

    Raises:
        UnusableFile: not a single-frame frontal chest radiograph, or not decodable; the reason says which.
    """
    require_regular_file(path)
    with _silent_pydicom():
        try:
            syntax = _transfer_syntax(path)
            dataset = pydicom.dcmread(path, specific_tags=list(_ATTRIBUTES))
            reason = rejection(dataset, allow_burned_in=allow_burned_in)
            if reason is not None:
                raise UnusableFile(path, reason)
            require_picture_size(path, int(dataset.Rows), int(dataset.Columns))
        except UnusableFile:
            raise
        except DAMAGE as error:
            raise UnusableFile(path, f"is a damaged DICOM file ({type(error).__name__} while its header was read)") from None
        stored = decode(path, dataset, syntax)
        try:
            return to_grey(stored, dataset)
        except DAMAGE as error:
            raise UnusableFile(path, f"its grey scale description is damaged ({type(error).__name__})") from None


@contextmanager
def _silent_pydicom() -> Iterator[None]:
    """Neither warnings nor log lines of pydicom: they quote values of the file, which may identify a patient."""
    logger = logging.getLogger("pydicom")
    was_disabled, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = was_disabled


def rejection(dataset: pydicom.Dataset, *, allow_burned_in: bool = False) -> str | None:
    """Why a DICOM dataset is not the picture of a frontal chest radiograph; ``None`` when nothing speaks against it.

    What a file does not state is not held against it, except its Modality: many exports leave out view and body part.
    """
    modality = _text(dataset, "Modality")
    if modality and modality not in RADIOGRAPHS:
        return f"Modality is {_quote(modality)}, not a radiograph ({', '.join(RADIOGRAPHS)})"
    if "PixelData" not in dataset:
        return "holds no pixel data"
    if not modality:
        return "does not state its Modality, so it cannot be told whether it is a radiograph"
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames != 1:
        return f"holds {frames} frames; a radiograph has one"
    photometric = _text(dataset, "PhotometricInterpretation")
    if photometric not in ("MONOCHROME1", "MONOCHROME2") or int(dataset.get("SamplesPerPixel") or 1) != 1:
        return f"is a colour picture (PhotometricInterpretation {_quote(photometric)}), not a radiograph"
    if int(dataset.BitsAllocated) not in (8, 16):
        return f"has {int(dataset.BitsAllocated)} bits per pixel; radiographs have 8 or 16"
    body_part = _text(dataset, "BodyPartExamined")
    if body_part and not any(word in body_part for word in CHEST_WORDS):
        return f"BodyPartExamined is {_quote(body_part)}, not the chest"
    reason = _view_rejection(dataset)
    if reason is not None:
        return reason
    if _text(dataset, "PresentationIntentType") == "FOR PROCESSING":
        return "holds raw detector data (PresentationIntentType FOR PROCESSING); use the FOR PRESENTATION picture"
    if _text(dataset, "BurnedInAnnotation") == "YES" and not allow_burned_in:
        return "says that text is burned into its pixels (BurnedInAnnotation YES), which may identify the patient"
    return None


def _view_rejection(dataset: pydicom.Dataset) -> str | None:
    view = _text(dataset, "ViewPosition")
    if view:
        return None if view in FRONTAL_VIEWS else f"ViewPosition is {_quote(view)}, not {' or '.join(FRONTAL_VIEWS)}"
    if LATERAL_WORDS & _words(_code_meanings(dataset, "ViewCodeSequence")):
        return "ViewCodeSequence names a lateral or oblique view, not a frontal one"
    orientation = dataset.get("PatientOrientation") or []
    if any(str(direction)[:1] in ("A", "P") for direction in orientation):
        return "PatientOrientation says a lateral view: rows or columns run front to back"
    described = [_text(dataset, name) for name in ("SeriesDescription", "ProtocolName", "AcquisitionDeviceProcessingDescription")]
    for text in [*described, *_code_meanings(dataset, "PerformedProtocolCodeSequence")]:
        words = _words([text])
        # "CHEST PA AND LATERAL" describes a series that holds both.
        if words & LATERAL_WORDS and not words & set(FRONTAL_VIEWS):
            return "states no ViewPosition, and a description in it says lateral or oblique"
    return None


def _transfer_syntax(path: Path) -> uid.UID:
    syntax = read_file_meta_info(path).get("TransferSyntaxUID")
    if not syntax:
        raise UnusableFile(path, "does not say how it is encoded (no Transfer Syntax UID)")
    if syntax not in SUPPORTED_SYNTAXES:
        name = syntax.name if not syntax.is_private and syntax.name != syntax else _quote(str(syntax))
        raise UnusableFile(path, f"transfer syntax {name} is not supported; save it again as Explicit VR Little Endian")
    return syntax


def _text(dataset: pydicom.Dataset, name: str) -> str:
    return str(dataset.get(name) or "").strip().upper()


def _code_meanings(dataset: pydicom.Dataset, name: str) -> list[str]:
    return [_text(item, "CodeMeaning") for item in dataset.get(name) or []]


def _words(texts: Iterable[str]) -> set[str]:
    return {word for text in texts for word in re.split(r"[^A-Z]+", text) if word}


def _quote(value: str) -> str:
    """A value of the file in a message: short and printable."""
    return "".join(character if character.isprintable() else "?" for character in value[:32]) or "empty"

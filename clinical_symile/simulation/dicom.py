"""X-rays as DICOM: 12 bits with a window, some of them MONOCHROME1, de-identified and labelled as simulated."""

from __future__ import annotations

import hashlib
import io
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from clinical_symile.simulation.files import SIMULATED
from clinical_symile.simulation.plan import CxrImage

_BITS: Final = 12
_BLACK: Final = 320
_PER_GREY: Final = 13
"""Stored value of grey g: 320 + 13 g, so that the window is not the whole range."""


def dicom_file(image: CxrImage, pixels: NDArray[np.uint8]) -> bytes:
    """One X-ray as a DICOM file; decoded through its window it looks like the JPEG.

    Args:
        image: what it is of. One image in three is stored as MONOCHROME1 (white is 0).
        pixels: (h, w) grey, bright where the beam was absorbed.
    """
    inverted = image.key % 3 == 1
    stored = _BLACK + _PER_GREY * pixels.astype(np.uint16)
    centre = _BLACK + _PER_GREY * 255 / 2
    if inverted:
        stored = (2**_BITS - 1 - stored).astype(np.uint16)
        centre = 2**_BITS - 1 - centre
    dataset = _description(image)
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, _BITS, _BITS - 1, 0
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "0", "1", "US"
    dataset.WindowCenter, dataset.WindowWidth = f"{centre:.1f}", str(_PER_GREY * 255)
    dataset.VOILUTFunction = "LINEAR"
    dataset.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
    dataset.PixelData = stored.astype("<u2").tobytes()
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def _description(image: CxrImage) -> Dataset:
    moment = image.time.astype("datetime64[ms]").item()
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.file_meta.MediaStorageSOPInstanceUID = _uid("image", image.dicom_id)
    dataset.file_meta.ImplementationClassUID = _uid("implementation", "clinical-symile")
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = _uid("image", image.dicom_id)
    dataset.StudyInstanceUID = _uid("study", str(image.study_id))
    dataset.SeriesInstanceUID = _uid("series", f"{image.study_id} {image.view}")
    dataset.ImageType = ["DERIVED", "PRIMARY", "", "SIMULATED"]
    dataset.Modality = "DX"
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.Manufacturer = "SIMULATED"
    dataset.PatientName, dataset.PatientID = "", str(image.subject_id)
    dataset.PatientIdentityRemoved, dataset.DeidentificationMethod = "YES", SIMULATED
    dataset.BurnedInAnnotation = "NO"
    dataset.ImageComments = SIMULATED
    dataset.BodyPartExamined = "CHEST"
    dataset.ViewPosition = "LL" if image.view == "LATERAL" else image.view
    dataset.StudyDate, dataset.StudyTime = f"{moment:%Y%m%d}", f"{moment:%H%M%S}.{moment.microsecond // 1000:03d}"
    dataset.StudyID, dataset.AccessionNumber = str(image.study_id), ""
    dataset.SeriesNumber, dataset.InstanceNumber = "1", "1"
    return dataset


def _uid(kind: str, name: str) -> UID:
    """A UID under 2.25 that depends on nothing but its arguments."""
    digest = hashlib.sha256(f"clinical-symile {kind} {name}".encode()).digest()
    return UID(f"2.25.{int.from_bytes(digest[:15], 'big')}")

"""Writes the files of one ECG or one X-ray; what is already there from an interrupted run is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clinical_symile.simulation.cxr import frontal_size, render_frontal
from clinical_symile.simulation.dicom import dicom_file
from clinical_symile.simulation.ecg import render_ecg
from clinical_symile.simulation.files import jpeg, wfdb_header, wfdb_samples, write_bytes
from clinical_symile.simulation.lateral import LATERAL_SIZE, render_lateral
from clinical_symile.simulation.plan import CxrImage, EcgStudy, generator

NOT_A_NUMBER = -32768
"""WFDB format 16's code for a sample that is missing."""


def write_ecg(study: EcgStudy, root: Path, seed: int, scratch: Path) -> None:
    """Writes the header and the samples of one ECG, unless they exist or its fault is to be missing."""
    record = root / study.path
    header = record.with_suffix(".hea")
    if study.fault == "missing" or header.exists():
        return
    adc = _damaged(render_ecg(study.shows, study.age, generator(seed, "ecg", study.key)), study.fault)
    samples = wfdb_samples(adc)
    write_bytes(record.with_suffix(".dat"), samples[: len(samples) // 2] if study.fault == "truncated" else samples, scratch)
    # The header comes last: where it exists the record is whole.
    write_bytes(header, wfdb_header(str(study.study_id), study.subject_id, study.time, adc), scratch)


def write_image(image: CxrImage, root: Path, seed: int, dicom: bool, scratch: Path) -> None:
    """Writes one X-ray as JPEG, and before it as DICOM if asked, unless it exists or its fault is to be missing."""
    file = root / image.path
    if image.fault == "missing" or file.exists():
        return
    pixels = render_image(image, seed)
    if dicom and image.fault == "":
        write_bytes(file.with_suffix(".dcm"), dicom_file(image, pixels), scratch)
    content = jpeg(np.repeat(pixels[:, :, None], 3, axis=2) if image.fault == "rgb" else pixels)
    if image.fault == "truncated":
        content = content[: len(content) // 3]
    elif image.fault == "not_an_image":
        content = b"<html><body>503 Service Unavailable</body></html>\n"
    write_bytes(file, content, scratch)


def render_image(image: CxrImage, seed: int) -> NDArray[np.uint8]:
    """The grey pixels (h, w) of an X-ray. An image whose view is not stated shows a frontal chest."""
    rng = generator(seed, "cxr", image.key)
    if image.view == "LATERAL":
        return render_lateral(rng)
    view: Literal["AP", "PA"] = "PA" if image.view == "PA" else "AP"
    return render_frontal(image.shows, view, image_size(image, seed), image.devices, rng)


def image_size(image: CxrImage, seed: int) -> tuple[int, int]:
    """Height and width of an X-ray, without drawing it."""
    if image.view == "LATERAL":
        return LATERAL_SIZE
    return frontal_size("PA" if image.view == "PA" else "AP", generator(seed, "cxr format", image.key))


def _damaged(adc: NDArray[np.int16], fault: str) -> NDArray[np.int16]:
    adc = adc.copy()
    if fault == "nan":
        adc[1200:1450, 8] = NOT_A_NUMBER
    elif fault == "zeros":
        adc[:] = 0
    elif fault == "flat_lead":
        adc[:, 7] = 0
    return adc

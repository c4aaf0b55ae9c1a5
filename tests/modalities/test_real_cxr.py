"""Every real X-ray of the open files: the ordinary ones load, each quirk has its expected fate.

Needs ``CLINICAL_SYMILE_REAL_DATA``. The fates are written down by name; a quirk that is not in the list must still load
or be refused with a reason.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.pixels import get_decoder
from pydicom.uid import JPEGLSNearLossless

from clinical_symile.errors import UnusableFile
from clinical_symile.modalities.cxr import crop, normalise, read_cxr, to_store

pytestmark = pytest.mark.realdata

ROOT = Path(os.environ.get("CLINICAL_SYMILE_REAL_DATA", "")) / "cxr"
PICTURES = sorted(
    path.relative_to(ROOT)
    for folder in ("hannover", "nih-chestxray14", "covid-chestxray-dataset")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".png", ".jpg", ".jpeg")
)
DICOM = sorted(path.relative_to(ROOT) for path in (ROOT / "dicom").glob("*"))

QUIRKS = {
    "2_ORIGINAL.dicom": "Modality is CT",  # a localizer whose StudyDescription says "XR CHEST AP PORTABLE"
    "6154": "BodyPartExamined is CSPINE",
    "CT_small.dcm": "Modality is CT",
    "ExplVR_BigEnd.dcm": "transfer syntax Explicit VR Big Endian is not supported",
    "JPEG-LL.dcm": "Modality is NM",
    "MR_truncated.dcm": "Modality is MR",
    "RG2_JPLY.dcm": "BodyPartExamined is HIP",
    "RG3_J2KI.dcm": "BodyPartExamined is EXTREMITY",
    "RG3_J2KR.dcm": "BodyPartExamined is EXTREMITY",
    "RGB_ORIGINAL.dcm": "Modality is PT",
    "SC_rgb_jpeg_dcmtk.dcm": "Modality is OT",
    "SC_rgb_rle_2frame.dcm": "Modality is OT",
    "UN_sequence.dcm": "holds no pixel data",
    "chrRuss.dcm": "Modality is OT",
    "dx_image.dcm": "a description in it says lateral",  # of a dog; nothing else in the file could tell
    "emri_small.dcm": "Modality is MR",
    "explicit_VR-UN.dcm": "Modality is CT",
    "liver_1frame.dcm": "Modality is SEG",
    "meta_missing_tsyntax.dcm": "no Transfer Syntax UID",
    "no_meta.dcm": "is neither JPG, PNG nor DICOM",
    "priv_SQ.dcm": "holds no pixel data",
    "vlut_04.dcm": "Modality is OT",
}


@pytest.mark.parametrize("name", PICTURES, ids=str)
def test_every_ordinary_picture_loads(real_data: Path, name: Path) -> None:
    path = real_data / "cxr" / name
    image = read_cxr(path)
    with Image.open(path) as picture:
        assert image.shape == (picture.height, picture.width)
        if picture.mode == "L":
            np.testing.assert_array_equal(image, np.asarray(picture))
    stored = to_store(image)
    assert min(stored.shape) == 320
    tensor = normalise(crop(stored))
    assert tensor.shape == (3, 320, 320)
    assert np.isfinite(tensor).all()


@pytest.mark.parametrize("name", DICOM, ids=str)
def test_every_ordinary_dicom_shows_a_bright_spine_between_dark_lungs(real_data: Path, name: Path) -> None:
    """Both are MONOCHROME1: without inversion the spine would be the darkest part."""
    stored = to_store(read_cxr(real_data / "cxr" / name))
    middle = stored[100:200].astype(float)
    spine, right, left = middle[:, 140:180].mean(), middle[:, 70:110].mean(), middle[:, 210:250].mean()
    assert spine > right + 20
    assert spine > left + 20


@pytest.mark.parametrize(("name", "reason"), QUIRKS.items(), ids=list(QUIRKS))
def test_each_quirk_is_refused_with_its_reason(real_data: Path, name: str, reason: str) -> None:
    path = real_data / "cxr" / "quirks" / name
    if not path.exists():
        pytest.skip(f"{name} is not in this part of the files")
    with pytest.raises(UnusableFile) as raised:
        read_cxr(path)
    assert reason in raised.value.reason


def test_a_near_lossless_chest_is_decoded_where_a_decoder_is_installed(real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RG1_JLSN is the chest of RG1_J2KI in JPEG-LS; without the [dicom] extra it must be refused by name."""
    path, twin = real_data / "cxr" / "quirks" / "RG1_JLSN.dcm", real_data / "cxr" / "dicom" / "RG1_J2KI.dcm"
    if not (path.exists() and twin.exists()):
        pytest.skip("RG1 is not in this part of the files")
    decoder = get_decoder(JPEGLSNearLossless)
    if decoder.is_available:
        difference = np.abs(read_cxr(path).astype(int) - read_cxr(twin))
        assert np.quantile(difference, 0.999) <= 2, "two lossy versions of one picture"
    monkeypatch.setattr(decoder, "_available", {})
    with pytest.raises(UnusableFile, match=r"JPEG-LS Lossy.* no decoder .* pip install 'clinical-symile\[dicom\]'"):
        read_cxr(path)


def test_no_message_holds_an_identifier(real_data: Path) -> None:
    """2_ORIGINAL carries a full (invented) identity."""
    for path in sorted((real_data / "cxr" / "quirks").iterdir()):
        reason = fate(path)
        if reason is not None:
            assert len(reason) > 15
            assert str(path) not in reason
            assert "^" not in reason, "a DICOM person name"


def fate(path: Path) -> str | None:
    """Why a file is refused; ``None`` when it loads."""
    try:
        read_cxr(path)
    except UnusableFile as error:
        return error.reason
    return None

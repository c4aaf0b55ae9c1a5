"""DICOM radiographs: the grey scale against pydicom's own functions, refusals, compression, and hostile files."""

from __future__ import annotations

import io
import struct
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_modality_lut, apply_windowing, get_decoder
from pydicom.pixels.processing import apply_voi

from clinical_symile.errors import UnusableFile
from clinical_symile.modalities import dicom_pixels
from clinical_symile.modalities.codestream import codestream_size
from clinical_symile.modalities.cxr import read_cxr
from clinical_symile.modalities.dicom import rejection
from clinical_symile.modalities.greyscale import to_grey

SIDE = 96
MakeDicom = Callable[..., Path]


def stored_ramp(low: int = 0, high: int = 4095, dtype: str = "uint16") -> np.ndarray:
    """Every level between two stored values, in a square."""
    return np.linspace(low, high, SIDE * SIDE).round().astype(dtype).reshape(SIDE, SIDE)


def chest(stored: np.ndarray, **attributes: Any) -> Dataset:
    """A PA chest radiograph; ``attributes`` are set last, ``None`` removes one."""
    dataset = Dataset()
    dataset.SOPClassUID = uid.DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = uid.generate_uid(entropy_srcs=["test"])
    dataset.PatientName = "Canary^Yellow"
    dataset.PatientID = "CANARY-ID"
    dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = "DX", "CHEST", "PA"
    dataset.PhotometricInterpretation, dataset.SamplesPerPixel = "MONOCHROME2", 1
    dataset.Rows, dataset.Columns = stored.shape[-2:]
    dataset.BitsAllocated = 8 * stored.dtype.itemsize
    dataset.BitsStored = 8 if stored.dtype.itemsize == 1 else 16 if stored.dtype.kind == "i" else 12
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    dataset.PixelData = stored.tobytes()
    for name, value in attributes.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    return dataset


@pytest.fixture
def make_dicom(tmp_path: Path) -> MakeDicom:
    """Writes a chest radiograph and gives its path."""

    def make(stored: np.ndarray | None = None, *, syntax: uid.UID = uid.ExplicitVRLittleEndian, **attributes: Any) -> Path:
        dataset = chest(stored_ramp() if stored is None else stored, **attributes)
        dataset.file_meta.TransferSyntaxUID = syntax
        path = tmp_path / "picture"  # no extension, as PACS exports have it
        dataset.save_as(path, enforce_file_format=True)
        return path

    return make


def lut(entries: np.ndarray, first: int, bits: int) -> list[Dataset]:
    """A LUT sequence of one item."""
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries), first, bits])
    item.add_new("LUTData", "US", [int(entry) for entry in entries])
    return [item]


# ---------------------------------------------------------------------------------------------- grey scale


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID", None])
@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.684, 200.0), (2.0, -1024.0)])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_windows_equal_pydicoms(function: str | None, slope: float, intercept: float, photometric: str) -> None:
    """pydicom maps to its output range; ours is that range as 0…255, inverted within it."""
    stored = stored_ramp()
    window = {"WindowCenter": 1800, "WindowWidth": 2500, "RescaleSlope": slope, "RescaleIntercept": intercept}
    dataset = chest(stored, PhotometricInterpretation=photometric, **window)
    if function is not None:
        dataset.VOILUTFunction = function
    shown = apply_windowing(apply_modality_lut(stored, dataset), dataset)
    low, high = intercept, 4095 * slope + intercept
    expected = 255 * (shown - low) / (high - low)
    expected = 255 - expected if photometric == "MONOCHROME1" else expected
    difference = to_grey(stored, dataset) - expected
    assert np.abs(difference).max() <= 0.5 + 1e-9, "more than rounding to uint8"


def test_signed_values_and_the_first_of_several_windows() -> None:
    stored = stored_ramp(-1000, 3000, "int16")
    dataset = chest(stored, WindowCenter=[500, 9], WindowWidth=[1001, 2])
    image = to_grey(stored, dataset)
    assert image[stored <= 0].max() == 0
    assert image[stored >= 1000].min() == 255
    assert image[stored == 500][0] in (127, 128)


def test_a_voi_lut_goes_before_a_window_and_equals_pydicoms() -> None:
    stored = stored_ramp(0, 4095)
    curve = np.rint(1023 * np.linspace(0, 1, 3000) ** 0.5).astype(int)
    dataset = chest(stored, VOILUTSequence=lut(curve, 500, 10), WindowCenter=1, WindowWidth=2)
    expected = np.rint(255 * (apply_voi(stored, dataset) / 1023)).astype(np.uint8)
    np.testing.assert_array_equal(to_grey(stored, dataset), expected)
    dataset.PhotometricInterpretation = "MONOCHROME1"
    np.testing.assert_array_equal(to_grey(stored, dataset), np.rint(255 * (1 - apply_voi(stored, dataset) / 1023)))


def test_an_eight_bit_voi_lut_of_many_entries_does_not_wrap_around() -> None:
    """pydicom 3.0.2 computes its index in the LUT's own uint8 here; DICOM does not."""
    stored = stored_ramp(0, 4095)
    dataset = chest(stored, VOILUTSequence=lut(np.arange(4096) // 16, 0, 8))
    np.testing.assert_array_equal(to_grey(stored, dataset), stored // 16)


def test_a_modality_lut_equals_pydicoms() -> None:
    stored = stored_ramp(0, 255, "uint8")
    table = (np.arange(200) * 20) % 4096
    dataset = chest(stored, ModalityLUTSequence=lut(table, 30, 16), WindowCenter=2048, WindowWidth=4096)
    rescaled = apply_modality_lut(stored.astype(np.int32), dataset).astype(np.float64)
    expected = np.rint(255 * np.clip((rescaled - 2047.5) / 4095 + 0.5, 0, 1))
    np.testing.assert_array_equal(to_grey(stored, dataset), expected)


def test_lut_entries_packed_in_bytes() -> None:
    entries = bytes(range(255, -1, -1))
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [256, 0, 8])
    item.add_new("LUTData", "OW", entries)
    stored = stored_ramp(0, 255, "uint8")
    np.testing.assert_array_equal(to_grey(stored, chest(stored, VOILUTSequence=[item])), 255 - stored)


@pytest.mark.parametrize(
    "useless",
    [
        {},
        {"WindowCenter": 100_000, "WindowWidth": 10},  # in other units: every pixel would be black
        {"WindowCenter": 100, "WindowWidth": 0},
        {"WindowCenter": None, "WindowWidth": None},
    ],
)
def test_without_a_useful_window_the_range_of_values_is_shown(useless: dict[str, Any]) -> None:
    stored = stored_ramp(1000, 3000)
    dataset = chest(stored)
    for name, value in useless.items():
        setattr(dataset, name, value)
    np.testing.assert_array_equal(to_grey(stored, dataset), np.rint((stored - 1000.0) * 255 / 2000))


def test_padding_is_black_in_both_interpretations_and_outside_the_range() -> None:
    stored = stored_ramp(1000, 3000)
    stored[:10] = 0
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        image = to_grey(stored, chest(stored, PhotometricInterpretation=photometric, PixelPaddingValue=0))
        assert image[:10].max() == 0
        assert (image[10:].min(), image[10:].max()) == (0, 255)
    ranged = to_grey(stored, chest(stored, PixelPaddingValue=0, PixelPaddingRangeLimit=1500))
    assert ranged[stored <= 1500].max() == 0


@given(
    slope=st.floats(0.01, 10),
    centre=st.floats(-2000, 6000),
    width=st.floats(1.5, 8000),
    inverted=st.booleans(),
)
def test_more_x_rays_stopped_is_never_darker(slope: float, centre: float, width: float, inverted: bool) -> None:
    """Whatever the window: grey rises with the stored value, and falls with it for MONOCHROME1."""
    stored = stored_ramp()
    dataset = chest(stored, RescaleSlope=slope, RescaleIntercept=0.0)
    dataset.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    dataset.WindowCenter, dataset.WindowWidth = round(centre, 3), round(width, 3)
    steps = np.diff(to_grey(stored, dataset).ravel().astype(int))
    assert (steps <= 0).all() if inverted else (steps >= 0).all()


# ---------------------------------------------------------------------------------------------- files


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_file_is_read_without_extension_and_without_a_word(
    make_dicom: MakeDicom, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = make_dicom(SeriesDescription="Canary" * 20, BodyPartExamined="Chest of Canary")
    caplog.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = read_cxr(path)
    np.testing.assert_array_equal(image, np.rint(stored_ramp() * (255 / 4095)).astype(np.uint8))
    assert (*capfd.readouterr(), caplog.text) == ("", "", ""), "pydicom's warnings may quote a patient"


def test_implicit_vr_is_read(make_dicom: MakeDicom) -> None:
    """Here the file does not say that the LUT's first value and the padding are signed: the pixels' sign decides."""
    stored = stored_ramp(-512, 511, "int16")
    path = make_dicom(
        stored, syntax=uid.ImplicitVRLittleEndian, VOILUTSequence=lut(np.arange(1024), -512, 10), PixelPaddingValue=-511
    )
    expected = np.rint(255 * ((stored + 512.0) / 1023)).astype(np.uint8)
    np.testing.assert_array_equal(read_cxr(path), np.where(stored == -511, 0, expected))


REFUSALS = [
    ({"Modality": "CT"}, "Modality is CT, not a radiograph"),
    ({"Modality": "SR", "PixelData": None}, "Modality is SR, not a radiograph"),
    ({"Modality": None}, "does not state its Modality"),
    ({"PixelData": None}, "holds no pixel data"),
    ({"NumberOfFrames": 2}, "holds 2 frames"),
    ({"NumberOfFrames": 2**31 - 1}, "holds 2147483647 frames"),
    ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "colour picture"),
    ({"PhotometricInterpretation": "PALETTE COLOR"}, "colour picture"),
    ({"BitsAllocated": 32}, "32 bits per pixel"),
    ({"BitsAllocated": 1}, "1 bits per pixel"),
    ({"BodyPartExamined": "HIP"}, "BodyPartExamined is HIP, not the chest"),
    ({"ViewPosition": "LL"}, "ViewPosition is LL, not AP or PA"),
    ({"ViewPosition": "LATERAL"}, "ViewPosition is LATERAL, not AP or PA"),
    ({"ViewPosition": "", "PatientOrientation": ["A", "F"]}, "PatientOrientation says a lateral view"),
    ({"ViewPosition": "", "SeriesDescription": "Chest Lat."}, "a description in it says lateral"),
    ({"PresentationIntentType": "FOR PROCESSING"}, "raw detector data"),
    ({"BurnedInAnnotation": "YES"}, "burned into its pixels"),
    ({"Rows": 20, "Columns": SIDE * SIDE // 20}, "too small"),
    ({"Rows": 65535, "Columns": 65535}, "too large"),
    ({"Rows": 0}, "too small"),
    ({"Rows": SIDE + 1}, "damaged or cut short"),
]


@pytest.mark.parametrize(("attributes", "reason"), REFUSALS, ids=[reason for _, reason in REFUSALS])
def test_what_is_no_frontal_chest_radiograph_is_refused(make_dicom: MakeDicom, attributes: dict[str, Any], reason: str) -> None:
    path = make_dicom(**attributes)
    with pytest.raises(UnusableFile, match=reason) as raised:
        read_cxr(path)
    assert "anary" not in str(raised.value)
    assert "CANARY" not in str(raised.value)


@pytest.mark.parametrize(
    "attributes",
    [
        {"BodyPartExamined": None},
        {"BodyPartExamined": "PORT CHEST"},
        {"BodyPartExamined": "TORAX"},
        {"ViewPosition": None},
        {"ViewPosition": "AP"},
        {"ViewPosition": "", "PatientOrientation": ["L", "F"]},
        {"ViewPosition": "", "SeriesDescription": "CHEST PA AND LAT"},
        {"ViewPosition": "", "SeriesDescription": "W034 Chest lateralised effusion"},
        {"Modality": "CR", "NumberOfFrames": 1, "BurnedInAnnotation": "NO", "PresentationIntentType": "FOR PRESENTATION"},
    ],
)
def test_what_a_file_does_not_state_is_not_held_against_it(attributes: dict[str, Any]) -> None:
    assert rejection(chest(stored_ramp(), **attributes)) is None


def test_a_coded_view_counts_where_the_position_is_not_stated() -> None:
    code = Dataset()
    code.CodeMeaning = "left lateral"
    assert "ViewCodeSequence" in str(rejection(chest(stored_ramp(), ViewPosition="", ViewCodeSequence=[code])))
    code.CodeMeaning = "postero-anterior"
    assert rejection(chest(stored_ramp(), ViewPosition="", ViewCodeSequence=[code])) is None


def test_burned_in_text_is_accepted_when_asked_for(make_dicom: MakeDicom) -> None:
    assert read_cxr(make_dicom(BurnedInAnnotation="YES"), allow_burned_in=True).shape == (SIDE, SIDE)


@pytest.mark.parametrize(
    ("syntax", "reason"),
    [
        (uid.DeflatedExplicitVRLittleEndian, "Deflated Explicit VR Little Endian is not supported"),
        (uid.ExplicitVRBigEndian, "Explicit VR Big Endian is not supported"),
        (uid.UID("1.2.3.4"), "transfer syntax 1.2.3.4 is not supported"),
    ],
)
def test_other_encodings_are_refused_before_anything_is_read(tmp_path: Path, syntax: uid.UID, reason: str) -> None:
    dataset = chest(stored_ramp())
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    path = tmp_path / "other"
    with path.open("wb") as handle:
        handle.write(bytes(128) + b"DICM")
        pydicom.filewriter.write_file_meta_info(handle, dataset.file_meta)
        handle.write(bytes(1000))  # would not parse
    with pytest.raises(UnusableFile, match=reason):
        read_cxr(path)


# ---------------------------------------------------------------------------------------------- compression


def with_frame(dataset: Dataset, syntax: uid.UID, frame: bytes) -> Dataset:
    """The dataset with its pixels replaced by one compressed frame."""
    dataset.PixelData = pydicom.encaps.encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax
    return dataset


def encoded(syntax: uid.UID, stored: np.ndarray) -> Dataset:
    """A chest radiograph, compressed."""
    dataset = chest(stored)
    if syntax == uid.JPEG2000Lossless:
        stream = io.BytesIO()
        Image.fromarray(stored).save(stream, format="JPEG2000", no_jp2=True)
        return with_frame(dataset, syntax, stream.getvalue())
    try:
        dataset.compress(syntax, generate_instance_uid=False)
    except (RuntimeError, NotImplementedError) as error:
        pytest.skip(f"no encoder for {syntax.name}: {error}")
    return dataset


@pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless])
def test_lossless_compression_changes_nothing(tmp_path: Path, syntax: uid.UID) -> None:
    stored = np.random.default_rng(0).integers(0, 4096, (SIDE, SIDE + 8)).astype(np.uint16)
    dataset = encoded(syntax, stored)
    if not get_decoder(syntax).is_available:
        pytest.skip(f"no decoder for {syntax.name}")
    dataset.save_as(tmp_path / "compressed", enforce_file_format=True)
    np.testing.assert_array_equal(read_cxr(tmp_path / "compressed"), to_grey(stored, chest(stored)))


@pytest.mark.parametrize("syntax", [uid.JPEGLSNearLossless, uid.JPEGLosslessSV1, uid.HTJ2KLossless])
def test_a_missing_decoder_is_named_with_its_remedy(tmp_path: Path, syntax: uid.UID, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = get_decoder(syntax)
    monkeypatch.setattr(decoder, "_available", {})
    dataset = with_frame(chest(stored_ramp()), syntax, b"\xff\xd8\xff\xd9")
    dataset.save_as(tmp_path / "compressed", enforce_file_format=True)
    with pytest.raises(UnusableFile, match=r"no decoder for it is installed: pip install 'clinical-symile\[dicom\]'") as raised:
        read_cxr(tmp_path / "compressed")
    assert syntax.name in raised.value.reason


@pytest.fixture
def jpeg_lossless(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A chest in JPEG Lossless, the commonest compression of radiographs, made by GDCM; and its stored values."""
    gdcm = pytest.importorskip("gdcm", reason="python-gdcm is in the extra [dicom]")
    stored = np.random.default_rng(0).integers(0, 4096, (SIDE, SIDE)).astype(np.uint16)
    chest(stored).save_as(tmp_path / "plain", enforce_file_format=True)
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(tmp_path / "plain"))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(tmp_path / "lossless"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return tmp_path / "lossless", stored


def test_jpeg_lossless_is_decoded_in_a_process_of_its_own(jpeg_lossless: tuple[Path, np.ndarray]) -> None:
    path, stored = jpeg_lossless
    np.testing.assert_array_equal(read_cxr(path), to_grey(stored, chest(stored)))


@pytest.mark.parametrize(
    ("script", "reason"),
    [("kill -ABRT $$", "the decoder crashed"), ("exit 1", "could not read"), ("sleep 9", "did not finish within")],
)
def test_a_decoder_that_crashes_or_hangs_takes_nothing_with_it(
    jpeg_lossless: tuple[Path, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
) -> None:
    fake = tmp_path / "python"
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(fake))
    monkeypatch.setattr(dicom_pixels, "ISOLATED_SECONDS", 0.5)
    with pytest.raises(UnusableFile, match=reason):
        read_cxr(jpeg_lossless[0])


def test_a_frame_that_holds_another_picture_than_the_header_says_is_refused(tmp_path: Path) -> None:
    """Decoders believe the codestream, so a small header could hide 60,000 x 60,000 pixels."""
    dataset = encoded(uid.JPEG2000Lossless, stored_ramp())
    dataset.Rows = 2 * SIDE
    dataset.save_as(tmp_path / "compressed", enforce_file_format=True)
    with pytest.raises(UnusableFile, match="compressed picture has 96 x 96 pixels, but its header says 192 x 96"):
        read_cxr(tmp_path / "compressed")


def test_an_rle_stream_that_would_inflate_is_refused(tmp_path: Path) -> None:
    """Two bytes of RLE give 128; the bomb says 96 x 96 and holds 128 MB."""
    segment = b"\x81\x00" * 1_000_000
    bomb = struct.pack("<16L", 1, 64, *[0] * 14) + segment
    dataset = with_frame(chest(stored_ramp(0, 255, "uint8")), uid.RLELossless, bomb)
    dataset.save_as(tmp_path / "bomb", enforce_file_format=True)
    with pytest.raises(UnusableFile, match="far longer than the uncompressed"):
        read_cxr(tmp_path / "bomb")


def test_codestream_sizes() -> None:
    jpeg_ls = encoded(uid.JPEGLSLossless, stored_ramp()[:70])
    assert codestream_size(next(pydicom.encaps.generate_frames(jpeg_ls.PixelData, number_of_frames=1))) == (70, SIDE)
    padded = b"\xff\xd8" + b"\xff\xff\xe0\x00\x04ab" + b"\xff\xc0\x00\x0b\x08" + struct.pack(">HH", 50, 60)
    assert codestream_size(padded) == (50, 60)
    assert codestream_size(b"anything else") is None
    for cut in (b"\xff\xd8", b"\xff\xd8\xff\xe0\xff\xff", b"\xff\xd8\x00\x00", b"\xff\x4f\xff\x51\x00"):
        with pytest.raises(ValueError, match="header of the compressed picture"):
            codestream_size(cut)


# ---------------------------------------------------------------------------------------------- hostile files


def test_sequences_nested_without_end_are_refused(tmp_path: Path) -> None:
    """7 kB of nested sequences of undefined length exhaust Python's stack in pydicom."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = uid.ComputedRadiographyImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    nest = b"\x08\x00\x15\x11SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    path = tmp_path / "nest"
    with path.open("wb") as handle:
        handle.write(bytes(128) + b"DICM")
        pydicom.filewriter.write_file_meta_info(handle, meta)
        handle.write(nest * 2000)
    with pytest.raises(UnusableFile, match="damaged DICOM file"):
        read_cxr(path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(changes=st.lists(st.tuples(st.integers(132, 1200), st.integers(0, 255)), min_size=1, max_size=6), cut=st.integers(0, 400))
def test_a_damaged_file_is_read_or_refused_but_never_an_accident(
    tmp_path: Path, changes: list[tuple[int, int]], cut: int
) -> None:
    dataset = chest(stored_ramp(), WindowCenter=2000, WindowWidth=3000, VOILUTSequence=lut(np.arange(64), 0, 10))
    path = tmp_path / "fuzzed"
    dataset.save_as(path, enforce_file_format=True)
    content = bytearray(path.read_bytes())
    for position, value in changes:
        content[min(position, len(content) - 1)] = value
    path.write_bytes(content[: len(content) - cut] if cut > 200 else content)
    try:
        image = read_cxr(path)
    except UnusableFile:
        return
    assert image.dtype == np.uint8
    assert image.ndim == 2

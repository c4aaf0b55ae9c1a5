"""The X-ray's way to the encoder, against the paper's recipe written out with Pillow, torch and NumPy."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clinical_symile.errors import InputError, UnusableFile
from clinical_symile.modalities.cxr import IMAGENET_MEAN, IMAGENET_STD, crop, normalise, read_cxr, to_store

RNG_SEED = 7


def picture(height: int, width: int) -> np.ndarray:
    """Soft shapes with grain: an image on which resampling filters differ."""
    rng = np.random.default_rng(RNG_SEED)
    y, x = np.mgrid[0:height, 0:width]
    waves = 110 + 60 * np.sin(y / 17) * np.cos(x / 23) + rng.normal(0, 20, (height, width))
    return np.clip(waves, 0, 255).astype(np.uint8)


def papers_tensor(path: Path) -> np.ndarray:
    """Image.open().convert("RGB"), torchvision's Resize(320), CenterCrop(320), ToTensor, Normalize (its source, written out)."""
    rgb = Image.open(path).convert("RGB")
    width, height = rgb.size
    short, long = min(width, height), max(width, height)
    new_long = int(320 * long / short)
    rgb = rgb.resize((320, new_long) if width <= height else (new_long, 320), Image.BILINEAR)
    width, height = rgb.size
    top, left = round((height - 320) / 2.0), round((width - 320) / 2.0)
    rgb = rgb.crop((left, top, left + 320, top + 320))
    tensor = torch.from_numpy(np.array(rgb)).permute(2, 0, 1).contiguous().to(torch.float32).div(255)
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    return tensor.sub_(mean[:, None, None]).div_(std[:, None, None]).numpy()


@pytest.mark.parametrize("shape", [(400, 400), (320, 320), (2544, 3056), (713, 640), (640, 1001), (321, 640), (200, 300)])
def test_a_grey_jpg_becomes_the_papers_tensor_bit_for_bit(tmp_path: Path, shape: tuple[int, int]) -> None:
    path = tmp_path / "cxr.jpg"
    Image.fromarray(picture(*shape)).save(path, quality=95)
    stored = to_store(read_cxr(path))
    assert stored.dtype == np.uint8
    assert min(stored.shape) == 320
    np.testing.assert_array_equal(normalise(crop(stored)), papers_tensor(path))


@pytest.mark.parametrize(("shape", "expected"), [((1001, 640), (500, 320)), ((640, 1001), (320, 500)), ((333, 999), (320, 960))])
def test_the_long_side_is_cut_to_a_whole_number_as_torchvision_does(shape: tuple[int, int], expected: tuple[int, int]) -> None:
    assert to_store(picture(*shape)).shape == expected  # 320 * 1001 / 640 = 500.5 -> 500


def test_a_picture_of_the_stored_size_is_copied_unchanged() -> None:
    image = picture(320, 333)
    stored = to_store(image)
    np.testing.assert_array_equal(stored, image)
    assert not np.shares_memory(stored, image)


def test_crops() -> None:
    image = np.arange(4 * 7, dtype=np.uint8).reshape(4, 7)
    np.testing.assert_array_equal(crop(image, 4), image[:, 2:6])  # (7 - 4) / 2 = 1.5 -> 2, Python's rounding as torchvision's
    np.testing.assert_array_equal(crop(image, 3, (1, 4)), image[1:4, 4:7])
    assert crop(np.stack([image, image]), 4).shape == (2, 4, 4)
    for size, corner in [(5, None), (3, (2, 0)), (3, (0, 5)), (3, (-1, 0))]:
        with pytest.raises(InputError, match="does not fit"):
            crop(image, size, corner)


def test_normalise_is_the_formula_in_float32_for_every_grey_level() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    out = normalise(levels)
    assert out.shape == (1, 3, 16, 16)
    assert out.dtype == np.float32
    for channel in range(3):
        scaled = levels[0].astype(np.float32) / np.float32(255)
        expected = (scaled - np.float32(IMAGENET_MEAN[channel])) / np.float32(IMAGENET_STD[channel])
        np.testing.assert_array_equal(out[0, channel], expected)


def test_arrays_of_another_kind_are_refused() -> None:
    with pytest.raises(InputError, match="grey picture must be uint8"):
        to_store(np.zeros((400, 400), dtype=np.float32))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"\(400, 400, 3\)"):
        to_store(np.zeros((400, 400, 3), dtype=np.uint8))
    with pytest.raises(InputError, match="must be uint8"):
        normalise(np.zeros((4, 4)))  # type: ignore[arg-type]


def test_png_and_grey_colours_keep_their_values(tmp_path: Path) -> None:
    image = picture(100, 120)
    grey = Image.fromarray(image)
    opaque = Image.fromarray(np.full_like(image, 255))
    variants = {
        "grey": grey,
        "rgb": Image.merge("RGB", [grey] * 3),
        "rgba": Image.merge("RGBA", [grey] * 3 + [opaque]),
        "la": Image.merge("LA", [grey, opaque]),
        "palette": grey.convert("P"),
    }
    for name, variant in variants.items():
        variant.save(tmp_path / f"{name}.png")
        np.testing.assert_array_equal(read_cxr(tmp_path / f"{name}.png"), image, err_msg=name)


def test_colour_becomes_luma_and_transparent_becomes_black(tmp_path: Path) -> None:
    colour = np.zeros((80, 80, 4), dtype=np.uint8)
    colour[:40] = (255, 0, 0, 255)
    colour[40:] = (255, 255, 255, 0)
    Image.fromarray(colour).save(tmp_path / "colour.png")
    image = read_cxr(tmp_path / "colour.png")
    assert set(image[:40].ravel()) == {76}  # 0.299 * 255
    assert set(image[40:].ravel()) == {0}


def test_sixteen_bit_png_is_stretched_from_its_smallest_to_its_largest_value(tmp_path: Path) -> None:
    """12-bit content in a 16-bit file, as PadChest publishes it, must not come out black."""
    deep = np.linspace(100, 4095, 80 * 80).reshape(80, 80).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    image = read_cxr(tmp_path / "deep.png")
    np.testing.assert_array_equal(image, np.rint((deep - 100.0) * 255 / 3995).astype(np.uint8))


def test_the_orientation_that_exif_states_is_applied(tmp_path: Path) -> None:
    image = picture(100, 140)
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees clockwise to view"
    Image.fromarray(image).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_cxr(tmp_path / "turned.png"), np.rot90(image, -1))


def test_content_decides_not_the_name(tmp_path: Path) -> None:
    Image.fromarray(picture(100, 100)).save(tmp_path / "cxr.png")
    renamed = (tmp_path / "cxr.png").rename(tmp_path / "cxr.dcm")
    assert read_cxr(renamed).shape == (100, 100)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds a few bytes of pixels."""
    chunks = [b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0), b"IDAT" + zlib.compress(bytes(99)), b"IEND"]
    framed = [struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def save(image: np.ndarray, path: Path, **options: object) -> bytes:
    Image.fromarray(image).save(path, **options)  # type: ignore[arg-type]
    return path.read_bytes()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda p: b"", "empty"),
        (lambda p: b"not a picture", "neither JPG, PNG nor DICOM"),
        (lambda p: save(picture(100, 100), p, format="GIF"), "neither JPG, PNG nor DICOM"),
        (lambda p: save(picture(100, 100), p, format="TIFF"), "neither JPG, PNG nor DICOM"),
        (lambda p: save(picture(300, 300), p, format="JPEG")[:2000], "damaged or incomplete"),
        (lambda p: save(picture(300, 300), p, format="PNG")[:2000], "damaged or incomplete"),
        (lambda p: b"\xff\xd8\xff" + bytes(500), "header is not that of a JPG or PNG"),
        (lambda p: png_header(6_500, 6_500), "too large"),
        (lambda p: png_header(60_000, 60_000), "bomb"),
        (lambda p: png_header(100, 30_000), "too narrow"),
        (lambda p: save(picture(16, 16), p, format="PNG"), "too small"),
        (lambda p: save(np.full((100, 100), 9, np.uint8), p, format="PNG"), "same grey"),
        (lambda p: save(np.full((100, 100), 900, np.uint16), p, format="PNG"), "same grey"),
        (lambda p: b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100", "without the 128-byte preamble"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_what_is_no_x_ray_is_refused_with_a_reason(tmp_path: Path, content, reason: str) -> None:
    path = tmp_path / "cxr.jpg"
    path.write_bytes(content(path))
    with pytest.raises(UnusableFile, match=reason) as raised:
        read_cxr(path)
    assert str(path) not in raised.value.reason


def test_a_missing_file_a_folder_and_a_file_that_is_too_large_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableFile, match="is missing"):
        read_cxr(tmp_path / "absent.jpg")
    with pytest.raises(UnusableFile, match="a folder"):
        read_cxr(tmp_path)
    with (tmp_path / "large.png").open("wb") as handle:
        handle.truncate(65 * 2**20)  # sparse: takes no space
    with pytest.raises(UnusableFile, match="65 MiB are too much"):
        read_cxr(tmp_path / "large.png")

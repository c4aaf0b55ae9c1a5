"""What may come in: files inside their root, of bounded size. Every reader of this room checks here first."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from clinical_symile.errors import UnusableFile

MAX_FILE_BYTES: Final = 64 * 2**20
"""An uncompressed 16-bit X-ray of 5,700 x 5,700 pixels still fits."""

MAX_PIXELS: Final = 40_000_000
"""The largest detectors in use have about 18 million pixels."""

MIN_SIDE: Final = 64
MAX_ASPECT: Final = 4
"""Long side over short side. Without this limit, a file of 1 x 40 million pixels would grow when its short side is resized."""


def resolve_inside(root: Path, relative: str | Path) -> Path:
    """The path of a file that a table names, which must lie in ``root`` after following every link.

    Data sets managed with DataLad or kept on another disk consist of links, so links are followed, but not out of the
    root: ``root`` must then be the folder that also holds what the links point at.

    Args:
        root: folder of the source.
        relative: path relative to it, as a table gives it.

    Raises:
        UnusableFile: the path is absolute, has ``..`` or a NUL in it, or leads out of ``root``.
    """
    text = str(relative)
    if not text or "\0" in text or "\\" in text:
        raise UnusableFile(repr(text), "is not a usable relative path (it is empty or holds a NUL or a backslash)")
    path = Path(text)
    if path.is_absolute() or ".." in path.parts:
        raise UnusableFile(text, "must be relative to its source folder, without '..'")
    try:
        joined = (root / path).resolve()
    except (OSError, RuntimeError):
        raise UnusableFile(text, "cannot be resolved (a loop of links, or a name that is too long)") from None
    if not joined.is_relative_to(root.resolve()):
        raise UnusableFile(text, "leads out of its source folder through a link")
    return joined


def require_regular_file(path: Path, max_bytes: int = MAX_FILE_BYTES) -> None:
    """Refuses what is no file, is empty or is too large to be what it should be.

    Raises:
        UnusableFile: with the reason.
    """
    try:
        if not path.is_file():
            raise UnusableFile(path, "is a folder or device, not a file" if path.exists() else "the file is missing")
        size = path.stat().st_size
    except OSError as error:
        raise UnusableFile(path, f"cannot be read ({error.strerror})") from None
    if size == 0:
        raise UnusableFile(path, "the file is empty")
    if size > max_bytes:
        raise UnusableFile(path, f"{size / 2**20:.0f} MiB are too much for one file (at most {max_bytes / 2**20:.0f} MiB)")


def require_picture_size(path: Path, height: int, width: int) -> None:
    """Refuses pictures that are too small, too large or too narrow to be a chest X-ray, before their pixels are decoded.

    Raises:
        UnusableFile: with the size and the limit.
    """
    size = f"{height} x {width} pixels (height x width)"
    if min(height, width) < MIN_SIDE:
        raise UnusableFile(path, f"{size}: too small for a chest X-ray (each side at least {MIN_SIDE})")
    if height * width > MAX_PIXELS:
        raise UnusableFile(path, f"{size}: too large (at most {MAX_PIXELS // 10**6} million pixels)")
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise UnusableFile(path, f"{size}: too narrow for a chest X-ray (sides at most 1 : {MAX_ASPECT})")


def is_dicom(path: Path) -> bool:
    """Whether a file has the mark of a DICOM file (``DICM`` after a preamble of 128 bytes)."""
    try:
        with path.open("rb") as handle:
            return handle.read(132)[128:] == b"DICM"
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return False

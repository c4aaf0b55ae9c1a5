"""How many pixels a compressed frame really holds, read from its own header without decoding it."""

from __future__ import annotations

import struct
from typing import Final

_JPEG_FRAME_MARKERS: Final = frozenset({*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0), 0xF7})
"""SOF0…SOF15 without DHT, JPG and DAC (ITU-T T.81, table B.1), and SOF55 of JPEG-LS (T.87)."""

_JPEG2000_START: Final = b"\xff\x4f\xff\x51"
"""SOC followed by SIZ, which must come first (ITU-T T.800, A.5.1); HTJ2K begins the same way."""


def codestream_size(frame: bytes) -> tuple[int, int] | None:
    """Height and width that a JPEG, JPEG-LS or JPEG 2000 codestream declares.

    Args:
        frame: one compressed frame.

    Returns:
        (height, width), or ``None`` when the frame is none of these (RLE states no size).

    Raises:
        ValueError: the codestream's header is cut short.
    """
    jpeg2000 = frame.find(_JPEG2000_START, 0, 4096)
    try:
        if jpeg2000 >= 0:
            right, bottom, left, top = struct.unpack_from(">4I", frame, jpeg2000 + len(_JPEG2000_START) + 4)
            return bottom - top, right - left
        if frame.startswith(b"\xff\xd8"):
            return _jpeg_size(frame)
    except struct.error:
        raise ValueError("the header of the compressed picture is cut short") from None
    return None


def _jpeg_size(frame: bytes) -> tuple[int, int]:
    position = 2
    while True:
        prefix, marker = struct.unpack_from(">BB", frame, position)
        if prefix != 0xFF:
            raise ValueError("the header of the compressed picture is damaged")
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker in _JPEG_FRAME_MARKERS:
            height, width = struct.unpack_from(">HH", frame, position + 5)
            return height, width
        (length,) = struct.unpack_from(">H", frame, position + 2)
        position += 2 + max(length, 2)

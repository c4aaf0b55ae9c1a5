"""The digests that a data release promises: ``SHA256SUMS.txt``, in the format of ``sha256sum``."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Final

from clinical_symile.errors import InputError

CHECKSUMS_FILE: Final = "SHA256SUMS.txt"

_LINE: Final = re.compile(r"\\?([0-9a-fA-F]{64})(?: [ *]?|\t)(.*\S.*)")
"""``<digest>  <name>``, ``<digest> *<name>`` (binary mode) or, as some PhysioNet releases have it, one space only. A leading
backslash says that the name holds escaped characters."""

_TAGGED: Final = re.compile(r"SHA256 \((.+)\) = ([0-9a-fA-F]{64})")
"""``sha256sum --tag`` and BSD's ``sha256``."""

_ESCAPES: Final = {r"\\": "\\", r"\n": "\n", r"\r": "\r"}


def expected_digests(folder: Path, names: Collection[str]) -> dict[str, str] | None:
    """What ``SHA256SUMS.txt`` in a folder says about some files.

    The file is read line by line and only what was asked for is kept: MIMIC-CXR-JPG's lists some 400,000 pictures.

    Args:
        folder: the root of the release; names in the file are relative to it.
        names: relative paths with forward slashes, such as ``data_npy/train/cxr_train.npy``.

    Returns:
        Name -> SHA-256 in lower-case hexadecimal digits, for those of ``names`` that are listed; what is missing there is
        not listed. None when the folder has no ``SHA256SUMS.txt``.

    Raises:
        InputError: the file cannot be read, holds a line that is no checksum, or contradicts itself about a wanted file.

    Example:
        >>> expected_digests(Path("symile-mimic/1.0.0"), ["train.csv"])  # doctest: +SKIP
        {'train.csv': '5d4140…'}
    """
    file = folder / CHECKSUMS_FILE
    wanted = frozenset(names)
    found: dict[str, str] = {}
    try:
        # Undecodable names survive as surrogates: they are nobody's business here unless somebody asks for them.
        with file.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
            for number, line in enumerate(lines, 1):
                text = line.rstrip("\r\n")
                if not text.strip() or text.startswith("#"):
                    continue
                name, digest = _parse(text, file, number)
                if name not in wanted:
                    continue
                if found.setdefault(name, digest) != digest:
                    raise InputError(f"{file}: line {number} gives {name} another digest than a line above; download it again")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); mend its rights, or download it again") from None
    return found


def _parse(text: str, file: Path, number: int) -> tuple[str, str]:
    plain = _LINE.fullmatch(text)
    if plain:
        digest, name = plain.groups()
        if text.startswith("\\"):
            name = re.sub(r"\\[\\nr]", lambda match: _ESCAPES[match.group()], name)
    else:
        tagged = _TAGGED.fullmatch(text)
        if not tagged:
            raise InputError(
                f"{file}: line {number} is no checksum ('<64 hexadecimal digits>  <file name>' is expected); download it again"
            )
        name, digest = tagged.groups()
    return name.removeprefix("./"), digest.lower()

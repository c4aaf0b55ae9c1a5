"""The digests of a hospital's tables, and whether they are the ones that the release promises."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from clinical_symile.checksums import CHECKSUMS_FILE, expected_digests
from clinical_symile.errors import InputError
from clinical_symile.stage import RunOptions, digest_file


def digest_tables(tables: Mapping[str, Path], options: RunOptions) -> dict[str, str]:
    """SHA-256 of each table, checked against ``SHA256SUMS.txt`` in the table's folder or the one above, where there is one.

    Args:
        tables: name -> file.
        options: how to run; several files are read at a time.

    Returns:
        Name -> SHA-256 in hexadecimal digits.

    Raises:
        InputError: a table is not what ``SHA256SUMS.txt`` promises, or cannot be read.
    """
    with ThreadPoolExecutor(options.jobs) as pool:  # hashing releases Python's lock
        digests = dict(zip(tables, pool.map(_digest, tables.values()), strict=True))
    for name, file in tables.items():
        promised = _promised(file)
        if promised is not None and promised != digests[name]:
            raise InputError(
                f"{file}: is not the file that its {CHECKSUMS_FILE} promises (SHA-256 {digests[name][:12]}… instead of "
                f"{promised[:12]}…): it was changed, cut short, or comes from another version; fetch it again"
            )
    return digests


def _digest(file: Path) -> str:
    try:
        return digest_file(file)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None


def _promised(file: Path) -> str | None:
    """What the nearest ``SHA256SUMS.txt`` says about a file; MIMIC-IV's stands above the folder ``hosp``."""
    for folder in (file.parent, file.parent.parent):
        name = file.relative_to(folder).as_posix()
        promises = expected_digests(folder, [name])
        if promises is not None:
            return promises.get(name)
    return None

"""The digests of a hospital's tables, and whether they are the ones that the release promises."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from clinical_symile.checksums import CHECKSUMS_FILE, expected_digests
from clinical_symile.errors import InputError
from clinical_symile.stage import RunOptions, digest_file

logger = logging.getLogger(__name__)


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
    promised, listed = _promised(list(tables.values()))
    unlisted = [file.name for file in tables.values() if file not in promised]
    if listed and unlisted:
        logger.warning("%s does not list %s: nobody can tell whether they are whole", CHECKSUMS_FILE, ", ".join(unlisted))
    for name, file in tables.items():
        if promised.get(file, digests[name]) != digests[name]:
            raise InputError(
                f"{file}: is not the file that its {CHECKSUMS_FILE} promises (SHA-256 {digests[name][:12]}… instead of "
                f"{promised[file][:12]}…): it was changed, cut short, or comes from another version; fetch it again"
            )
    return digests


def _digest(file: Path) -> str:
    try:
        return digest_file(file)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None


def _promised(files: Sequence[Path]) -> tuple[dict[Path, str], bool]:
    """What ``SHA256SUMS.txt`` says about files, and whether there is one at all.

    The one in a file's folder counts, else the one above it: MIMIC-IV's stands above the folder ``hosp``. One above that
    cannot be read is somebody else's. Each list is read once: MIMIC-CXR's has 400,000 lines.
    """
    promised: dict[Path, str] = {}
    listed = False
    for level in (0, 1):
        for folder in dict.fromkeys(file.parents[level] for file in files):
            names = {file.relative_to(folder).as_posix(): file for file in files if file.parents[level] == folder}
            try:
                found = expected_digests(folder, names)
            except InputError as error:
                if level == 0:
                    raise
                logger.warning("%s; it is passed over", error)
                continue
            listed |= bool(found) or (found is not None and level == 0)
            promised = {names[name]: digest for name, digest in (found or {}).items()} | promised
    return promised, listed

"""An uploaded ECG: the two files of a WFDB record."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from clinical_symile.errors import InputError, UnusableFile
from clinical_symile.modalities import EcgRecord, read_ecg

_FILE_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}\.(hea|dat|mat)")
_EXPECTED = "an ECG is two files of one WFDB record: the header (.hea) and its signals (.dat or .mat)"


def read_uploaded_ecg(files: Mapping[str, bytes], scratch: Path) -> EcgRecord:
    """Reads an uploaded WFDB record.

    WFDB is read from files, so the bytes spend a moment in a folder that only this user can open; then they are removed.

    Args:
        files: file name -> content; one ``.hea`` and the ``.dat`` or ``.mat`` that it names.
        scratch: where that folder is made; created if need be.

    Raises:
        InputError: something else was uploaded, the files do not belong together, or they hold no 12-lead ECG.
    """
    for name in files:
        if not _FILE_NAME.fullmatch(name):
            raise InputError(f"{name!r} is not the name of a WFDB file (letters, digits, '_' and '-'); {_EXPECTED}")
    headers = [name for name in files if name.endswith(".hea")]
    signals = [name for name in files if not name.endswith(".hea")]
    if len(headers) != 1 or len(signals) != 1:
        raise InputError(f"{len(headers)} header(s) and {len(signals)} signal file(s) were given; {_EXPECTED}")
    scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=scratch, prefix="ecg-") as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        try:
            return read_ecg(Path(folder) / headers[0])
        except UnusableFile as error:
            # Without the temporary folder's name, which would tell nobody anything.
            raise InputError(f"{headers[0]} with {signals[0]}: {error.reason}") from None

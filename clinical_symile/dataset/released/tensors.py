"""``.npy`` files that are larger than memory: their headers are checked, their rows read one by one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clinical_symile.errors import InputError

_HEADERS: Final = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_AGAIN: Final = "download it again"


@dataclass(frozen=True)
class Tensor:
    """A ``.npy`` file of n rows, float32, C order.

    Rows are read with plain reads: pages of a memory map would count as this process's memory, gigabytes of them.

    Attributes:
        file: where it lies.
        shape: (n, …).
        offset: bytes before the first row.
    """

    file: Path
    shape: tuple[int, ...]
    offset: int

    def row(self, index: int) -> NDArray[np.float32]:
        """One row, in memory.

        Raises:
            InputError: the file was cut since its header was checked.
        """
        shape = self.shape[1:]
        size = int(np.prod(shape)) * 4
        with self.file.open("rb", buffering=0) as handle:
            content = os.pread(handle.fileno(), size, self.offset + index * size)
        if len(content) != size:
            raise InputError(f"{self.file}: ends within row {index}; {_AGAIN}")
        return np.frombuffer(content, dtype="<f4").reshape(shape)


def open_tensor(file: Path, row_shape: tuple[int, ...]) -> Tensor:
    """Checks that a file holds float32 rows of a shape, and all of them.

    Raises:
        InputError: it does not.
    """
    try:
        with file.open("rb") as handle:
            version = np.lib.format.read_magic(handle)
            if version not in _HEADERS:
                raise InputError(f"{file}: version {version} of the .npy format is not read here; {_AGAIN}")
            shape, column_major, dtype = _HEADERS[version](handle)
            offset = handle.tell()
    except (OSError, ValueError, EOFError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file}: is no .npy file, or its start is damaged; {_AGAIN}") from None
    if dtype != np.dtype("<f4") or column_major or shape[1:] != row_shape or not shape:
        order = ", column-major" if column_major else ""
        raise InputError(
            f"{file}: holds {shape} {dtype}{order}, but (n, {', '.join(map(str, row_shape))}) float32 is expected; is it the "
            "file of PhysioNet's release?"
        )
    expected = offset + int(np.prod(shape)) * 4
    size = file.stat().st_size
    if size != expected:
        raise InputError(f"{file}: has {size} bytes, but its header asks for {expected}: it is cut short or damaged; {_AGAIN}")
    return Tensor(file, shape, offset)


def read_small(file: Path, columns: int | None, kinds: str) -> NDArray[Any]:
    """A small array, in memory.

    Args:
        file: where it lies.
        columns: the array is (n, columns); None: it is (n,).
        kinds: the kinds of dtype that are accepted, as numpy's letters.

    Raises:
        InputError: it is damaged, or not such an array.
    """
    try:
        array = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        raise InputError(f"{file}: is no .npy file, or is cut short or damaged; {_AGAIN}") from None
    if not isinstance(array, np.ndarray):
        raise InputError(f"{file}: is an archive, not a .npy file; {_AGAIN}")
    row_shape = () if columns is None else (columns,)
    if not array.ndim or array.shape[1:] != row_shape or array.dtype.kind not in kinds:
        form = "(n,)" if columns is None else f"(n, {columns})"
        names = {"i": "whole numbers", "f": "float32"}
        raise InputError(
            f"{file}: holds {array.shape} {array.dtype}, but {form} {names[kinds[0]]} is "
            "expected; is it the file of PhysioNet's release?"
        )
    return array


def read_keys(file: Path) -> NDArray[np.int64]:
    """A small array (n,) of whole numbers, whatever integer type they are stored in.

    Raises:
        InputError: it is damaged, or not such an array.
    """
    return read_small(file, None, "iub").astype(np.int64)

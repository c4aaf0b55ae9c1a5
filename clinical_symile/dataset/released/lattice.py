"""A released ECG tensor back to the ADC values that it was made of, as far as they can be known.

The authors scale each record, all leads together, to [-1, 1]: x = 2 (k - low) / (high - low) - 1, where k are the record's ADC
values (MIMIC has one gain for all leads, so it cancels). With R = high - low, a whole number below 2^16, all (x + 1) R / 2 are
whole numbers k - low. R is the smallest number for which that holds, so k - low is known again, without any loss, up to a common
divisor of all of them; a real record has none, since its neighbouring samples differ by single ADC units.

What is lost for good: ``low`` (the offset of the whole record), and the gain, hence the amplitude in mV.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clinical_symile.errors import UnusableFile
from clinical_symile.modalities.ecg import EcgRecord
from clinical_symile.types import ECG_LEADS

MAX_STEPS: Final = 65_534
"""From -32,767 to 32,767; format 16 marks a missing sample with -32,768."""

_TOLERANCE: Final = 2.0**-23
"""Of x: four times its largest rounding to float32. The authors compute in float64 and round once."""


class Recovered(NamedTuple):
    """A record as it may be stored, and whether it lies on a lattice.

    Attributes:
        record: ADC values; gain and baseline are such that ``to_mv`` gives x, *not* mV.
        on_lattice: whether the ADC values are the original's up to an offset; otherwise they are x in 65,534 steps.
    """

    record: EcgRecord
    on_lattice: bool


def recover_ecg(tensor: NDArray[np.float32], path: Path | str) -> Recovered:
    """Whole numbers that become the tensor again when they are scaled to [-1, 1].

    Args:
        tensor: (5000, 12) float32 in [-1, 1], leads in the order of ``types.ECG_LEADS``.
        path: named in an error.

    Raises:
        UnusableFile: the tensor holds NaN or infinity (the authors' scaling makes NaN of a constant record), or does not
            reach from -1 to 1.
    """
    x = tensor.astype(np.float64)
    if np.isnan(x).all():
        raise UnusableFile(path, "the ECG is NaN throughout: the record was constant, so that it could not be scaled to -1…1")
    if not np.isfinite(x).all():
        raise UnusableFile(path, "the ECG holds NaN or infinity")
    if abs(x.min() + 1) > _TOLERANCE or abs(x.max() - 1) > _TOLERANCE:
        raise UnusableFile(path, "the ECG does not reach from -1 to 1, so it is not as the authors scaled it")
    steps = find_steps(x)
    r = MAX_STEPS if steps is None else steps
    # 0 … r, moved to the middle of the range of int16.
    shift = r // 2
    adc = (np.rint((x + 1) * (r / 2)).astype(np.int64) - shift).astype(np.int16)
    leads = len(ECG_LEADS)
    return Recovered(EcgRecord(adc, np.full(leads, r / 2), np.full(leads, r / 2 - shift)), steps is not None)


def find_steps(x: NDArray[np.float64]) -> int | None:
    """The smallest R from 1 to 65,534 for which all (x + 1) R / 2 are whole numbers, within the rounding of x.

    Args:
        x: any shape, from -1 to 1.

    Returns:
        None if there is none.
    """
    levels = np.unique(x)
    share = (levels + 1) / 2
    # A few levels rule out nearly every R; only the R that are left meet all of them.
    few = share[np.linspace(0, len(share) - 1, num=min(len(share), 5), dtype=int)[1:-1]]
    many = share[np.linspace(0, len(share) - 1, num=min(len(share), 65), dtype=int)]
    candidates = np.arange(1, MAX_STEPS + 1)
    for probe in (*few, many):
        candidates = candidates[_fits(np.atleast_1d(probe), candidates)]
    return next((int(r) for r in candidates if _fits(share, np.array([r]))[0]), None)


def _fits(share: NDArray[np.float64], steps: NDArray[np.integer]) -> NDArray[np.bool_]:
    """(s,) whether each number of steps makes every share (k,) of it a whole number."""
    product = share * steps[:, None]
    fits: NDArray[np.bool_] = (np.abs(product - np.rint(product)) <= steps[:, None] * (_TOLERANCE / 2)).all(axis=1)
    return fits

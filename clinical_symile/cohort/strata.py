"""Groups of alike patients, and how many of each group every split is due."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clinical_symile.config import PatientAttribute
from clinical_symile.types import LAB_ITEM_IDS

UNKNOWN: Final = "unknown"

_AGE_BANDS: Final = {"under 40": 40, "40-59": 60, "60-79": 80, "80 and over": np.inf}
_LAB_BANDS: Final = {"0-24": 25, "25-34": 35, "35-44": 45, "45-50": np.inf}
"""Label -> the first value above the band."""

_RACE_DETAIL: Final = re.compile(r" - |/| OR ")


def name_strata(admissions: pd.DataFrame, attributes: Sequence[PatientAttribute]) -> pd.Series:
    """The stratum of each admission, such as ``gender=F, age_band=60-79``; what is not known is a value of its own.

    =============  ====================================================================================
    ``gender``     as the hospital writes it
    ``age_band``   under 40, 40-59, 60-79, 80 and over (years)
    ``race``       the main group: what stands before the first " - ", "/" or " OR ", in capitals, so
                   that MIMIC's "ASIAN - CHINESE" is ASIAN and "HISPANIC/LATINO - CUBAN" is HISPANIC
    ``cxr_view``   AP or PA
    ``n_labs``     how many of the 50 items were measured: 0-24, 25-34, 35-44, 45-50
    =============  ====================================================================================

    Args:
        admissions: the cohort's columns of ``schema.ADMISSIONS``.
        attributes: which to tell apart; none makes a single stratum, the empty text.
    """
    names = pd.Series("", index=admissions.index, dtype=object)
    for number, attribute in enumerate(attributes):
        names += f"{', ' if number else ''}{attribute}=" + _values(admissions, attribute)
    return names


def apportion(sizes: NDArray[np.int64], totals: Sequence[int]) -> NDArray[np.int64]:
    """How many of each stratum go to each split, so that both the strata and the splits add up.

    The ideal share of stratum s in split c, sizes[s] * totals[c] / sum(sizes), is rounded up or down to one of the two whole
    numbers beside it (a whole ideal stays), the largest remainders up. Each stratum first rounds its own largest remainders;
    while a split has too many, the cheapest exchange, of one stratum or of two through the third split, moves one of them to
    a split that has too few. Such an exchange always exists: a table can be rounded so that its margins, here whole numbers,
    stay (Bacharach 1966), and among three splits no chain of exchanges is longer than two.

    Args:
        sizes: (s,) members of each stratum.
        totals: of each split, at most three; their sum is that of ``sizes``.

    Returns:
        (s, c) counts; rows sum to ``sizes``, columns to ``totals``, each within 1 of its ideal.

    Example:
        >>> apportion(np.array([5, 3, 2]), [2, 1, 7]).tolist()
        [[1, 1, 3], [1, 0, 2], [0, 0, 2]]
    """
    everyone = int(sizes.sum())
    if len(totals) > 3 or sum(totals) != everyone or min(totals) < 0:
        raise ValueError(f"totals = {list(totals)}: must be at most three counts with the sum {everyone}")
    if everyone == 0:
        return np.zeros((len(sizes), len(totals)), dtype=np.int64)
    base, remainder = np.divmod(sizes[:, None] * np.asarray(totals, dtype=np.int64), everyone)
    spare, due = sizes - base.sum(axis=1), np.asarray(totals) - base.sum(axis=0)
    ranks = np.argsort(np.argsort(-remainder, axis=1, kind="stable"), axis=1, kind="stable")
    rounded_up = ranks < spare[:, None]
    while (surplus := rounded_up.sum(axis=0) - due).any():
        for row, giver, taker in _cheapest_exchange(rounded_up, remainder, surplus):
            rounded_up[row, [giver, taker]] = False, True
    return base + rounded_up


_Move = tuple[int, int, int]
"""A stratum, the split that it no longer rounds up, and the split that it rounds up instead."""


def _cheapest_exchange(rounded_up: NDArray[np.bool_], remainder: NDArray[np.int64], surplus: NDArray[np.int64]) -> list[_Move]:
    giver = int(surplus.argmax())
    paths = []
    for taker in np.flatnonzero(surplus < 0).tolist():
        paths.append([(giver, taker)])
        paths += [[(giver, between), (between, taker)] for between in range(len(surplus)) if between not in (giver, taker)]
    best: tuple[int, list[_Move]] | None = None
    for path in paths:
        cost, moves = 0, []
        for source, target in path:
            possible = np.flatnonzero(rounded_up[:, source] & ~rounded_up[:, target] & (remainder[:, target] > 0))
            if not len(possible):
                break
            costs = remainder[possible, source] - remainder[possible, target]
            cost += int(costs.min())
            moves.append((int(possible[costs.argmin()]), source, target))
        else:
            if best is None or cost < best[0]:
                best = cost, moves
    if best is None:
        raise ValueError("no exchange is left, though one always is: remainders and totals do not belong together")
    return best[1]


def _values(admissions: pd.DataFrame, attribute: PatientAttribute) -> pd.Series:
    if attribute == "age_band":
        return _band(admissions["age"], _AGE_BANDS)
    if attribute == "n_labs":
        return _band(admissions[list(LAB_ITEM_IDS)].notna().sum(axis=1), _LAB_BANDS)
    values = admissions[attribute]
    if attribute == "race":
        values = values.map(lambda race: _RACE_DETAIL.split(race.upper())[0].strip(), na_action="ignore")
    return values.astype(object).where(values.notna() & (values != ""), UNKNOWN)


def _band(numbers: pd.Series, bands: dict[str, float]) -> pd.Series:
    values = pd.to_numeric(numbers).to_numpy(dtype=np.float64, na_value=np.nan)
    labels = np.array([*bands], dtype=object)[np.searchsorted(list(bands.values())[:-1], np.nan_to_num(values), side="right")]
    return pd.Series(np.where(np.isnan(values), UNKNOWN, labels), index=numbers.index, dtype=object)

"""Strata: how an attribute is read, and how whole numbers are dealt so that every margin is right."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinical_symile.cohort.strata import apportion, name_strata
from clinical_symile.types import LAB_ITEM_IDS


def test_attributes_are_read_as_documented():
    frame = pd.DataFrame(
        {
            "gender": ["F", "M", None],
            "age": pd.array([39, 60, None], dtype="Int64"),
            "race": ["ASIAN - CHINESE", "HISPANIC/LATINO - CUBAN", None],
            "cxr_view": ["AP", "PA", None],
        }
    )
    frame = frame.join(pd.DataFrame(np.nan, index=range(3), columns=list(LAB_ITEM_IDS)))
    frame.loc[1, list(LAB_ITEM_IDS)[:25]] = 1.0
    frame.loc[2, list(LAB_ITEM_IDS)] = 1.0
    assert name_strata(frame, ["gender", "age_band", "race"]).tolist() == [
        "gender=F, age_band=under 40, race=ASIAN",
        "gender=M, age_band=60-79, race=HISPANIC",
        "gender=unknown, age_band=unknown, race=unknown",
    ]
    assert name_strata(frame, ["cxr_view", "n_labs"]).tolist() == [
        "cxr_view=AP, n_labs=0-24",
        "cxr_view=PA, n_labs=25-34",
        "cxr_view=unknown, n_labs=45-50",
    ]
    assert name_strata(frame, []).tolist() == ["", "", ""]


@pytest.mark.parametrize(("age", "band"), [(18, "under 40"), (40, "40-59"), (59, "40-59"), (79, "60-79"), (80, "80 and over")])
def test_the_edges_of_age(age, band):
    assert name_strata(pd.DataFrame({"age": [age]}), ["age_band"]).tolist() == [f"age_band={band}"]


@pytest.mark.parametrize(
    ("race", "group"),
    [
        ("WHITE - OTHER EUROPEAN", "WHITE"),
        ("BLACK/AFRICAN AMERICAN", "BLACK"),
        ("HISPANIC OR LATINO", "HISPANIC"),
        ("NATIVE HAWAIIAN OR OTHER PACIFIC ISLANDER", "NATIVE HAWAIIAN"),
        ("UNKNOWN", "UNKNOWN"),
        ("white", "WHITE"),
    ],
)
def test_the_main_group_of_mimics_races(race, group):
    assert name_strata(pd.DataFrame({"race": [race]}), ["race"]).tolist() == [f"race={group}"]


def margins(draw_sizes: list[int], shares: list[float]) -> list[int]:
    n, cuts = sum(draw_sizes), np.cumsum(shares) / max(sum(shares), 1e-9)
    edges = [0, *(round(cut * n) for cut in cuts)]
    return np.diff(edges).tolist()


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=25), st.lists(st.floats(0.01, 1), min_size=1, max_size=3))
def test_margins_are_exact_and_every_cell_is_rounded(sizes, shares):
    totals = margins(sizes, shares)
    table = apportion(np.array(sizes), totals)
    assert table.sum(axis=1).tolist() == sizes
    assert table.sum(axis=0).tolist() == totals
    ideal = np.outer(sizes, totals) / max(sum(sizes), 1)
    assert (np.abs(table - ideal) < 1).all()
    assert (table >= 0).all()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=4), st.lists(st.floats(0.01, 1), min_size=2, max_size=3))
def test_the_largest_remainders_are_rounded_up(sizes, shares):
    """Of all tables with these margins whose cells are rounded, none has a larger sum of remainders that are rounded up."""
    totals = margins(sizes, shares)
    base, remainder = np.divmod(np.outer(sizes, totals), max(sum(sizes), 1))
    best = max(
        (
            int((np.array(ups).reshape(base.shape) * remainder).sum())
            for ups in product((0, 1), repeat=base.size)
            if ((base + np.array(ups).reshape(base.shape)).sum(axis=1) == sizes).all()
            and ((base + np.array(ups).reshape(base.shape)).sum(axis=0) == totals).all()
            and (remainder[np.array(ups).reshape(base.shape) == 1] > 0).all()
        ),
    )
    assert int(((apportion(np.array(sizes), totals) - base) * remainder).sum()) == best


def test_many_tiny_strata_are_fast_and_right():
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 4, 4000)
    n = int(sizes.sum())
    table = apportion(sizes, [n // 4, n // 7, n - n // 4 - n // 7])
    assert table.sum(axis=0).tolist() == [n // 4, n // 7, n - n // 4 - n // 7]


def test_totals_that_do_not_add_up_are_refused():
    with pytest.raises(ValueError, match="with the sum 5"):
        apportion(np.array([2, 3]), [2, 2])

"""Laboratory statistics on the real MIMIC-IV demo: thousands of ties, MCHC in two units, negative base excess."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import percentileofscore

from clinical_symile.modalities.labs import LabStatistics, encode
from clinical_symile.types import LAB_ITEM_IDS

pytestmark = pytest.mark.realdata


@pytest.fixture(scope="module")
def values(real_data: Path) -> np.ndarray:
    """(n, 50): for each subject and day, the first numeric result of each item."""
    file = real_data / "labs" / "mimic-iv-clinical-database-demo-2.2" / "hosp" / "labevents.csv.gz"
    events = pd.read_csv(file, usecols=["subject_id", "itemid", "charttime", "valuenum"], parse_dates=["charttime"])
    events = events[events.itemid.astype(str).isin(LAB_ITEM_IDS) & events.valuenum.notna()].sort_values(
        "charttime", kind="stable"
    )
    events["day"] = events.charttime.dt.date
    table = events.pivot_table(index=["subject_id", "day"], columns="itemid", values="valuenum", aggfunc="first")
    return table.reindex(columns=[int(itemid) for itemid in LAB_ITEM_IDS]).to_numpy()


def test_all_fifty_items_are_measured_and_most_values_tie(values: np.ndarray) -> None:
    statistics = LabStatistics.fit(values)
    distinct, measured = zip(*((len(v), c[-1]) for v, c in zip(statistics.values, statistics.counts, strict=True)), strict=True)
    assert min(measured) > 0
    assert sum(distinct) < 0.2 * sum(measured)


@pytest.mark.parametrize("itemid", ["51249", "50802", "50820", "52075"])
def test_percentiles_equal_scipys_on_real_values(values: np.ndarray, itemid: str) -> None:
    k = LAB_ITEM_IDS.index(itemid)
    percentiles, observed = LabStatistics.fit(values).transform(values)
    real = values[~np.isnan(values[:, k]), k]
    for value in np.unique(real):
        row = np.flatnonzero(values[:, k] == value)[0]
        assert observed[row, k] == 1
        assert percentiles[row, k] == pytest.approx(percentileofscore(real, value, kind="weak") / 100, abs=1e-7)


def test_the_vector_is_complete_and_its_missing_entries_are_the_items_mean(values: np.ndarray) -> None:
    percentiles, observed = LabStatistics.fit(values).transform(values)
    vector = encode(percentiles, observed)
    assert vector.shape == (len(values), 100)
    assert np.isfinite(vector).all()
    for k in range(50):
        measured = observed[:, k] == 1
        np.testing.assert_allclose(percentiles[~measured, k], percentiles[measured, k].mean(dtype=np.float64), atol=1e-6)

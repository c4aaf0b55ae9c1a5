"""Laboratory values: physiologic, tied as in blood, readable, and without ties through nuisances."""

from __future__ import annotations

import numpy as np
import pytest

from clinical_symile.simulation.labs import ITEMS, PANEL_RATES, lab_values
from clinical_symile.simulation.law import CHANNEL_NAMES
from clinical_symile.types import LAB_ITEM_IDS, LAB_ITEMS

COLUMN = {itemid: column for column, itemid in enumerate(LAB_ITEM_IDS)}
# What reads each sign: an item that nearly everyone has measured, and the side on which the sign lies.
READER = {
    "cardiomegaly": ("50912", 1),
    "edema": ("51222", -1),
    "effusion": ("50983", -1),
    "consolidation": ("51301", 1),
    "hyperinflation": ("50882", 1),
}


def draw(n: int, severities: np.ndarray | None = None, male: bool | np.ndarray = True, seed: int = 0) -> np.ndarray:
    shows = np.zeros((n, 5)) if severities is None else severities
    return lab_values(shows, np.broadcast_to(male, n), np.arange(n), np.random.default_rng(seed))


def test_every_item_has_a_model() -> None:
    assert tuple(ITEMS) == LAB_ITEM_IDS
    assert {item.panel for item in ITEMS.values()} == set(PANEL_RATES)


def test_values_without_signs_lie_mostly_inside_the_reference_range() -> None:
    values = draw(2000, male=np.arange(2000) % 2 == 0)
    for item in LAB_ITEMS:
        if item.reference_low is None or item.itemid in ("50931", "50821", "51249"):
            continue  # glucose and pO2 of inpatients are high; the range of MCHC begins at its centre
        median = np.median(values[:, COLUMN[item.itemid]])
        assert item.reference_low <= median <= item.reference_high * 1.05, (item.label, median)


def test_blood_gas_obeys_henderson_hasselbalch() -> None:
    values = draw(500, np.random.default_rng(1).uniform(0, 1, (500, 5)))
    bicarbonate, pco2, ph = (values[:, COLUMN[i]] for i in ("50882", "50818", "50820"))
    np.testing.assert_allclose(ph, 6.1 + np.log10(bicarbonate / (0.0307 * pco2)), atol=0.03)


def test_red_cells_electrolytes_and_differential_add_up() -> None:
    values = draw(500, np.random.default_rng(1).uniform(0, 1, (500, 5)))
    column = {
        name: values[:, COLUMN[i]]
        for name, i in {
            "hb": "51222",
            "hct": "51221",
            "rbc": "51279",
            "mcv": "51250",
            "mchc": "51249",
            "na": "50983",
            "k": "50971",
            "cl": "50902",
            "bic": "50882",
            "gap": "50868",
        }.items()
    }
    np.testing.assert_allclose(column["hct"] * column["mchc"] / 100, column["hb"], atol=0.12)
    np.testing.assert_allclose(column["rbc"] * column["mcv"] / 10, column["hct"], rtol=0.02)
    np.testing.assert_allclose(column["na"] + column["k"] - column["cl"] - column["bic"], column["gap"], atol=2)
    cells = [values[:, COLUMN[i]] for i in ("51256", "51244", "51254", "51200", "51146")]
    np.testing.assert_allclose(sum(cells), 100, atol=0.6)


@pytest.mark.parametrize("channel", range(5), ids=CHANNEL_NAMES)
def test_each_sign_can_be_read_whatever_the_others_are(channel: int) -> None:
    n = 3000
    rng = np.random.default_rng(4)
    signs = rng.integers(0, 2, (n, 5))
    values = draw(n, signs * rng.uniform(0.5, 1, (n, 5)), male=rng.random(n) < 0.5)
    itemid, side = READER[CHANNEL_NAMES[channel]]
    value = side * values[:, COLUMN[itemid]]
    present, absent = value[signs[:, channel] == 1], value[signs[:, channel] == 0]
    cut = (np.quantile(present, 0.02) + np.quantile(absent, 0.98)) / 2
    accuracy = ((present > cut).mean() + (absent <= cut).mean()) / 2
    assert accuracy > 0.97, f"{itemid} reads {CHANNEL_NAMES[channel]} with {accuracy:.3f}"


def test_sex_shifts_haemoglobin_and_creatinine_only() -> None:
    men, women = draw(3000, male=True), draw(3000, male=False)
    shift = (men.mean(0) - women.mean(0)) / men.std(0)
    moved = {LAB_ITEMS[i].itemid for i in np.flatnonzero(np.abs(shift) > 0.15)}
    assert moved == {"51221", "51222", "51279", "50912"}


def test_draws_of_one_admission_resemble_each_other() -> None:
    group = np.repeat(np.arange(400), 2)
    values = lab_values(np.zeros((800, 5)), np.ones(800, bool), group, np.random.default_rng(0))
    sodium = values[:, COLUMN["50983"]].reshape(400, 2)
    assert np.corrcoef(sodium.T)[0, 1] == pytest.approx(0.8, abs=0.1)


def test_reported_decimals_and_no_negative_zero() -> None:
    values = draw(300)
    for itemid, item in ITEMS.items():
        column = values[:, COLUMN[itemid]]
        np.testing.assert_allclose(column, np.round(column, item.decimals))
        assert not (np.signbit(column) & (column == 0)).any()

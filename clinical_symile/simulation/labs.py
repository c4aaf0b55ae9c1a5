"""Laboratory values: from the signs of a blood draw to fifty numbers that move together.

Primary quantities are drawn; the others follow from them as they do in blood: Henderson-Hasselbalch ties pH to bicarbonate
and pCO2, the red-cell indices follow from haemoglobin, MCV and MCHC, the anion gap from the electrolytes, absolute counts
from the differential. A sign shifts the items of its row in ``EFFECTS`` by its severity times the number given there.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clinical_symile.simulation.law import CHANNEL_NAMES, Array
from clinical_symile.types import LAB_ITEM_IDS

Values = dict[str, Array]


class Quantity(NamedTuple):
    """A primary quantity: ``centre + spread * z``, or on the logarithmic scale ``centre * exp(spread * z)``."""

    centre: float
    spread: float
    logarithmic: bool = False


PRIMARY: Final[dict[str, Quantity]] = {
    "sodium": Quantity(139.5, 1.7),
    "potassium": Quantity(4.1, 0.3),
    "bicarbonate": Quantity(25.0, 1.4),
    "chloride_residual": Quantity(0.0, 1.3),
    "creatinine": Quantity(0.88, 0.16, True),
    "urea_nitrogen": Quantity(14.5, 0.22, True),
    "glucose": Quantity(122.0, 0.32, True),
    "calcium": Quantity(9.0, 0.4),
    "magnesium": Quantity(1.95, 0.2),
    "phosphate": Quantity(3.4, 0.45),
    "hemoglobin": Quantity(13.6, 0.75),
    "mcv": Quantity(89.5, 4.0),
    "mchc": Quantity(33.0, 0.7),
    "rdw": Quantity(13.4, 0.06, True),
    "platelets": Quantity(235.0, 0.2, True),
    "wbc": Quantity(7.4, 0.16, True),
    "neutrophils": Quantity(62.0, 5.5),
    "lymphocytes": Quantity(24.0, 0.22, True),
    "monocytes": Quantity(7.2, 0.24, True),
    "eosinophils": Quantity(1.8, 0.6, True),
    "basophils": Quantity(0.4, 0.45, True),
    "granulocytes": Quantity(0.45, 0.4, True),
    "pt": Quantity(12.6, 0.16, True),
    "ptt": Quantity(30.5, 0.14, True),
    "alt": Quantity(24.0, 0.6, True),
    "ast_ratio": Quantity(1.15, 0.25, True),
    "alkaline_phosphatase": Quantity(88.0, 0.35, True),
    "bilirubin": Quantity(0.5, 0.5, True),
    "albumin": Quantity(4.0, 0.28),
    "lactate": Quantity(1.5, 0.35, True),
    "pco2": Quantity(40.0, 3.5),
    "po2": Quantity(95.0, 0.35, True),
    "ck": Quantity(110.0, 0.75, True),
    "hemolysis": Quantity(9.0, 0.9, True),
    "icterus": Quantity(0.9, 0.7, True),
    "lipemia": Quantity(11.0, 0.6, True),
}

EFFECTS: Final[dict[str, dict[str, float]]] = {
    "cardiomegaly": {"creatinine": 1.55, "urea_nitrogen": 1.35, "phosphate": 2.3, "potassium": 1.2},
    "edema": {"hemoglobin": -5.6, "rdw": 0.22},
    "effusion": {"sodium": -13.0, "albumin": -1.5},
    "consolidation": {"wbc": 1.2, "neutrophils": 22.0, "platelets": 0.65, "granulocytes": 0.9},
    "hyperinflation": {"bicarbonate": 11.5, "pco2": 26.0, "chloride_residual": -1.0},
}
"""Shift at severity 1, on the quantity's own scale (logarithmic ones are multiplied by its exponential)."""

_SEX: Final[dict[str, float]] = {"hemoglobin": 0.45, "creatinine": 0.08}
"""Added for men, subtracted for women."""

PERSISTENCE: Final = 0.8
"""Share of the variance that stays with the admission; the rest is new in each draw."""

PANEL_RATES: Final[dict[str, float]] = {
    "chemistry": 0.998,
    "cbc": 0.998,
    "glucose": 0.97,
    "minerals": 0.94,
    "coagulation": 0.86,
    "differential": 0.78,
    "liver": 0.57,
    "lactate": 0.5,
    "rdw_sd": 0.5,
    "absolute": 0.45,
    "albumin": 0.43,
    "blood_gas": 0.37,
    "granulocytes": 0.33,
    "ck": 0.25,
    "indices": 0.1,
}
"""How often each panel is ordered around an admission: 16 items in 99 %, 35 of the 50 on average, as in Symile-MIMIC."""


class Item(NamedTuple):
    """How one of the 50 items is reported."""

    quantity: str
    panel: str
    decimals: int
    low: float
    high: float


ITEMS: Final[dict[str, Item]] = {
    "50802": Item("base_excess", "blood_gas", 0, -25, 25),
    "50804": Item("total_co2", "blood_gas", 0, 8, 60),
    "50813": Item("lactate", "lactate", 1, 0.4, 20),
    "50818": Item("pco2", "blood_gas", 0, 20, 120),
    "50820": Item("ph", "blood_gas", 2, 6.9, 7.7),
    "50821": Item("po2", "blood_gas", 0, 25, 500),
    "50861": Item("alt", "liver", 0, 5, 3000),
    "50862": Item("albumin", "albumin", 1, 1.2, 5.4),
    "50863": Item("alkaline_phosphatase", "liver", 0, 20, 900),
    "50868": Item("anion_gap", "chemistry", 0, 3, 35),
    "50878": Item("ast", "liver", 0, 6, 3000),
    "50882": Item("bicarbonate", "chemistry", 0, 8, 48),
    "50885": Item("bilirubin", "liver", 1, 0.1, 20),
    "50893": Item("calcium", "minerals", 1, 6, 12),
    "50902": Item("chloride", "chemistry", 0, 70, 125),
    "50910": Item("ck", "ck", 0, 10, 20000),
    "50912": Item("creatinine", "chemistry", 1, 0.3, 12),
    "50931": Item("glucose", "glucose", 0, 45, 600),
    "50934": Item("hemolysis", "indices", 0, 0, 400),
    "50947": Item("icterus", "indices", 0, 0, 20),
    "50960": Item("magnesium", "minerals", 1, 1.0, 3.5),
    "50970": Item("phosphate", "minerals", 1, 1.2, 9.5),
    "50971": Item("potassium", "chemistry", 1, 2.6, 7.2),
    "50983": Item("sodium", "chemistry", 0, 112, 158),
    "51006": Item("urea_nitrogen", "chemistry", 0, 4, 150),
    "51133": Item("absolute_lymphocytes", "absolute", 2, 0.05, 20),
    "51146": Item("basophils", "differential", 1, 0, 4),
    "51200": Item("eosinophils", "differential", 1, 0, 20),
    "51221": Item("hematocrit", "cbc", 1, 15, 60),
    "51222": Item("hemoglobin", "cbc", 1, 5, 19),
    "51237": Item("inr", "coagulation", 1, 0.8, 8),
    "51244": Item("lymphocytes", "differential", 1, 0.5, 80),
    "51248": Item("mch", "cbc", 1, 18, 42),
    "51249": Item("mchc", "cbc", 1, 27, 38),
    "51250": Item("mcv", "cbc", 0, 62, 120),
    "51254": Item("monocytes", "differential", 1, 0.5, 30),
    "51256": Item("neutrophils", "differential", 1, 10, 97),
    "51265": Item("platelets", "cbc", 0, 15, 1200),
    "51274": Item("pt", "coagulation", 1, 9, 90),
    "51275": Item("ptt", "coagulation", 1, 19, 150),
    "51277": Item("rdw", "cbc", 1, 11, 28),
    "51279": Item("red_cells", "cbc", 2, 1.5, 7),
    "51301": Item("wbc", "cbc", 1, 0.5, 60),
    "51678": Item("lipemia", "indices", 0, 0, 200),
    "52069": Item("absolute_basophils", "absolute", 2, 0, 1),
    "52073": Item("absolute_eosinophils", "absolute", 2, 0, 4),
    "52074": Item("absolute_monocytes", "absolute", 2, 0, 5),
    "52075": Item("absolute_neutrophils", "absolute", 2, 0.1, 50),
    "52135": Item("granulocytes", "granulocytes", 1, 0.1, 6),
    "52172": Item("rdw_sd", "rdw_sd", 1, 33, 90),
}


def lab_values(severities: Array, male: NDArray[np.bool_], group: NDArray[np.intp], rng: np.random.Generator) -> Array:
    """Values of all 50 items in many draws.

    Args:
        severities: (n, K) how far each sign shows in each draw.
        male: (n,) sex, which shifts haemoglobin and creatinine.
        group: (n,) number of the admission; its draws share a part of their deviations.
        rng: source of randomness.

    Returns:
        (n, 50) in the order of ``types.LAB_ITEMS`` and in MIMIC's units, rounded as reported.
    """
    values = {name: _primary(name, severities, male, group, rng) for name in PRIMARY}
    _derive(values)
    columns = []
    for itemid in LAB_ITEM_IDS:
        item = ITEMS[itemid]
        # "+ 0.0" turns -0.0, which rounding can give, into 0.0.
        columns.append(np.round(np.clip(values[item.quantity], item.low, item.high), item.decimals) + 0.0)
    return np.stack(columns, axis=1)


def _primary(name: str, severities: Array, male: NDArray[np.bool_], group: NDArray[np.intp], rng: np.random.Generator) -> Array:
    quantity = PRIMARY[name]
    lasting = rng.standard_normal(int(group.max(initial=-1)) + 1)[group]
    passing = rng.standard_normal(len(group))
    # Deviations beyond 2.5 spreads would cross over to what a sign looks like.
    deviation = np.clip(np.sqrt(PERSISTENCE) * lasting + np.sqrt(1 - PERSISTENCE) * passing, -2.5, 2.5)
    shift = quantity.spread * deviation + np.where(male, 1.0, -1.0) * _SEX.get(name, 0.0)
    for channel, channel_name in enumerate(CHANNEL_NAMES):
        effect = EFFECTS[channel_name].get(name, 0.0)
        if effect:
            shift = shift + effect * severities[:, channel]
    return quantity.centre * np.exp(shift) if quantity.logarithmic else quantity.centre + shift


def _derive(values: Values) -> None:
    """Adds what follows from the primary quantities."""
    values["calcium"] = values["calcium"] + 0.8 * (np.minimum(values["albumin"], 4.5) - 4.0)
    values["chloride"] = (
        103.0 + 0.85 * (values["sodium"] - 139.5) - 0.5 * (values["bicarbonate"] - 25.0) + values["chloride_residual"]
    )
    values["anion_gap"] = values["sodium"] + values["potassium"] - values["chloride"] - values["bicarbonate"]
    values["hematocrit"] = 100 * values["hemoglobin"] / values["mchc"]
    values["red_cells"] = 10 * values["hematocrit"] / values["mcv"]
    values["mch"] = values["mcv"] * values["mchc"] / 100
    values["rdw_sd"] = 0.0355 * values["rdw"] * values["mcv"]
    _differential(values)
    values["inr"] = values["pt"] / 11.6
    values["ast"] = values["alt"] * values["ast_ratio"]
    # Henderson-Hasselbalch with the solubility of CO2, 0.0307 mmol/L per mm Hg; base excess after Siggaard-Andersen.
    values["ph"] = 6.1 + np.log10(values["bicarbonate"] / (0.0307 * values["pco2"]))
    values["total_co2"] = values["bicarbonate"] + 0.0307 * values["pco2"]
    values["base_excess"] = 0.93 * (values["bicarbonate"] - 24.4 + 14.8 * (values["ph"] - 7.4))


def _differential(values: Values) -> None:
    """The five cell kinds share 100 %; when neutrophils rise the others give way."""
    others = ("lymphocytes", "monocytes", "eosinophils", "basophils")
    values["neutrophils"] = np.minimum(values["neutrophils"], 95.0)
    scale = (100 - values["neutrophils"]) / sum(values[name] for name in others)
    for name in others:
        values[name] = values[name] * scale
    for name in ("neutrophils", *others):
        values[f"absolute_{name}"] = values["wbc"] * values[name] / 100

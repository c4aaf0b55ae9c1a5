"""Unit conversions against the formulas of the substances, and against the factors that clinicians know."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinical_symile.cohort.lab_codes import loinc_codes, read_package_table
from clinical_symile.cohort.unit_conversions import conversions, read_unit
from clinical_symile.cohort.units import unit_fault
from clinical_symile.types import LAB_ITEM_IDS, LAB_ITEMS

# Standard atomic weights, abridged to five figures (IUPAC 2021).
WEIGHTS = {"H": 1.0080, "C": 12.011, "N": 14.007, "O": 15.999, "Mg": 24.305, "P": 30.974, "Ca": 40.078}
ALL = [(analyte, row) for analyte, rows in conversions().items() for row in rows]


def molar_mass(formula: str) -> float:
    """Of a formula such as C6H12O6; ``Ca/2`` is a mole of charge."""
    atoms, _, charge = formula.partition("/")
    parts = re.findall(r"([A-Z][a-z]?)(\d*)", atoms)
    assert "".join(element + count for element, count in parts) == atoms
    return sum(WEIGHTS[element] * int(count or 1) for element, count in parts) / int(charge or 1)


@pytest.mark.parametrize(("analyte", "row"), ALL, ids=[f"{analyte}-{row.from_unit}" for analyte, row in ALL])
def test_the_molar_masses_are_those_of_the_formulas(analyte, row):
    reported, _, measured = row.formula.partition(",")
    for mass, formula in ((row.reported, reported), (row.measured, measured)):
        if formula:
            assert float(mass) == pytest.approx(molar_mass(formula), rel=1e-5)
        else:
            assert mass in (None, 16114.5), "only the hemoglobin monomer has no formula"


@pytest.mark.parametrize(
    ("itemid", "unit", "factor"),
    [
        ("50931", "mmol/L", 18.0156),  # glucose: the factors of the AMA Manual of Style, or their reciprocals
        ("50912", "µmol/L", 1 / 88.4),
        ("51006", "mmol/L", 1 / 0.357),
        ("50885", "umol/L", 1 / 17.104),
        ("50893", "mmol/L", 1 / 0.2495),
        ("50960", "mmol/L", 1 / 0.4114),
        ("50960", "meq/L", 1 / 0.8229),
        ("50970", "mmol/L", 1 / 0.3229),
        ("50813", "mg/dL", 0.111),
        ("50862", "g/L", 0.1),
        ("51222", "mmol/L", 1.6114),
        ("51249", "g/L", 0.1),
        ("51221", "L/L", 100),
        ("50818", "kPa", 7.50062),
        ("50821", "kPa", 7.50062),
        ("50861", "ukat/L", 60),
        ("50910", "nkat/L", 0.06),
        ("51301", "/uL", 0.001),
        ("51301", "{cells}/uL", 0.001),
        ("51301", "10*6/L", 0.001),
        ("51265", "10*4/uL", 10),
        ("51279", "10*4/uL", 0.01),
        ("51279", "/mm3", 1e-6),
    ],
)
def test_the_factors_are_the_ones_that_clinicians_use(itemid, unit, factor):
    assert read_unit(itemid, unit).factor == pytest.approx(factor, rel=6e-4)


def test_of_urea_only_the_nitrogen_is_reported():
    assert read_unit("51006", "mmol/L", "urea").factor == pytest.approx(2.8014)
    assert read_unit("51006", "mg/dL", "urea").factor == pytest.approx(1 / 2.14, rel=2e-3)
    assert read_unit("51006", "mg/dL").factor == 1, "urea nitrogen itself is in MIMIC's unit"
    assert read_unit("51006", "g/dL", "urea").factor is None
    assert "urea" in str(read_unit("51006", "", "urea").fault) or "no unit" in str(read_unit("51006", "", "urea").fault)


@pytest.mark.parametrize(
    ("itemid", "unit"),
    [
        ("50931", "mmol"),
        ("50931", None),
        ("50931", "g"),
        ("50862", "umol/L"),
        ("51221", "1"),  # 0.42 or 42?
        ("51256", "10*3/uL"),  # a count is no share
        ("52075", "%"),
        ("50983", "mg/dL"),
        ("50861", "mg/dL"),
        ("51301", "G/L"),  # giga or gram?
        ("51237", "%"),  # Quick's value is no INR
    ],
)
def test_what_could_mean_two_things_is_not_converted(itemid, unit):
    reading = read_unit(itemid, unit)
    assert reading.factor is None
    assert "expected" in str(reading.fault)


@pytest.mark.parametrize(
    ("itemid", "ucum"),
    [
        *(("50818", unit) for unit in ("mm[Hg]", "mmHg")),
        *(("50861", unit) for unit in ("U/L", "[IU]/L")),
        *(("51301", unit) for unit in ("10*3/uL", "10*9/L", "10*3{WBC}/uL", "/nL")),
        *(("51279", unit) for unit in ("10*6/uL", "10*12/L", "/pL")),
        *(("50983", unit) for unit in ("meq/L", "mmol/L")),
        *(("51237", unit) for unit in ("{INR}", "1", None)),
        *(("51274", unit) for unit in ("s", "sec")),
        *(("51250", unit) for unit in ("fL", "um3")),
        *(("51256", unit) for unit in ("%", "%{WBC}", "/100{WBC}", "/100{leukocytes}")),
        *(("50820", unit) for unit in ("[pH]", "1", None)),
        ("51248", "pg"),
        ("50885", "mg/dL"),
    ],
)
def test_ucum_s_spelling_of_mimic_s_unit_leaves_the_number_alone(itemid, ucum):
    assert read_unit(itemid, ucum) == (1.0, None)


def test_no_conversion_hides_a_unit_that_is_mimic_s_already():
    """A unit is either a spelling of MIMIC's or converted, never both, except urea's."""
    unit_of = {item.itemid: item.unit for item in LAB_ITEMS}
    for analyte, row in ALL:
        if analyte in unit_of:
            assert row.to_unit == unit_of[analyte]
            assert unit_fault(analyte, row.from_unit) is not None
    spelt = [(analyte, row.from_unit) for analyte, row in ALL]
    assert len(set(spelt)) == len(spelt)


@given(st.sampled_from(ALL), st.floats(1e-3, 1e5))
def test_there_and_back_gives_the_same_number(pair, value):
    _, row = pair
    assert row.factor > 0, "so that order is kept"
    assert value * row.factor / row.factor == pytest.approx(value, rel=1e-15)


@given(st.floats(0.1, 60), st.sampled_from(["50931", "50893", "50960", "50970"]))
def test_grams_follow_from_moles_by_the_molar_mass(mmol_per_litre, itemid):
    """Oracle: mmol/L x g/mol = mg/L, a tenth of which is in a decilitre."""
    formula = {"50931": "C6H12O6", "50893": "Ca", "50960": "Mg", "50970": "P"}[itemid]
    expected = mmol_per_litre * molar_mass(formula) / 10
    assert mmol_per_litre * read_unit(itemid, "mmol/L").factor == pytest.approx(expected, rel=1e-5)


def check_digit(code: str) -> bool:
    """LOINC's own check: mod 10, every second digit doubled from the right."""
    number, digit = code.split("-")
    doubled = [int(figure) * (2 if place % 2 == 0 else 1) for place, figure in enumerate(reversed(number))]
    return (sum(value - 9 if value > 9 else value for value in doubled) + int(digit)) % 10 == 0


def test_the_loinc_codes_are_well_formed_and_each_stands_for_one_item():
    codes = [row["loinc"] for row in read_package_table("loinc.csv")]
    assert len(set(codes)) == len(codes)
    assert all(check_digit(code) for code in codes)
    assert {code.itemid for code in loinc_codes().values()} <= set(LAB_ITEM_IDS)
    assert {code.analyte for code in loinc_codes().values()} <= set(conversions()) | {""}
    assert all(
        row["source"] and row["relation"] in ("exact", "method", "moles", "vessel") for row in read_package_table("loinc.csv")
    )


def test_every_item_but_the_serum_indices_has_exactly_one_exact_code():
    exact = [code.itemid for code in loinc_codes().values() if code.relation == "exact"]
    assert sorted(exact) == sorted(set(LAB_ITEM_IDS) - {"50934", "50947", "51678"})


def test_blood_gas_and_serum_codes_are_not_mixed():
    """MIMIC's sodium in whole blood (50824), calculated hematocrit (50810) and so on are other items."""
    names = {code.loinc: code for code in loinc_codes().values()}
    gas = {item.itemid for item in LAB_ITEMS if item.category == "Blood Gas"}
    assert all(("Blood" in code.name or "blood" in code.name) for code in names.values() if code.itemid in gas)
    chemistry = {item.itemid for item in LAB_ITEMS if item.category == "Chemistry"}
    assert all("Serum or Plasma" in code.name for code in names.values() if code.itemid in chemistry)
    assert not {"2947-0", "20563-3", "2339-0", "6298-4", "2524-7", "2028-9", "48703-3"} & set(names)


def test_a_moles_code_has_a_conversion_from_moles():
    for code in loinc_codes().values():
        if code.relation == "moles":
            assert conversions()[code.analyte or code.itemid], code

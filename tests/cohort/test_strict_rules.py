"""The strict rules, one trap at a time, and what the paper's rules let in without them. Oracle: test_cohort_oracle.py."""

from __future__ import annotations

import math

import pytest

from clinical_symile.cohort.strict import lab_limits
from clinical_symile.config import CohortConfig, StrictRules, load_config
from clinical_symile.errors import ConfigError, InputError
from clinical_symile.types import LAB_ITEMS

PATIENT, ADMISSION = 10_000_032, 20_000_001
SODIUM, PH, MCHC, BASE_EXCESS = "50983", "50820", "51249", "50802"
SECOND = 1 / 3600


def only(switch: str) -> dict[str, object]:
    """One strict rule alone."""
    return {"rules": "strict", "strict": {name: name == switch for name in StrictRules.model_fields}}


def step(attrition, name):
    return next(step for step in attrition if step["step"] == name)


@pytest.mark.parametrize(("stay", "kept"), [(40, "early"), (40 - SECOND, None), (48, "early"), (100, "early")])
@pytest.mark.parametrize("dies", [False, True], ids=["discharge", "death"])
def test_an_xray_after_the_stay_does_not_count(hospital, stay, kept, dies):
    hospital.admit(PATIENT, ADMISSION, stay=stay, dies=dies)
    hospital.cxr(PATIENT, 50, "late")
    hospital.cxr(PATIENT, 40, "early")
    hospital.ecg(PATIENT, 1, 1)
    hospital.lab(PATIENT, 1, 140)
    if kept is None:
        with pytest.raises(InputError, match="after the step 'X-ray during the stay'"):
            hospital.select(**only("cxr_during_stay"))
        return
    admissions, attrition, _ = hospital.select(**only("cxr_during_stay"))
    assert admissions.loc[ADMISSION].cxr_dicom_id == kept
    assert step(attrition, "X-ray during the stay")["left_out"] == {"X-rays": int(stay < 50)}


def test_where_the_end_of_a_stay_is_not_known_its_xray_counts(hospital):
    hospital.complete(PATIENT, ADMISSION)
    hospital.admit(PATIENT + 1, ADMISSION + 1, stay=5)
    assert list(hospital.select(**only("cxr_during_stay"))[0].index) == [ADMISSION]


def test_a_hospital_that_gives_no_end_of_any_stay_is_told_which_column_and_which_switch(hospital):
    hospital.complete(PATIENT, ADMISSION)
    with pytest.raises(InputError, match=r"column dischtime, or set cohort\.strict\.cxr_during_stay=false"):
        hospital.select(rules="strict")
    assert len(hospital.select(rules="strict", strict={"cxr_during_stay": False})[0]) == 1
    assert len(hospital.select(**only("cxr_during_stay"), require=["ecg", "labs"])[0]) == 1, "no X-ray is asked for"


def test_an_ecg_between_two_admissions_goes_to_the_nearer_one(hospital):
    hospital.complete(PATIENT, ADMISSION, without="ecg")
    hospital.complete(PATIENT, ADMISSION + 1, hours=40, without="ecg")
    hospital.ecg(PATIENT, 21, 1)
    hospital.ecg(PATIENT, 23, 2)
    row = hospital.select(**only("one_admission_per_study"))[0].ecg_study_id
    assert dict(row) == {ADMISSION + 1: 1}, "both are nearer to the second"
    hospital.ecg(PATIENT, 2, 3)
    admissions, attrition, _ = hospital.select(**only("one_admission_per_study"))
    assert dict(admissions.ecg_study_id) == {ADMISSION: 3, ADMISSION + 1: 1}, "the other takes its own one"
    assert step(attrition, "ECG of its own")["left_out"] == {"ECGs": 2}


def test_an_ecg_taken_during_a_stay_is_that_stay_s_however_near_the_next_begins(hospital):
    for number, (hours, stay) in enumerate([(0, 23.5), (24, 90)]):
        hospital.admit(PATIENT, ADMISSION + number, hours, stay=stay)
        hospital.cxr(PATIENT, hours + 30 + 20 * number, f"image-{number}")
        hospital.lab(PATIENT, hours, 140)
    hospital.ecg(PATIENT, 23, 1)
    assert dict(hospital.select(**only("one_admission_per_study"))[0].ecg_study_id) == {ADMISSION: 1}


def test_whose_study_it_is_does_not_depend_on_what_else_the_admissions_have(hospital):
    hospital.complete(PATIENT, ADMISSION, without="ecg")
    hospital.admit(PATIENT, ADMISSION + 1, 20)  # without an X-ray and labs of its own
    hospital.complete(PATIENT + 1, ADMISSION + 2)
    hospital.ecg(PATIENT, 19, 1)
    admissions, attrition, _ = hospital.select(**only("one_admission_per_study"))
    assert list(admissions.index) == [ADMISSION + 2]
    assert step(attrition, "ECG of its own")["excluded"] == 1


def test_the_images_of_a_study_stay_together(hospital):
    """The study's first image is nearer to the first admission; its second image alone would be nearer to the second."""
    hospital.complete(PATIENT, ADMISSION, without="cxr")
    hospital.complete(PATIENT, ADMISSION + 1, hours=10, without="cxr")
    hospital.cxr(PATIENT, 30, "only-first", study=5)  # 20 h after the second admission: in the first's window alone
    hospital.cxr(PATIENT, 36, "both", study=5)
    admissions, _, _ = hospital.select(**only("one_admission_per_study"))
    assert dict(admissions.cxr_dicom_id) == {ADMISSION + 1: "both"}


def test_at_equal_distance_the_smaller_hadm_id_has_the_study(hospital):
    hospital.complete(PATIENT, ADMISSION + 1, without="ecg")
    hospital.complete(PATIENT, ADMISSION, hours=20, without="ecg")
    hospital.ecg(PATIENT, 10, 1)
    assert list(hospital.select(**only("one_admission_per_study"))[0].index) == [ADMISSION]


def test_an_impossible_value_gives_way_to_the_next_and_is_never_clipped(hospital):
    hospital.complete(PATIENT, ADMISSION, without="labs")
    hospital.lab(PATIENT, 1, 1400)
    hospital.lab(PATIENT, 2, 250)
    hospital.lab(PATIENT, 3, 140)
    hospital.lab(PATIENT, 1, 12, PH)
    hospital.lab(PATIENT, 1, -22, BASE_EXCESS)
    admissions, attrition, _ = hospital.select(**only("plausible_labs"))
    row = admissions.loc[ADMISSION]
    assert (row[SODIUM], row[BASE_EXCESS]) == (250, -22), "alarming, not impossible"
    assert math.isnan(row[PH])
    assert step(attrition, "plausible labs")["left_out"] == {"Lab results": 2}
    assert hospital.select()[0].loc[ADMISSION, SODIUM] == 1400


@pytest.mark.parametrize(
    ("itemid", "unit", "counts"),
    [
        *((SODIUM, unit, True) for unit in ("mEq/L", "mmol/L", "", "  ", "MEQ/L")),
        (SODIUM, "mg/dL", False),
        *((MCHC, unit, True) for unit in ("%", "g/dL")),
        (MCHC, "g/L", False),
        (PH, "units", True),
        (PH, "mEq/L", False),
    ],
)
def test_a_result_in_another_unit_does_not_count(hospital, itemid, unit, counts):
    hospital.complete(PATIENT, ADMISSION, without="labs")
    hospital.lab(PATIENT, 1, 33, itemid, unit=unit)
    hospital.lab(PATIENT, 2, 31, itemid)
    admissions, attrition, _ = hospital.select(**only("expected_lab_units"))
    assert admissions.loc[ADMISSION, itemid] == (33 if counts else 31)
    assert step(attrition, "labs in the expected units")["left_out"] == {"Lab results": 0 if counts else 1}


def test_an_ecg_with_a_flat_lead_gives_way_to_the_next_and_each_file_is_opened_once(hospital):
    hospital.complete(PATIENT, ADMISSION, without="ecg")
    hospital.ecg(PATIENT, -4, 1, flat=True)
    hospital.ecg(PATIENT, -3, 2, usable=False)
    hospital.ecg(PATIENT, -2, 3, flat=True)
    hospital.ecg(PATIENT, -1, 4)
    hospital.complete(PATIENT + 1, ADMISSION + 1, without="ecg")
    hospital.ecg(PATIENT + 1, 1, 5, flat=True)
    admissions, attrition, rejects = hospital.select(**only("no_flat_ecg_leads"))
    assert dict(admissions.ecg_study_id) == {ADMISSION: 4}
    assert step(attrition, "ECG without flat leads")["left_out"] == {"ECGs": 3}
    assert [item for item, _, _ in rejects] == ["2"], "a flat lead is no fault of the file"
    assert len(hospital.opened) == len(set(hospital.opened)) == 5
    hospital.opened.clear()
    assert dict(hospital.select()[0].ecg_study_id) == {ADMISSION: 1, ADMISSION + 1: 5}
    assert len(hospital.opened) == 2


def test_every_rule_is_a_step_of_its_own_even_if_it_excludes_nobody(hospital):
    hospital.complete(PATIENT, ADMISSION)
    hospital.admissions[0]["dischtime"] = "2150-03-09 00:00:00"
    _, attrition, _ = hospital.select(rules="strict")
    assert [row["step"] for row in attrition] == [
        *("admissions", "frontal X-ray", "X-ray during the stay", "X-ray of its own", "X-ray on disk", "CheXpert labels"),
        *("labs", "labs in the expected units", "plausible labs"),
        *("ECG", "ECG of its own", "usable ECG", "ECG without flat leads"),
    ]
    assert {row["excluded"] for row in attrition} == {0}
    assert hospital.notes == {}, "nothing is let in"


def test_the_notes_say_what_the_paper_s_rules_let_in(hospital):
    for number in (0, 1):
        hospital.admit(PATIENT, ADMISSION + number, 10 * number, stay=20)
    hospital.cxr(PATIENT, 40, "late")
    hospital.ecg(PATIENT, 5, 1, flat=True)
    hospital.lab(PATIENT, 0, 1400)
    hospital.lab(PATIENT, 0, 7.3, PH, unit="mg/dL")
    hospital.select()
    assert hospital.notes == {
        ("cxr_during_stay", "X-rays taken after discharge or death"): 2,
        ("one_admission_per_study", "X-ray studies that serve more than one admission"): 1,
        ("one_admission_per_study", "ECGs that serve more than one admission"): 1,
        ("expected_lab_units", "lab values in another unit than their item's"): 2,
        ("plausible_labs", "lab values beyond physiological limits"): 2,
        ("no_flat_ecg_leads", "ECGs with a flat lead"): 2,
    }
    hospital.select(require=["labs"])
    assert {rule for rule, _ in hospital.notes} == {"expected_lab_units", "plausible_labs"}
    hospital.select(**only("plausible_labs"), require=["ecg"])
    assert {rule for rule, _ in hospital.notes} == {"one_admission_per_study", "no_flat_ecg_leads"}


def test_each_item_has_limits_far_beyond_its_reference_range_and_a_reason():
    from clinical_symile.cohort.lab_codes import read_package_table

    rows = read_package_table("lab_limits.csv")
    assert [row["itemid"] for row in rows] == [item.itemid for item in LAB_ITEMS]
    assert all(row["basis"] in ("widened", "narrowed", "definition", "implied", "judgement") and row["reason"] for row in rows)
    for item, row in zip(LAB_ITEMS, rows, strict=True):
        low, high = lab_limits()[item.itemid]
        assert row["name"] == item.name
        assert low < high
        if item.reference_low is not None and item.reference_high is not None:
            assert low <= item.reference_low * 0.9
            assert high >= item.reference_high * 1.1


@pytest.mark.realdata
def test_the_real_demo_has_no_value_beyond_the_limits(real_data):
    import duckdb

    file = real_data / "labs/mimic-iv-clinical-database-demo-2.2/hosp/labevents.csv.gz"
    ranges = duckdb.sql(
        f"SELECT itemid::VARCHAR, min(valuenum), max(valuenum) FROM read_csv('{file}') WHERE valuenum IS NOT NULL GROUP BY 1"
    ).fetchall()
    found = {item: (low, high) for item, low, high in ranges if item in lab_limits()}
    assert len(found) == 50
    for item, (low, high) in lab_limits().items():
        assert low <= found[item][0] <= found[item][1] <= high, item


def test_the_switches_belong_to_the_strict_rules():
    assert CohortConfig().strict is None
    assert not any(CohortConfig().switches.model_dump().values())
    strict = load_config(None, ["cohort.rules=strict", "cohort.strict.plausible_labs=false"]).cohort
    assert strict.switches == StrictRules(plausible_labs=False)
    assert CohortConfig.model_validate(strict.model_dump()) == strict
    with pytest.raises(ConfigError, match=r"set cohort\.rules=strict"):
        load_config(None, ["cohort.strict.plausible_labs=true"])
    with pytest.raises(ConfigError, match=r"unknown key 'cohort\.strict\.plausible_lab'; did you mean 'plausible_labs'"):
        load_config(None, ["cohort.rules=strict", "cohort.strict.plausible_lab=true"])

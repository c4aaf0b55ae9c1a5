"""The paper's rules, one trap at a time. Oracle for all of them together: test_cohort_oracle.py."""

from __future__ import annotations

import math

import pytest

from clinical_symile.errors import InputError

PATIENT, ADMISSION = 10_000_032, 20_000_001
SODIUM, POTASSIUM = "50983", "50971"
SECOND = 1 / 3600


@pytest.mark.parametrize(("hours", "kept"), [(24, False), (24 + SECOND, True), (72, True), (72 + SECOND, False)])
def test_the_xray_window_is_open_at_24_h_and_closed_at_72_h(hospital, hours, kept):
    hospital.complete(PATIENT, ADMISSION, without="cxr")
    hospital.cxr(PATIENT, hours, "image")
    if kept:
        assert list(hospital.select()[0].index) == [ADMISSION]
    else:
        with pytest.raises(InputError, match="after the step 'frontal X-ray'"):
            hospital.select()


@pytest.mark.parametrize("modality", ["ecg", "labs"])
@pytest.mark.parametrize(
    ("hours", "kept"), [(-24 - SECOND, False), (-24, True), (0, True), (24, True), (24 + SECOND, False)], ids=str
)
def test_the_ecg_and_lab_windows_hold_both_ends(hospital, modality, hours, kept):
    hospital.complete(PATIENT, ADMISSION, without=modality)
    if modality == "ecg":
        hospital.ecg(PATIENT, hours, 7)
    else:
        hospital.lab(PATIENT, hours, 140)
    if kept:
        assert list(hospital.select()[0].index) == [ADMISSION]
    else:
        with pytest.raises(InputError, match="the cohort is empty"):
            hospital.select()


def test_the_windows_are_the_configuration_s(hospital):
    hospital.complete(PATIENT, ADMISSION)
    hospital.ecg(PATIENT, -30, 7)
    hospital.lab(PATIENT, -40, 99)
    hospital.cxr(PATIENT, 20, "early")
    row = hospital.select(ecg_window_hours=30, lab_window_hours=40.5, cxr_after_hours=12)[0].loc[ADMISSION]
    assert (row.ecg_study_id, row[SODIUM], row.cxr_dicom_id) == (7, 99, "early")


def test_the_earliest_is_taken_not_the_nearest_nor_the_first_in_the_file(hospital):
    hospital.admit(PATIENT, ADMISSION)
    for hours, study in [(5, 1), (-20, 2), (0, 3)]:
        hospital.ecg(PATIENT, hours, study)
        hospital.lab(PATIENT, hours, study)
        hospital.cxr(PATIENT, 48 + hours, f"image-{study}")
    row = hospital.select()[0].loc[ADMISSION]
    assert (row.ecg_study_id, row[SODIUM], row.cxr_dicom_id) == (2, 2, "image-2")


def test_at_equal_times_the_first_row_of_the_file_is_taken(hospital):
    hospital.admit(PATIENT, ADMISSION)
    for study in (9, 3, 5):
        hospital.ecg(PATIENT, 1, study)
        hospital.lab(PATIENT, 1, study)
        hospital.cxr(PATIENT, 30, f"image-{study}")
    row = hospital.select()[0].loc[ADMISSION]
    assert (row.ecg_study_id, row[SODIUM], row.cxr_dicom_id) == (9, 9, "image-9")


def test_a_study_time_without_its_leading_zeros_is_read_right(hospital):
    """Admitted at 22:30; 25.5 h later it is 00:00:03, written 3.0. Read as 3 h, it would come after the other one."""
    hospital.complete(PATIENT, ADMISSION, without="cxr")
    hospital.cxr(PATIENT, 27, "at-01:30")
    hospital.cxr(PATIENT, 25.5 + 3 * SECOND, "at-00:00:03")
    row = hospital.select()[0].loc[ADMISSION]
    assert row.cxr_dicom_id == "at-00:00:03"
    assert str(row.cxr_time) == "2150-03-03 00:00:03"


@pytest.mark.parametrize(
    ("written", "read"),
    [("3.5", "00:00:03"), ("0", "00:00:00"), ("84523.417", "08:45:23"), ("235959.999", "23:59:59"), ("712", "00:07:12")],
)
def test_the_fraction_of_a_study_time_is_cut(hospital, written, read):
    hospital.complete(PATIENT, ADMISSION, without="cxr")
    hospital.cxr(PATIENT, 40, "image")
    hospital.images[0] |= {"StudyDate": "21500303", "StudyTime": written}
    assert str(hospital.select()[0].loc[ADMISSION].cxr_time) == f"2150-03-03 {read}"


@pytest.mark.parametrize("view", ["LATERAL", "LL", "", "ap", "AP "])
def test_only_ap_and_pa_are_frontal(hospital, view):
    hospital.complete(PATIENT, ADMISSION, without="cxr")
    hospital.cxr(PATIENT, 30, "other", view=view)
    hospital.cxr(PATIENT, 31, "frontal", view="PA")
    row = hospital.select()[0].loc[ADMISSION]
    assert (row.cxr_dicom_id, row.cxr_view) == ("frontal", "PA")


def test_an_image_that_is_not_on_disk_gives_way_to_the_next(hospital):
    hospital.complete(PATIENT, ADMISSION, without="cxr")
    for hours in (30, 31):
        hospital.cxr(PATIENT, hours, f"missing-{hours}", on_disk=False)
    hospital.cxr(PATIENT, 32, "there")
    admissions, attrition, rejects = hospital.select()
    assert admissions.loc[ADMISSION].cxr_dicom_id == "there"
    assert [(item, reason) for item, _, reason in rejects] == [
        ("missing-30.jpg", "the file is missing"),
        ("missing-31.jpg", "the file is missing"),
    ]
    assert all(step["included"] == 1 for step in attrition)


def test_a_chosen_image_without_chexpert_does_not_give_way_to_the_next(hospital):
    hospital.complete(PATIENT, ADMISSION, without="cxr")
    hospital.cxr(PATIENT, 30, "unlabelled", labels=False)
    hospital.cxr(PATIENT, 31, "labelled")
    with pytest.raises(InputError, match="after the step 'CheXpert labels'"):
        hospital.select()


def test_chexpert_labels_keep_their_four_states(hospital):
    hospital.complete(PATIENT, ADMISSION)
    row = hospital.select()[0].loc[ADMISSION]
    assert (row["Edema"], row["Pneumonia"]) == (1.0, -1.0)
    assert math.isnan(row["Fracture"])


def test_an_unusable_ecg_gives_way_to_the_next(hospital):
    hospital.complete(PATIENT, ADMISSION, without="ecg")
    hospital.ecg(PATIENT, -3, 1, usable=False)
    hospital.ecg(PATIENT, -2, 2, usable=False)
    hospital.ecg(PATIENT, -1, 3)
    admissions, _, rejects = hospital.select()
    assert admissions.loc[ADMISSION].ecg_study_id == 3
    assert [(item, reason) for item, _, reason in rejects] == [("1", "is flat"), ("2", "is flat")]


def test_only_ecgs_that_could_be_chosen_are_opened_and_each_once(hospital):
    for subject in range(PATIENT, PATIENT + 4):
        hospital.complete(subject, subject + 10_000_000, without=("cxr", "labs", "", "")[subject - PATIENT])
        hospital.ecg(subject, 3, subject % 1000)
    hospital.ecg(PATIENT + 2, -5, 1, usable=False)
    hospital.select()
    owners = [path.split("/")[2] for path in hospital.opened]
    assert owners == [f"p{PATIENT + 2}", f"p{PATIENT + 3}", f"p{PATIENT + 2}"]


def test_labs_are_matched_by_patient_and_time_whatever_their_hadm_id_says(hospital):
    hospital.complete(PATIENT, ADMISSION, without="labs")
    hospital.lab(PATIENT, 2, 141, hadm_id=29_999_999)
    hospital.lab(PATIENT + 1, 1, 99, hadm_id=ADMISSION)
    assert hospital.select()[0].loc[ADMISSION, SODIUM] == 141


def test_a_result_without_a_number_does_not_hide_a_later_one(hospital):
    hospital.complete(PATIENT, ADMISSION, without="labs")
    hospital.lab(PATIENT, -3, "")
    hospital.lab(PATIENT, 5, 142)
    hospital.lab(PATIENT, 6, "", POTASSIUM)
    row = hospital.select()[0].loc[ADMISSION]
    assert row[SODIUM] == 142
    assert math.isnan(row[POTASSIUM])


def test_each_item_has_its_own_earliest_and_other_items_do_not_count(hospital):
    hospital.complete(PATIENT, ADMISSION, without="labs")
    hospital.lab(PATIENT, -9, 5.1, "50822")  # whole-blood potassium, not one of the 50
    hospital.lab(PATIENT, 3, 4.4, POTASSIUM)
    hospital.lab(PATIENT, 2, 4.0, POTASSIUM)
    hospital.lab(PATIENT, 1, -3.5, "50802")
    row = hospital.select()[0].loc[ADMISSION]
    assert (row[POTASSIUM], row["50802"]) == (4.0, -3.5)
    assert "50822" not in row


def test_one_ecg_may_serve_two_admissions_close_together(hospital):
    hospital.complete(PATIENT, ADMISSION)
    hospital.complete(PATIENT, ADMISSION + 1, hours=20, without="ecg")
    assert hospital.select()[0].ecg_study_id.nunique() == 1


def test_age_is_the_anchor_age_moved_to_the_year_of_admission(hospital):
    hospital.complete(PATIENT, ADMISSION)
    assert hospital.select()[0].loc[ADMISSION].age == 60 + 2150 - 2148


def test_a_modality_that_is_not_required_leaves_its_columns_empty(hospital):
    hospital.complete(PATIENT, ADMISSION, without="cxr")
    admissions, attrition, _ = hospital.select(require=["ecg", "labs"])
    assert admissions.loc[ADMISSION].isna()[["cxr_path", "cxr_dicom_id", "cxr_time", "Edema"]].all()
    assert [step["step"] for step in attrition] == ["admissions", "labs", "ECG", "usable ECG"]


def test_attrition_adds_up_and_says_why(hospital):
    base = ADMISSION
    for number, without in enumerate(["", "cxr", "ecg", "ecg", "labs", ""]):
        hospital.complete(PATIENT + number, base + number, without=without)
    hospital.complete(PATIENT + 6, base + 6, without="cxr")
    hospital.cxr(PATIENT + 6, 30, "gone", on_disk=False)
    hospital.complete(PATIENT + 7, base + 7, without="cxr")
    hospital.cxr(PATIENT + 7, 30, "unlabelled", labels=False)
    hospital.complete(PATIENT + 8, base + 8, without="ecg")
    hospital.ecg(PATIENT + 8, 1, 1, usable=False)
    admissions, attrition, _ = hospital.select()
    assert [(step["step"], step["included"], step["excluded"]) for step in attrition] == [
        ("admissions", 9, 0),
        ("frontal X-ray", 8, 1),
        ("X-ray on disk", 7, 1),
        ("CheXpert labels", 6, 1),
        ("labs", 5, 1),
        ("ECG", 3, 2),
        ("usable ECG", 2, 1),
    ]
    assert len(admissions) == attrition[-1]["included"]
    assert all(step["reason"] for step in attrition[1:])


def test_an_empty_cohort_says_at_which_step_the_last_admission_left(hospital):
    hospital.complete(PATIENT, ADMISSION, without="cxr")
    hospital.complete(PATIENT + 1, ADMISSION + 1, without="labs")
    with pytest.raises(InputError) as caught:
        hospital.select()
    message = str(caught.value)
    assert "after the step 'labs' (none of the 50 items within 24 h of admission)" in message
    assert "frontal X-ray" in message, "the way there is shown"


def test_a_hospital_without_admissions_is_an_empty_cohort(hospital):
    with pytest.raises(InputError, match="the tables hold no admission"):
        hospital.select()

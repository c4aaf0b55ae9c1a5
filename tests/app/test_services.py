"""What the dashboard may ask: patients without identifiers, the right candidates, one audit record for each press."""

from __future__ import annotations

import json
import logging
import sqlite3

import numpy as np
import pytest

from app import services
from app.records import Request
from app.services import presenting
from clinical_symile.errors import ClinicalSymileError, InputError
from clinical_symile.figures import letterbox
from clinical_symile.types import ECG_SAMPLES

EVERYTHING = Request(("ecg", "labs"), ("AP", "PA"), 8, evaluation=False)


ADMISSIONS = 24


def events(folder):
    with sqlite3.connect(folder / "audit.db") as connection:
        return [json.loads(body) for (body,) in connection.execute("SELECT body FROM audit ORDER BY seq")]


def test_patients_have_pseudonyms(review, fake_store):
    labels = review.patient_labels()
    assert labels[0] == "Patient 1 – 52 y, F"
    assert len(labels) == len(set(labels)) == 12, "only the held-out split is shown"
    identifiers = fake_store.table[["hadm_id", "subject_id", "cxr_dicom_id"]].astype(str).to_numpy().ravel()
    assert not [label for label in labels for identifier in identifiers if identifier in label]


@pytest.mark.parametrize(
    ("age", "text"), [(67, "67 y"), (89, "89 y"), (91, "over 89 y"), (float("nan"), "age unknown"), (None, "age unknown")]
)
def test_ages_over_89_are_not_told(age, text):
    assert presenting.age_text(age) == text


@pytest.mark.parametrize(("sex", "text"), [("F", "F"), ("M", "M"), (None, "sex unknown"), ("![x](http://h)", "sex unknown")])
def test_sex_is_a_letter_or_unknown(sex, text):
    assert presenting.sex_text(sex) == text


def test_nobody_gets_an_xray_of_the_same_person(review):
    patient = review.patient(0)
    answer = review.retrieve(patient, Request(("ecg", "labs"), ("AP", "PA"), ADMISSIONS, evaluation=False), "once")
    assert answer.eligible == ADMISSIONS - 2
    assert {12, 13}.isdisjoint(hit.position for hit in answer.hits)
    assert answer.own is None


def test_evaluation_mode_adds_the_own_xray_only(review):
    patient = review.patient(1)
    answer = review.retrieve(patient, Request(("ecg", "labs"), ("AP", "PA"), ADMISSIONS, evaluation=True), "once")
    positions = [hit.position for hit in answer.hits]
    assert 13 in positions, "the X-ray of this admission takes part"
    assert 12 not in positions, "the X-ray of the same person's other admission does not"
    assert answer.own is not None
    assert answer.own.position == 13
    assert answer.own.rank == positions.index(13) + 1


def test_own_xray_is_found_below_the_shown_ones(review):
    for number in range(12):
        answer = review.retrieve(review.patient(number), Request(("ecg", "labs"), ("AP", "PA"), 4, evaluation=True), f"{number}")
        assert len(answer.hits) == 4
        assert (answer.own in answer.hits) == (answer.own.rank <= 4)


def test_hits_are_ranked_and_obey_the_view(review):
    answer = review.retrieve(review.patient(0), Request(("labs",), ("PA",), 24, evaluation=False), "once")
    assert [hit.rank for hit in answer.hits] == list(range(1, len(answer.hits) + 1))
    assert [hit.score for hit in answer.hits] == sorted((hit.score for hit in answer.hits), reverse=True)
    assert {hit.view for hit in answer.hits} == {"PA"}
    assert all(0 <= hit.percentile <= 100 for hit in answer.hits)


def test_xrays_of_unknown_view_are_found_unless_a_view_is_chosen(review, fake_store):
    fake_store.table["cxr_view"] = None
    review._gallery.table["cxr_view"] = None
    answer = review.retrieve(review.patient(0), EVERYTHING, "once")
    assert answer.eligible == ADMISSIONS - 2
    assert {hit.view for hit in answer.hits} == {"view unknown"}
    with pytest.raises(InputError, match="chosen views"):
        review.retrieve(review.patient(0), Request(("ecg",), ("AP",), 8, evaluation=False), "twice")


def test_hospital_that_knows_neither_age_nor_sex(review, fake_store):
    fake_store.table.drop(columns=["age", "gender"], inplace=True)
    assert review.patient_labels()[0] == "Patient 1 – age unknown, sex unknown"


def test_view_that_is_not_there_is_refused(review):
    with pytest.raises(InputError, match="chosen views"):
        review.retrieve(review.patient(0), Request(("ecg",), ("LATERAL",), 8, evaluation=False), "once")


def test_one_press_is_one_record_without_identifiers(review, tmp_path):
    patient = review.patient(0)
    answers = [review.retrieve(patient, EVERYTHING, "same press") for _ in range(3)]
    review.retrieve(patient, EVERYTHING, "another press")
    recorded = events(tmp_path)
    assert [event["event"] for event in recorded] == ["query", "query"]
    assert recorded[0]["model_version"] == "symile-mimic/3"
    assert recorded[0]["positions"] == [hit.position for hit in answers[0].hits]
    assert recorded[0]["query_digest"] == recorded[1]["query_digest"]
    text = json.dumps(recorded)
    assert not [value for value in ("Patient", "10000006", "20000012", "image-") if value in text]


def test_enlarging_is_recorded_once_for_each_answer(review, tmp_path):
    patient = review.patient(0)
    answer = review.retrieve(patient, EVERYTHING, "press")
    for _ in range(5):
        review.record_view(patient, answer, answer.hits[2])
    assert [event["event"] for event in events(tmp_path)] == ["query", "view"]
    assert events(tmp_path)[1]["positions"] == [answer.hits[2].position]


def test_nothing_is_shown_when_the_audit_log_cannot_be_written(review, tmp_path):
    review.retrieve(review.patient(0), EVERYTHING, "first")
    (tmp_path / "audit.key").unlink()
    with pytest.raises(ClinicalSymileError, match="audit log"):
        review.retrieve(review.patient(0), EVERYTHING, "second")


def test_uploaded_labs_alone_can_be_asked_for(review):
    patient = review.uploaded({}, b"itemid,value\n50912,1.3\n50971,4.1\n12345,1\n")
    assert patient.ecg_mv is None
    assert np.isfinite(patient.labs_values).sum() == 2
    assert len(patient.notes) == 2, "the unknown test and the missing units are told"
    answer = review.retrieve(patient, Request(("labs",), ("AP", "PA"), 4, evaluation=False), "once")
    assert answer.eligible == ADMISSIONS, "nobody of the gallery is the uploaded person"
    assert services.lab_table(patient)


def test_absent_modality_is_refused(review):
    patient = review.uploaded({}, b"itemid,value\n50912,1.3\n")
    with pytest.raises(InputError, match="this one holds nothing"):
        review.retrieve(patient, Request(("ecg",), ("AP", "PA"), 4, evaluation=False), "once")
    with pytest.raises(InputError, match="no ECG"):
        services.ecg_svg(patient)


def test_pictures_are_data_addresses(review):
    answer = review.retrieve(review.patient(0), EVERYTHING, "press")
    thumbnail = review.thumbnail(answer.hits[0])
    large = review.xray(answer.hits[0], level=100, width=50, invert=True)
    assert thumbnail.startswith("data:image/png;base64,")
    assert large.startswith("data:image/png;base64,")
    assert thumbnail != large


def test_letterbox_keeps_every_pixel():
    image = np.random.default_rng(0).integers(1, 256, size=(320, 400), dtype=np.uint8)
    square = letterbox(image)
    assert square.shape == (400, 400)
    assert np.array_equal(square[40:360], image)
    assert not square[:40].any()
    assert not square[360:].any()


def test_ecg_page_shows_the_pseudonym(review):
    patient = review.patient(0)
    assert patient.ecg_mv.shape == (ECG_SAMPLES, 12)
    assert "Patient 1 – 52 y, F" in services.ecg_svg(patient)


def test_ecg_page_of_a_store_without_amplitudes_says_so(review, fake_store):
    """The released Symile-MIMIC scales each record to -1…1."""
    assert "10 mm/mV" in services.ecg_svg(review.patient(0))
    fake_store.ecg_is_calibrated = False
    page = services.ecg_svg(review.patient(0))
    assert "arbitrary units" in page
    assert "mm/mV" not in page


def test_errors_are_shown_without_identifiers():
    shown = services.explain_error(InputError("/data/p10000032/s50414267/x.dcm: is damaged"))
    assert "10000032" not in shown
    assert "is damaged" in shown


def test_tracebacks_in_the_log_lose_identifiers(capsys):
    logger = logging.getLogger("test_services.redaction")
    handler = logging.StreamHandler()
    logger.addHandler(handler)
    try:
        services.redact_logs()
        services.redact_logs()
        assert len(handler.filters) == 1
        try:
            raise ValueError("subject 10000032")
        except ValueError:
            logger.exception("reading s50414267")
    finally:
        logger.removeHandler(handler)
    written = capsys.readouterr().err
    assert "ValueError" in written
    assert "10000032" not in written
    assert "50414267" not in written


def test_workspace_that_is_not_set_is_told(monkeypatch):
    monkeypatch.delenv("CLINICAL_SYMILE_WORKSPACE", raising=False)
    with pytest.raises(ClinicalSymileError, match="clinical-symile review"):
        services.open_review()


def test_empty_workspace_says_what_to_run(monkeypatch, tmp_path):
    monkeypatch.setenv("CLINICAL_SYMILE_WORKSPACE", str(tmp_path))
    assert services.known_access() is None
    with pytest.raises(ClinicalSymileError, match="clinical-symile prepare"):
        services.open_review()

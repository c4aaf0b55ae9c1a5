"""The first page: a patient's ECG and laboratory results, and the X-rays that fit them best."""

from __future__ import annotations

import uuid
from typing import Final

import streamlit as st

from app.components.patient_choice import choose_patient
from app.components.patient_view import show_ecg, show_labs
from app.components.result_card import OWN, show_card
from app.records import VIEWS, Answer, Patient, QueryModality, Request
from app.services import Review
from app.session import shared_review

_QUERIES: Final[dict[str, tuple[QueryModality, ...]]] = {
    "ECG and labs": ("ecg", "labs"),
    "ECG only": ("ecg",),
    "Labs only": ("labs",),
}
_PER_ROW: Final = 4


def retrieve() -> None:
    """Patient, data, question, answer; from top to bottom.

    Raises:
        ClinicalSymileError: for the frame to show.
    """
    st.title("Which chest X-ray fits this ECG and these labs?")
    review = shared_review()
    left, right = st.columns([7, 5], gap="large")
    with left:
        chosen = choose_patient(review)
    if chosen is None:
        return
    patient, patient_key = chosen
    with left:
        show_ecg(patient)
    with right:
        show_labs(patient)
    request = _ask(patient)
    if not request.views:
        st.info("Choose at least one view.")
        return
    answer = _answer(review, patient, (patient_key, request))
    if answer is not None:
        _show(review, patient, answer)


def _ask(patient: Patient) -> Request:
    """The question, as the controls are set."""
    st.subheader("X-rays of the gallery that fit best")
    present = {name for name, data in (("ecg", patient.ecg_mv), ("labs", patient.labs_values)) if data is not None}
    queries = [name for name, modalities in _QUERIES.items() if set(modalities) <= present]
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        # A widget's identity includes its options: one key for each set of them.
        query = st.segmented_control(
            "Ask with", queries, default=queries[0], required=True, key=f"query-{'-'.join(sorted(present))}"
        )
        views = st.pills("Views", VIEWS, selection_mode="multi", default=VIEWS, key="views")
        k = st.selectbox("How many", [4, 8, 12, 16, 24], index=1, key="k", width=90)
        evaluation = patient.row is not None and st.toggle(
            "Evaluation mode",
            key="evaluation",
            help="The patient's own X-ray is among the candidates. Otherwise no X-ray of this person is.",
        )
        st.button("Retrieve", type="primary", on_click=_press, disabled=not views, key="retrieve")
    return Request(_QUERIES[query], tuple(views), k, evaluation)


def _press() -> None:
    """Each press is one occasion: however often the page runs again, it is one query and one audit record."""
    st.session_state["occasion"] = uuid.uuid4().hex


def _answer(review: Review, patient: Patient, question: tuple[str, Request]) -> Answer | None:
    """The answer to the last press, if it belongs to the patient and the question on the screen."""
    occasion = st.session_state.get("occasion")
    if occasion is None:
        return None
    answer, asked = st.session_state.get("answer", (None, None))
    if answer is None or answer.occasion != occasion:
        with st.spinner("Searching the gallery …"):
            answer, asked = review.retrieve(patient, question[1], occasion), question
        st.session_state["answer"] = (answer, asked)
    if asked != question:
        st.info("The patient or the question has changed since the last search. Press Retrieve.")
        return None
    return answer


def _show(review: Review, patient: Patient, answer: Answer) -> None:
    """The ranked X-rays."""
    st.caption(
        f"{answer.eligible:,} of the gallery's {answer.gallery_size:,} X-rays took part. The score orders them by how well they "
        "fit this query; it is no probability."
    )
    reveal = answer.request.evaluation and st.checkbox("Reveal the patient's own X-ray", key=f"reveal-{answer.occasion}")
    if reveal:
        _say_where_own(answer)
    for start in range(0, len(answer.hits), _PER_ROW):
        for column, hit in zip(st.columns(_PER_ROW), answer.hits[start : start + _PER_ROW], strict=False):
            with column:
                show_card(review, patient, answer, hit, reveal=reveal)
    if reveal and answer.own is not None and answer.own.rank > len(answer.hits):
        st.markdown(f"**{OWN}**")
        with st.columns(_PER_ROW)[0]:
            show_card(review, patient, answer, answer.own, reveal=True)


def _say_where_own(answer: Answer) -> None:
    if answer.own is None:
        st.info(f"{OWN} did not take part: its view was not chosen, or it is not in this gallery.")
    else:
        st.info(
            f"{OWN} has rank {answer.own.rank} of {answer.eligible:,}; its gallery percentile is {answer.own.percentile:.1f}."
        )

"""One retrieved X-ray: its card in the grid, and its large view with window, level and the parts of its score."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from app.components.notice import RESEARCH_USE_ONLY
from app.components.text import safe_text
from app.records import Answer, Hit, Patient
from app.services import Review

OWN = "The patient's own X-ray"


def show_card(review: Review, patient: Patient, answer: Answer, hit: Hit, *, reveal: bool) -> None:
    """The X-ray with rank, score and percentile."""
    own = reveal and hit.own
    with st.container(border=True, gap="small"):
        badge = f" :green-badge[{OWN}]" if own else ""
        st.markdown(f"**{hit.rank}** :gray[{safe_text(hit.view)}]{badge}")
        name = f"Chest X-ray, rank {hit.rank}, view {hit.view}{f', {OWN}' if own else ''}"
        st.image(review.thumbnail(hit), width="stretch", alt=name)
        st.markdown(f"Score **{hit.score:.2f}**  \n:gray[Gallery percentile {hit.percentile:.1f}]")
        if st.button("Enlarge", key=f"enlarge-{hit.position}", width="stretch"):
            _enlarge(review, patient, answer, hit)


@st.dialog("Chest X-ray", width="large")
def _enlarge(review: Review, patient: Patient, answer: Answer, hit: Hit) -> None:
    review.record_view(patient, answer, hit)
    picture, controls = st.columns([3, 2], gap="medium")
    with controls:
        st.markdown(f"**Rank {hit.rank}** of {answer.eligible}, view {safe_text(hit.view)}")
        invert = st.toggle("Invert", key="xray_invert")
        level = st.slider("Level", 0, 255, 128, key="xray_level")
        width = st.slider("Window", 1, 255, 255, key="xray_width")
        st.markdown("**Score and gallery percentile**")
        st.table(scores_frame(hit), border="horizontal", hide_index=True, alt="Scores of the whole query and of each part alone")
        st.markdown("**What the score is made of**")
        st.table(parts_frame(hit), border="horizontal", hide_index=True, alt="Parts of the score, which add up to it")
        st.caption(
            "The parts add up to the score. The first is this X-ray's score for an average ECG and average labs; the last is "
            "what neither the ECG nor the labs add by themselves."
        )
    with picture:
        st.caption(RESEARCH_USE_ONLY)  # the page's own notice lies behind the dialog
        st.image(
            review.xray(hit, level=level, width=width, invert=invert),
            width="stretch",
            alt=f"Chest X-ray, rank {hit.rank}, view {hit.view}, enlarged",
        )


def scores_frame(hit: Hit) -> pd.DataFrame:
    """Scores and gallery percentiles of the whole query, and of the ECG and the labs alone."""
    explanation = hit.explanation
    rows = (
        ("**As asked**", hit.score, hit.percentile),
        ("ECG only", explanation.ecg_only_score, explanation.ecg_only_percentile),
        ("Labs only", explanation.labs_only_score, explanation.labs_only_percentile),
    )
    return pd.DataFrame(
        {
            "Query": [name for name, _, _ in rows],
            "Score": ["not asked" if score is None else number(score) for _, score, _ in rows],
            "Percentile": ["" if share is None else f"{share:.1f}" for _, _, share in rows],
        }
    )


def parts_frame(hit: Hit) -> pd.DataFrame:
    """The exact parts of the score, which add up to it."""
    explanation = hit.explanation
    parts = (
        ("Average patient", explanation.average),
        ("This ECG adds", explanation.ecg),
        ("These labs add", explanation.labs),
        ("Only the two together", explanation.together),
    )
    return pd.DataFrame({"Part": [name for name, _ in parts], "Points": [number(value, sign=True) for _, value in parts]})


def number(value: float, *, sign: bool = False) -> str:
    """A number with two decimals, and with characters that Markdown leaves alone."""
    text = f"{value:+.2f}" if sign else f"{value:.2f}"
    return text.replace("-", "\N{MINUS SIGN}").replace("+", "\\+")

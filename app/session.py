"""What all sessions of one server share."""

from __future__ import annotations

import streamlit as st

from app.services import Review, open_review


# Immutable, so that sessions cannot leak into each other. A new champion is served after a restart, never half-way.
@st.cache_resource(show_spinner="Opening the model and its gallery …")
def shared_review() -> Review:
    """The model, its gallery and the dataset, opened once.

    Raises:
        ClinicalSymileError: they cannot be opened; nothing is kept then, so the next page load tries again.
    """
    return open_review()

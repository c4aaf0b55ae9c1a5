"""Entry point of the dashboard; started by ``clinical-symile review``."""

from __future__ import annotations

import streamlit as st

from app.components.notice import show_notice
from app.components.provenance import show_provenance
from app.components.text import safe_text
from app.screens.about import about
from app.screens.retrieve import retrieve
from app.server import require_hardened
from app.services import ClinicalSymileError, explain_error, known_access, redact_logs
from app.session import shared_review


def main() -> None:
    """The frame of every page: notice, navigation, provenance; then the page."""
    redact_logs()
    st.set_page_config(page_title="Clinical Symile", layout="wide", initial_sidebar_state="expanded")
    page = st.navigation(
        [
            st.Page(retrieve, title="Retrieve", default=True),
            st.Page(about, title="About"),
        ]
    )
    # Before anything that takes time or may fail, so that no page is ever without it.
    show_notice(known_access())
    try:
        require_hardened(st.get_option)
        page.run()
    except ClinicalSymileError as error:
        st.error(safe_text(explain_error(error)))
    # Last, since the page shows its first lines before the model is open.
    try:
        require_hardened(st.get_option)
        show_provenance(shared_review().provenance)
    except ClinicalSymileError:
        st.sidebar.caption("No model is open.")


main()

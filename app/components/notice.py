"""What is always on the screen: what the dashboard is not for, and what the data is."""

from __future__ import annotations

from typing import Final

import streamlit as st

RESEARCH_USE_ONLY: Final = "Research use only. Not for diagnosis or treatment."
SIMULATED: Final = "Simulated data"


def show_notice(access: str | None) -> None:
    """Keeps the notice at the lower edge of the window, where it stays while the page scrolls.

    Args:
        access: class of the data, None while it is not known.
    """
    with st.bottom.container(horizontal=True, vertical_alignment="center", gap="medium"):
        st.markdown(f"**{RESEARCH_USE_ONLY}**", width="content")
        if access == "synthetic":
            st.badge(SIMULATED, color="violet")

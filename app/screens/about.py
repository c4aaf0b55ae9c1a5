"""What the dashboard is for, what it is not for, and how to read it."""

from __future__ import annotations

import streamlit as st

from app.components.text import safe_text
from app.services import intended_use


def about() -> None:
    """The statement of intended use, as the governance documents have it."""
    use = intended_use()
    st.title("About")
    st.markdown(f"**{safe_text(use.statement)}**")
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("For")
        st.markdown("\n".join(f"- {safe_text(text)}" for text in use.uses))
        st.subheader("Used by")
        st.markdown("\n".join(f"- {safe_text(text)}" for text in use.users))
        st.subheader("Not for")
        st.markdown("\n".join(f"- **{safe_text(name)}**: {safe_text(reason)}" for name, reason in use.out_of_scope.items()))
    with right:
        st.subheader("Limits")
        st.markdown("\n".join(f"- {safe_text(text)}" for text in use.limitations))
        st.subheader("How to read a result")
        st.markdown(
            "- The **score** orders the X-rays of this gallery for one query. It has no unit, and scores of two patients or two "
            "models cannot be compared.\n"
            "- The **percentile** is the share of the gallery's other X-rays that score lower. The first result is always near "
            "100, also when nothing in the gallery fits.\n"
            "- **ECG only** and **labs only** are the scores when the other one is replaced by an average patient's."
        )

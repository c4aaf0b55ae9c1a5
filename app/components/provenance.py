"""Which model, which data, which gallery: in the sidebar of every page."""

from __future__ import annotations

import streamlit as st

from app.components.text import safe_text
from app.records import Provenance

_DIGEST_DIGITS = 12
_LOSSES = {"symile": "Symile (three-way)", "clip": "CLIP (pairwise)"}
_ACCESS = {"synthetic": "simulated", "open": "open", "credentialed": "credentialed"}


def short(digest: str) -> str:
    """The first digits of a digest, enough to tell versions apart."""
    return digest[:_DIGEST_DIGITS]


def show_provenance(provenance: Provenance) -> None:
    """Model, data and gallery, with their digests."""
    with st.sidebar:
        st.markdown("**Model**")
        st.caption(
            f"{safe_text(provenance.name)}, version {provenance.version}  \n"
            f"{_LOSSES.get(provenance.loss, safe_text(provenance.loss))}  \n"
            f"Digest {short(provenance.model_digest)}"
        )
        st.markdown("**Data**")
        access = _ACCESS.get(provenance.access, safe_text(provenance.access))
        st.caption(f"Access: {access}  \nDataset {short(provenance.dataset_digest)}")
        st.markdown("**Gallery**")
        st.caption(f"{provenance.gallery_size:,} X-rays  \nDigest {short(provenance.gallery_digest)}")

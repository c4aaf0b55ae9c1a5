"""The review dashboard: a Streamlit app that is served on this machine only."""

"""The pages of the dashboard, each a function that ``main`` frames.

The folder is not named ``pages``: Streamlit runs the files of a folder of that name by themselves when one of them is the
first address that a browser asks for, without the frame, and so without the notice that every page must show.
"""

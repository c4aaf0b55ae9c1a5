"""Window, level and inversion, and the encoding for a browser."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clinical_symile.errors import InputError
from clinical_symile.figures import cxr_data_uri, cxr_png, window

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


def test_the_whole_window_changes_nothing():
    assert np.array_equal(window(RAMP), RAMP)


def test_a_narrow_window_is_linear_between_black_and_white():
    shown = window(RAMP, level=100, width=50).ravel()
    assert (shown[:76] == 0).all()
    assert (shown[125:] == 255).all()
    assert shown[100] == 128, "the level is not mid-grey"


@given(level=st.floats(0, 255), width=st.floats(1, 255))
def test_window_keeps_the_order_of_greys(level, width):
    assert (np.diff(window(RAMP, level, width).ravel().astype(int)) >= 0).all()


@given(level=st.floats(0, 255), width=st.floats(1, 255))
def test_inverted_is_the_complement(level, width):
    plain, inverted = (window(RAMP, level, width, invert=invert).astype(int) for invert in (False, True))
    assert (np.abs(plain + inverted - 255) <= 1).all()


@pytest.mark.parametrize("width", [0, -1, float("nan")])
def test_a_window_without_width_is_refused(width):
    with pytest.raises(InputError, match="window width"):
        window(RAMP, 128, width)


def test_png_comes_back_bit_for_bit():
    image = np.random.default_rng(1).integers(0, 256, size=(320, 401), dtype=np.uint8)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(cxr_png(image)))), image)


def test_png_carries_no_metadata():
    assert Image.open(io.BytesIO(cxr_png(RAMP))).info == {}


def test_data_uri_holds_the_png():
    kind, _, encoded = cxr_data_uri(RAMP).partition(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(encoded) == cxr_png(RAMP)


@pytest.mark.parametrize("image", [np.zeros((4, 4)), np.zeros((4, 4, 3), dtype=np.uint8)])
def test_other_arrays_are_refused(image):
    with pytest.raises(InputError, match="uint8"):
        cxr_png(image)

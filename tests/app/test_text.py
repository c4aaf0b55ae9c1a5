"""Strings from data reach the screen as they are, and do nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.components.text import safe_text

HOSTILE = [
    "![x](http://127.0.0.1:9/x.png)",
    "[click](javascript:alert(1))",
    "<img src=x onerror=alert(1)>",
    "<iframe srcdoc='<script>alert(1)</script>'>",
    "`code` **bold** _it_ ~~no~~ $x^2$ :red[x] :smile:",
    "# heading\n- list\n1. item\n> quote\n---",
    "| a | b |\n|---|---|",
    "http://example.org www.example.org a@example.org",
    "&lt;b&gt; &#33;",
]


def unescape(text: str) -> str:
    """What Markdown shows of text in which only backslash escapes mean anything."""
    shown, characters = [], iter(text)
    for character in characters:
        shown.append(next(characters) if character == "\\" else character)
    return "".join(shown)


@given(st.one_of(st.text(), st.sampled_from(HOSTILE)))
def test_shown_text_is_the_given_text_on_one_line(text):
    expected = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    assert unescape(safe_text(text)) == expected


@given(st.one_of(st.text(), st.sampled_from(HOSTILE)))
def test_every_special_character_is_escaped(text):
    escaped = safe_text(text)
    for position, character in enumerate(escaped):
        if character in "`*_{}[]()#|<>$:~&!@":
            assert escaped[position - 1] == "\\", f"{character!r} in {escaped!r} is not escaped"


@pytest.mark.parametrize("text", ["Creatinine", "age 67", "Bilirubin, Total"])
def test_plain_text_is_left_alone(text):
    assert safe_text(text) == text

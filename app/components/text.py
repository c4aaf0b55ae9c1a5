"""Text that comes from data, made safe for Markdown."""

from __future__ import annotations

import re

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>$:~&@=\"'/])")


def safe_text(text: str) -> str:
    """Text that Markdown shows as it is.

    Streamlit renders Markdown nearly everywhere. A file name such as ``![](http://host/x)`` would otherwise make the
    clinician's browser fetch an address of somebody's choice.

    Args:
        text: any text; line breaks and control characters become spaces.
    """
    one_line = "".join(character if character.isprintable() else " " for character in text)
    return _SPECIAL.sub(r"\\\1", " ".join(one_line.split()))

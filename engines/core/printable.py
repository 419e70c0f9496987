"""Removes escape sequences and control characters from text of engines, models and logs."""

from __future__ import annotations

import re

# ECMA-48: CSI, the strings (OSC, DCS, APC, PM, SOS) up to their end, and the two-byte escapes.
_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x9b[0-?]*[ -/]*[@-~]"
    r"|\x1b[\]PX^_][^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c|$)|\x1b[ -/]*[0-~]?"
)
# C0, DEL, C1, line and paragraph separators, zero-width characters, and characters that change the
# writing direction.
_CONTROLS = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


def printable(text: str) -> str:
    """The text as one line without terminal escapes and control characters, in full length.

    Escape sequences are dropped, other control characters become U+FFFD, tabs become spaces.
    """
    # Most lines contain neither, and a log may have a million lines.
    if not text.isprintable():
        text = _ESCAPES.sub("", text).expandtabs(4)
        text = _CONTROLS.sub("\ufffd", text)
    return text

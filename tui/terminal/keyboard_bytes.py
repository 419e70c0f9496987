"""Decodes the terminal's input: invalid bytes, and reports that are not keys.

Textual 8 decodes strictly, so one byte of another encoding ends its thread and the screen. It
presses a key for each character of an unknown sequence.
"""

from __future__ import annotations

import re
from codecs import getincrementaldecoder

# Mouse reports of terminals without SGR mode: a button and two coordinates, each a byte from 32 on,
# beyond column 95 no UTF-8. We ask for SGR; the old form cannot be distinguished from text.
_OLD_MOUSE = re.compile(rb"\x1b\[M[\x20-\xff]{3}", re.DOTALL)
_OLD_MOUSE_BEGUN = re.compile(rb"\x1b\[M[\x20-\xff]{0,2}\Z", re.DOTALL)
# A control sequence that another one cuts off is none, and holds no keys (ECMA-48, 5.4).
_CUT_OFF = re.compile(r"\x1b\[[0-?]*[ -/]*(?=\x1b)")


class KeyboardBytes:
    """Fed with bytes as they are read; returns the text of what is complete."""

    def __init__(self) -> None:
        self._decode = getincrementaldecoder("utf-8")("replace").decode
        self._held = b""

    def feed(self, data: bytes) -> str:
        """The characters, U+FFFD for what is none."""
        data = _OLD_MOUSE.sub(b"", self._held + data)
        begun = _OLD_MOUSE_BEGUN.search(data)
        self._held = data[begun.start() :] if begun else b""
        return _CUT_OFF.sub("", self._decode(data[: len(data) - len(self._held)]))

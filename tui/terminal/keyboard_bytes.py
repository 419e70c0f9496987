"""Decodes the terminal's input: replaces invalid bytes and drops reports that are not keys.

Textual 8 decodes strictly, so one byte of another encoding ends its thread and the screen. It reads
each character of an unknown sequence as a key.
"""

from __future__ import annotations

import re
from codecs import getincrementaldecoder

# Mouse reports of terminals without SGR mode: a button and two coordinates, each one byte from 32
# on. Beyond column 95 they are not UTF-8. llmtop requests SGR mode; the old form looks like text.
_OLD_MOUSE = re.compile(rb"\x1b\[M[\x20-\xff]{3}", re.DOTALL)
_OLD_MOUSE_BEGUN = re.compile(rb"\x1b\[M[\x20-\xff]{0,2}\Z", re.DOTALL)
# An escape inside a control sequence cancels that sequence, which holds no keys (ECMA-48, 5.4).
_CUT_OFF = re.compile(r"\x1b\[[0-?]*[ -/]*(?=\x1b)")


class KeyboardBytes:
    """Decodes bytes piece by piece; keeps incomplete characters and reports for the next piece."""

    def __init__(self) -> None:
        self._decode = getincrementaldecoder("utf-8")("replace").decode
        self._held = b""

    def feed(self, data: bytes) -> str:
        """The decoded characters, with U+FFFD for invalid bytes."""
        data = _OLD_MOUSE.sub(b"", self._held + data)
        begun = _OLD_MOUSE_BEGUN.search(data)
        self._held = data[begun.start() :] if begun else b""
        return _CUT_OFF.sub("", self._decode(data[: len(data) - len(self._held)]))

"""Text from engines, models, logs, servers and files, made safe to show: the one rule of llmtop.

Such text may hold terminal escapes, control characters, characters that turn the direction of
writing around, invisible ones, and be of any length. Nothing of that reaches a terminal, a file or
a report. What runs inside an engine has the standard library alone, and ``llmtop_live`` bounds its
own words; ``engines.host.safe_text`` also hides secrets.
"""

from __future__ import annotations

import re
import unicodedata

# ECMA-48: whole sequences go, not only their first byte: "\x1b[31m" must not leave "[31m" behind.
# Strings (OSC, DCS, ...) end at BEL or ST; an unterminated one takes the rest, as terminals do.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c|\x1b|$)"
    r"|\x1b[ -/]*[0-~]?"
)
_SPACES = re.compile(r"[\t\r\n\v\f\x85\u2028\u2029]+")
_STACKING = frozenset({"Mn", "Me"})  # drawn over their neighbours, without a limit


def printable(text: str, limit: int | None = None) -> str:
    """The text as one line in which each hostile character is visible as U+FFFD.

    Escape sequences are dropped, tabs become spaces. limit: the most characters that are returned.
    """
    if limit is not None:
        text = text[: 4 * limit]
    # Most lines hold nothing of the kind, and a log may have a million.
    if not text.isprintable():
        text = _ESCAPES.sub("", text).expandtabs(4)
        if not text.isprintable():
            text = "".join(c if _is_shown(c) else "\ufffd" for c in text)
    return text if limit is None else text[:limit]


def clean(text: str, limit: int = 400) -> str:
    """The text as one short line without hostile characters, of at most ``limit`` characters.

    Line breaks and tabs become a space; a character that is drawn over its neighbour is removed
    too. An ellipsis stands for what was cut.
    """
    text = text[: limit * 8]
    if not (text.isascii() and text.isprintable()):
        text = unicodedata.normalize("NFC", _SPACES.sub(" ", _ESCAPES.sub("", text)))
        text = "".join(c for c in text if _is_shown(c) and unicodedata.category(c) not in _STACKING)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def masked(text: str) -> str:
    """The text with a question mark for each hostile character: its length stays the same."""
    return text if text.isprintable() else "".join(c if _is_shown(c) else "?" for c in text)


def _is_shown(character: str) -> bool:
    # Not printable, for Python: control, format (bidi, zero-width, tags), surrogate, private and
    # unassigned characters, and separators. Spaces of other scripts and widths are harmless.
    return character.isprintable() or unicodedata.category(character) == "Zs"

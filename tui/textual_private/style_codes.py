"""Writes styled text to a terminal and sends only the style codes that change.

Textual sends the complete style before each piece of text and resets it after the piece. That is 40
bytes for a cell: 3 bytes of text, 17 bytes of the changed colour, and 20 bytes that are not needed.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from rich.color import ColorSystem
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

_RESET = "\x1b[0m"
_OFF_CODES = {  # SGR code of an attribute -> code that resets it
    "1": "22", "2": "22", "3": "23", "4": "24", "5": "25", "6": "25", "7": "27", "8": "28",
    "9": "29", "21": "24", "51": "54", "52": "54", "53": "55",
}  # fmt: skip
_VISIBLE_ON_BLANKS = frozenset(("4", "7", "9", "21", "51", "52", "53"))
_STYLES = 512  # cached styles; the canvases of a theme have 36


class _Codes(NamedTuple):
    """The style that a terminal is set to: attributes, and the codes of both colours."""

    attributes: frozenset[str]
    text: str
    background: str


_PLAIN = _Codes(frozenset(), "39", "49")


class StyleWriter:
    """Writes one update. Before and after it the terminal has the default style."""

    def __init__(self, color_system: ColorSystem) -> None:
        self._color_system = color_system
        self._now = _PLAIN
        self._out: list[str] = []

    def move(self, codes: str) -> None:
        """Add codes that move the cursor; they must not change the style."""
        self._out.append(codes)

    def write(self, segments: Iterable[Segment]) -> None:
        """Add text at the cursor."""
        for text, style, control in segments:
            if control:
                continue
            if style is not None and style.link:
                self._set(_PLAIN)
                self._out.append(Strip.render_style(style, text, self._color_system))
                continue
            wanted = _PLAIN if style is None else _codes(style, self._color_system)
            now = self._now
            if text.isspace() and not (wanted.attributes | now.attributes) & _VISIBLE_ON_BLANKS:
                # The rest of the style is not visible on blanks.
                wanted = now._replace(background=wanted.background)
            self._set(wanted)
            self._out.append(text)

    def end(self) -> str:
        """Reset the style and return the complete update."""
        if self._now != _PLAIN:
            self._out.append(_RESET)
            self._now = _PLAIN
        return "".join(self._out)

    def _set(self, wanted: _Codes) -> None:
        if wanted is not self._now and wanted != self._now:
            self._out.append(_change(self._now, wanted))
            self._now = wanted


@lru_cache(maxsize=_STYLES)
def _codes(style: Style, color_system: ColorSystem) -> _Codes:
    """The codes of a style, split into attributes, text colour and background colour."""
    codes = Strip.render_ansi(style, color_system).split(";")
    attributes, text, background = set(), _PLAIN.text, _PLAIN.background
    at = 0
    while at < len(codes) and codes[at]:
        code = codes[at]
        parts = 1
        if code in ("38", "48"):
            parts = 5 if codes[at + 1] == "2" else 3
        whole, number = ";".join(codes[at : at + parts]), int(code)
        at += parts
        if 30 <= number <= 39 or 90 <= number <= 97:
            text = whole
        elif 40 <= number <= 49 or 100 <= number <= 107:
            background = whole
        else:
            attributes.add(whole)
    return _Codes(frozenset(attributes), text, background)


@lru_cache(maxsize=_STYLES)
def _change(now: _Codes, wanted: _Codes) -> str:
    """The codes that change the style ``now`` to ``wanted``."""
    if wanted == _PLAIN:
        return _RESET
    off = sorted({_OFF_CODES[one] for one in now.attributes - wanted.attributes})
    # One code can reset two attributes, for example 22 for bold and dim.
    kept = {one for one in now.attributes if _OFF_CODES[one] not in off}
    codes = [*off, *sorted(wanted.attributes - kept)]
    if wanted.text != now.text:
        codes.append(wanted.text)
    if wanted.background != now.background:
        codes.append(wanted.background)
    return f"\x1b[{';'.join(codes)}m"

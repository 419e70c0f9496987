"""Text in the styles of a terminal, written with what differs from the style before it alone.

Textual writes all of a style before each piece of text and takes all of it back behind it: 40 bytes
for a cell, of which the text is 3 and the colour that changed 17.
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
_TAKEN_BACK = {
    "1": "22", "2": "22", "3": "23", "4": "24", "5": "25", "6": "25", "7": "27", "8": "28",
    "9": "29", "21": "24", "51": "54", "52": "54", "53": "55",
}  # fmt: skip
_SEEN_ON_BLANKS = frozenset(("4", "7", "9", "21", "51", "52", "53"))
_STYLES = 512  # the canvases of a theme have 36


class _Codes(NamedTuple):
    """What a terminal is set to: attributes, and the codes of both colours."""

    attributes: frozenset[str]
    text: str
    ground: str


_PLAIN = _Codes(frozenset(), "39", "49")


class StyleWriter:
    """Writes one update; its terminal is plain before and after it."""

    def __init__(self, color_system: ColorSystem) -> None:
        self._color_system = color_system
        self._now = _PLAIN
        self._out: list[str] = []

    def move(self, codes: str) -> None:
        """Codes that move the cursor; they change no style."""
        self._out.append(codes)

    def write(self, segments: Iterable[Segment]) -> None:
        """Text at the cursor."""
        for text, style, control in segments:
            if control:
                continue
            if style is not None and style.link:
                self._set(_PLAIN)
                self._out.append(Strip.render_style(style, text, self._color_system))
                continue
            wanted = _PLAIN if style is None else _codes(style, self._color_system)
            now = self._now
            if text.isspace() and not (wanted.attributes | now.attributes) & _SEEN_ON_BLANKS:
                wanted = now._replace(ground=wanted.ground)  # the rest is not seen on blanks
            self._set(wanted)
            self._out.append(text)

    def end(self) -> str:
        """All of it."""
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
    """A style's codes, sorted by what they set."""
    codes = Strip.render_ansi(style, color_system).split(";")
    attributes, text, ground = set(), _PLAIN.text, _PLAIN.ground
    at = 0
    while at < len(codes) and codes[at]:
        code = codes[at]
        cells = 1
        if code in ("38", "48"):
            cells = 5 if codes[at + 1] == "2" else 3
        whole, number = ";".join(codes[at : at + cells]), int(code)
        at += cells
        if 30 <= number <= 39 or 90 <= number <= 97:
            text = whole
        elif 40 <= number <= 49 or 100 <= number <= 107:
            ground = whole
        else:
            attributes.add(whole)
    return _Codes(frozenset(attributes), text, ground)


@lru_cache(maxsize=_STYLES)
def _change(now: _Codes, wanted: _Codes) -> str:
    """What makes one of the other."""
    if wanted == _PLAIN:
        return _RESET
    back = sorted({_TAKEN_BACK[one] for one in now.attributes - wanted.attributes})
    # Two attributes have one code that takes both back.
    kept = {one for one in now.attributes if _TAKEN_BACK[one] not in back}
    codes = [*back, *sorted(wanted.attributes - kept)]
    if wanted.text != now.text:
        codes.append(wanted.text)
    if wanted.ground != now.ground:
        codes.append(wanted.ground)
    return f"\x1b[{';'.join(codes)}m"

"""Separates pasted text from keys before keys are parsed.

Textual 8 parses keys in a bracketed paste: ``ESC [31m`` presses five keys, and so does much of the
following text, so text copied from a coloured log could stop an engine. It also takes minutes,
while this module only searches for one mark.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from llmtop.printable import clean

BEGIN, END = "\x1b[200~", "\x1b[201~"
KEPT = 4096  # characters of one paste; every line that is typed into is far shorter
BURST = 200  # characters in one read without an escape: faster than typing
_SURE = 2  # characters of a split mark; a single one may be the escape key, which must not wait


def typed_line(text: str) -> str:
    """The part of pasted text that a line field accepts: its first line with text.

    Terminals send a carriage return for the end of a line, as the enter key does.
    """
    lines = (clean(line, KEPT) for line in re.split("[\r\n]+", text))
    return next((line for line in lines if line.strip()), "")


class Pastes:
    """Processes the terminal's input, piece by piece."""

    def __init__(self) -> None:
        self._bursting = False
        self._held = ""  # the beginning of a mark
        self._pasted: str | None = None

    @property
    def waits(self) -> bool:
        """Whether text is held back until more arrives; ``flush`` returns it."""
        return self._pasted is None and bool(self._held)

    def feed(self, text: str, *, at_once: bool = False) -> Iterator[tuple[bool, str]]:
        """The parts of a piece: (False, keys) or (True, a paste).

        Consoles and old multiplexers do not mark pastes. There a long piece counts as a paste, and
        so do pieces that follow it at once.
        """
        if self._pasted is None and not self._held:
            bare = "\x1b" not in text
            self._bursting = bare and (len(text) >= BURST or (self._bursting and at_once))
            if self._bursting:
                yield True, text[:KEPT]
                return
        text, self._held = self._held + text, ""
        while text:
            mark = BEGIN if self._pasted is None else END
            before, found, text = text.partition(mark)
            if not found:
                least = _SURE if self._pasted is None else 1
                cut = _cut(before, mark, least)
                before, self._held = before[: len(before) - cut], before[len(before) - cut :]
            if self._pasted is None:
                if before:
                    yield False, before
                self._pasted = "" if found else None
            else:
                self._pasted += before[: KEPT - len(self._pasted)]
                if found:
                    yield True, self._pasted
                    self._pasted = None

    def flush(self) -> str:
        """The text that was held back and is not a mark."""
        held, self._held = self._held, ""
        return held


def _cut(text: str, mark: str, least: int) -> int:
    """The number of characters at the end that are the beginning of the mark."""
    longest = min(len(text), len(mark) - 1)
    return next((n for n in range(longest, least - 1, -1) if text.endswith(mark[:n])), 0)

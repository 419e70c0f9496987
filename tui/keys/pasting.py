"""Separates pasted text from keys before keys are parsed.

Textual 8 parses keys inside a bracketed paste. It reads ``ESC [31m`` as five keys, and much of the
following text as keys too, so text copied from a coloured log could stop an engine. That parsing
can also take minutes; this module only searches for the end mark.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from llmtop.printable import clean

BEGIN, END = "\x1b[200~", "\x1b[201~"
KEPT = 4096  # characters of one paste; every text field is far shorter
BURST = 200  # characters in one read without an escape: nobody types so fast
_SURE = 2  # fewest characters of a split mark; a single escape may be a key and must not wait


def typed_line(text: str) -> str:
    """The part of pasted text that a line field accepts: its first line with text.

    Terminals send a carriage return for the end of a line, as the enter key does.
    """
    lines = (clean(line, KEPT) for line in re.split("[\r\n]+", text))
    return next((line for line in lines if line.strip()), "")


class Pastes:
    """Separates pastes from keys in the terminal's input, which arrives in pieces."""

    def __init__(self) -> None:
        self._bursting = False
        self._held = ""  # the incomplete mark at the end of the input
        self._pasted: str | None = None

    @property
    def waits(self) -> bool:
        """Whether text is held back until more arrives; ``flush`` returns it."""
        return self._pasted is None and bool(self._held)

    def feed(self, text: str, *, at_once: bool = False) -> Iterator[tuple[bool, str]]:
        """The parts of a piece: (False, keys) or (True, a paste).

        Consoles and old multiplexers do not mark pastes. There a long piece counts as a paste, and
        so do pieces that follow it at once. at_once: this piece follows the last one at once.
        """
        if self._pasted is None and not self._held:
            unmarked = "\x1b" not in text
            self._bursting = unmarked and (len(text) >= BURST or (self._bursting and at_once))
            if self._bursting:
                yield True, text[:KEPT]
                return
        text, self._held = self._held + text, ""
        while text:
            mark = BEGIN if self._pasted is None else END
            before, found, text = text.partition(mark)
            if not found:
                least = _SURE if self._pasted is None else 1
                cut = _mark_start_size(before, mark, least)
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
        """Return the text that was held back; it is not a mark."""
        held, self._held = self._held, ""
        return held


def _mark_start_size(text: str, mark: str, least: int) -> int:
    """The number of characters at the end that are the beginning of the mark."""
    longest = min(len(text), len(mark) - 1)
    return next((n for n in range(longest, least - 1, -1) if text.endswith(mark[:n])), 0)

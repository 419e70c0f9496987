"""Pasted text distinguished from keys, before anything is looked for in it.

Textual 8 looks for keys in it: of ``ESC [31m`` in a bracketed paste five keys are pressed, and so
is much of what follows, so that text copied from a coloured log could stop an engine. It also takes
minutes for what is here a search for one mark.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from llmtop.printable import clean

BEGIN, END = "\x1b[200~", "\x1b[201~"
KEPT = 4096  # characters of one paste; every line that is typed into is far shorter
BURST = 200  # characters in one read, with no escape among them: nobody types so
_SURE = 2  # of a mark that is cut in two; one may be the escape key, which must not wait


def typed_line(text: str) -> str:
    """What is typed of pasted text into a line: its first line that says something.

    Terminals send a carriage return for the end of a line, as the enter key does.
    """
    lines = (clean(line, KEPT) for line in re.split("[\r\n]+", text))
    return next((line for line in lines if line.strip()), "")


class Pastes:
    """Fed with what the terminal sends, piece by piece."""

    def __init__(self) -> None:
        self._bursting = False
        self._held = ""  # the beginning of a mark
        self._pasted: str | None = None

    @property
    def waits(self) -> bool:
        """Whether something is held back for what follows it; ``flush`` gives it up."""
        return self._pasted is None and bool(self._held)

    def feed(self, text: str, *, at_once: bool = False) -> Iterator[tuple[bool, str]]:
        """What it holds: (False, keys), (True, a paste).

        Consoles and old multiplexers put no marks around what is pasted. There a paste is told by
        how much comes at a time, and goes on in what comes at_once after that.
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
        """What was held back, and was no mark after all."""
        held, self._held = self._held, ""
        return held


def _cut(text: str, mark: str, least: int) -> int:
    """How many characters at the end are the beginning of the mark."""
    longest = min(len(text), len(mark) - 1)
    return next((n for n in range(longest, least - 1, -1) if text.endswith(mark[:n])), 0)

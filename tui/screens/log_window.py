"""The state of a log view: the lines that are kept, those that are shown, and the position. Pure.

Lines have numbers in the order of arrival. So a position stays valid when old lines are dropped.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable
from enum import IntEnum

from msgspec import Struct

KEEP_LINES = 20_000
KEEP_CHARS = 4 * 2**20  # the bound for a log of long lines

_ERROR = re.compile(r"\b(ERROR|CRITICAL|FATAL)\b|^[\w.]*(Error|Exception)\b|^\s*Traceback \(")
_WARNING = re.compile(r"\bWARN(ING)?\b|^[\w.]*Warning\b")
_HEAD = 100  # characters: the level is at the start; later in the line it may be other text


class Level(IntEnum):
    """The severity of a line."""

    PLAIN = 0
    WARNING = 1
    ERROR = 2


class Line(Struct, frozen=True):
    """One line. number: counted from 0 since the log was opened."""

    number: int
    text: str
    level: Level


class LogView:
    """Lines kept, filtered and searched.

    least: lines below this level are not shown. end: the number after that of the last line on
    screen, None while it follows new lines. needle: the search text, "" for none.
    """

    def __init__(self, keep_lines: int = KEEP_LINES, keep_chars: int = KEEP_CHARS) -> None:
        self.least = Level.PLAIN
        self.end: int | None = None
        self.needle = ""
        self.dropped = 0  # lines that are no longer kept
        self._keep_lines, self._keep_chars = keep_lines, keep_chars
        self._lines: deque[Line] = deque()
        self._shown: deque[Line] = deque()
        self._hits: list[int] = []
        self._chars = 0
        self._next = 0
        self._in_traceback = False

    def add(self, texts: Iterable[str]) -> None:
        """Add new lines at the end. The oldest are dropped if there are too many."""
        for text in texts:
            line = Line(self._next, text, self._level(text))
            self._next += 1
            self._lines.append(line)
            self._chars += len(text)
            if line.level >= self.least:
                self._shown.append(line)
                if self._hit(line):
                    self._hits.append(line.number)
        while self._lines and (
            len(self._lines) > self._keep_lines or self._chars > self._keep_chars
        ):
            self._chars -= len(self._lines.popleft().text)
            self.dropped += 1
        first = self._lines[0].number if self._lines else self._next
        while self._shown and self._shown[0].number < first:
            self._shown.popleft()
        if self._hits and self._hits[0] < first:
            del self._hits[: bisect_left(self._hits, first)]

    @property
    def count(self) -> int:
        """The number of lines that pass the filter."""
        return len(self._shown)

    @property
    def kept(self) -> int:
        """The number of lines that are kept."""
        return len(self._lines)

    def window(self, room: int) -> list[Line]:
        """The ``room`` lines that are on screen now."""
        shown = self._shown
        if self.end is None:
            last = len(shown)
        else:
            last = min(len(shown), max(min(room, len(shown)), self._rows_before(self.end)))
            self.end = shown[last - 1].number + 1 if last else self.end
        return [shown[at] for at in range(max(0, last - room), last)]

    @property
    def below(self) -> int:
        """The number of shown lines below the screen."""
        return 0 if self.end is None else len(self._shown) - self._rows_before(self.end)

    def scroll(self, by: int, room: int) -> None:
        """Scroll up (positive) or down. At the last line it follows new lines again."""
        last = len(self._shown) if self.end is None else self._rows_before(self.end)
        last = max(min(room, len(self._shown)), min(len(self._shown), last - by))
        self._set_end(last, follow=by < 0)

    def follow(self, on: bool) -> None:
        """Follow new lines, or stop that."""
        self.end = None if on else (self._shown[-1].number + 1 if self._shown else self._next)

    def show(self, least: Level) -> None:
        """Set the filter. The position changes as little as possible."""
        self.least = least
        self._shown = deque(line for line in self._lines if line.level >= least)
        self.search(self.needle)

    def search(self, needle: str) -> None:
        """Set the search text."""
        self.needle = needle
        self._hits = [line.number for line in self._shown if self._hit(line)]

    @property
    def hits(self) -> int:
        """The number of shown lines that contain the search text."""
        return len(self._hits)

    def jump(self, forward: bool, at: int | None) -> int | None:
        """The number of the next hit after line ``at``, or before it; None without hits.

        After the last hit comes the first one. at: None gives the first or the last hit.
        """
        if not self._hits:
            return None
        if at is None:
            return self._hits[0 if forward else -1]
        if forward:
            return self._hits[bisect_right(self._hits, at) % len(self._hits)]
        return self._hits[bisect_left(self._hits, at) - 1]

    def hit_number(self, number: int | None) -> int:
        """The position of a line among the hits, from 1; 0 if it is no hit."""
        if number is None:
            return 0
        at = bisect_left(self._hits, number)
        return at + 1 if at < len(self._hits) and self._hits[at] == number else 0

    def first_error(self) -> int | None:
        """The number of the first error of the kept lines; None if there is none."""
        return next((line.number for line in self._lines if line.level is Level.ERROR), None)

    def scroll_to(self, number: int, room: int) -> None:
        """Scroll so that a line is visible, at a third of the screen."""
        at = self._rows_before(number)
        first = max(0, at - room // 3)
        self._set_end(min(len(self._shown), max(first + room, min(room, len(self._shown)))))

    def spans(self, text: str) -> list[tuple[int, int]]:
        """The places of the search text in a line, (from, to) in characters."""
        if not self.needle:
            return []
        inside, needle = self._cased(text), self.needle
        found, at = [], inside.find(needle)
        while at >= 0:
            found.append((at, at + len(needle)))
            at = inside.find(needle, at + len(needle))
        return found

    def _set_end(self, last: int, follow: bool = False) -> None:
        if follow and last >= len(self._shown):
            self.end = None
        elif last:
            self.end = self._shown[last - 1].number + 1

    def _rows_before(self, end: int) -> int:
        """The number of shown lines before the line with the number ``end``."""
        return bisect_left(self._shown, end, key=lambda line: line.number)

    def _hit(self, line: Line) -> bool:
        return bool(self.needle) and self.needle in self._cased(line.text)

    def _cased(self, text: str) -> str:
        """The text as it is searched. Case counts only if the search text has capitals.

        ``casefold`` would change the length of the text, and so the places of hits.
        """
        if self.needle != self.needle.lower():
            return text
        lower = text.lower()
        return lower if len(lower) == len(text) else text

    def _level(self, text: str) -> Level:
        """The level of a line. All lines of a traceback are errors."""
        head = text[:_HEAD]
        if _ERROR.search(head):
            self._in_traceback = "Traceback (" in head
            return Level.ERROR
        if self._in_traceback and (head.startswith((" ", "\t")) or not head.strip()):
            return Level.ERROR
        self._in_traceback = False
        return Level.WARNING if _WARNING.search(head) else Level.PLAIN

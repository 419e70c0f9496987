"""Events: what happened, the newest first."""

from __future__ import annotations

import textwrap

from llmtop.tui.store.store import Event
from llmtop.tui.view.panel import Panel
from llmtop.tui.view.view import View
from llmtop.tui.widgets.frame import frame
from llmtop.tui.widgets.row import MUTED, STRONG, TEXT, Row, Span, whole_parts
from llmtop.wording import format as f

ROLE = {
    "info": TEXT,
    "change": "mark",
    "effect": STRONG,
    "state": STRONG,
    "warning": "warn",
    "error": "bad",
}
CLOCK = 10  # cells of the time before an event
ROWS = 4  # of one event, at most


class EventsPanel(Panel):
    """A box of lines; with fewer than three rows, lines without a box."""

    def draw(self, view: View, width: int, height: int) -> list[Row]:
        """As many events as fit."""
        bare = height < 3
        room = height if bare else height - 2
        cells = width if bare else width - 2
        shown: list[list[Row]] = []
        spare = room
        for event in reversed(view.store.events):
            if spare <= 0:
                break
            shown.append(_lines(event, view, cells, spare))
            spare -= len(shown[-1])
        for number, event in enumerate(list(reversed(view.store.events))[: len(shown)]):
            # The remaining rows go to the events that one row would cut, the newest first.
            whole = _whole(event, view, cells)
            if 0 < len(whole) - len(shown[number]) <= spare:
                spare -= len(whole) - len(shown[number])
                shown[number] = whole
        rows = [row for lines in shown for row in lines]
        if not rows:
            rows = [((" nothing yet", MUTED),)]
        return rows if bare else frame(rows, width, height, view.glyphs, title="events")

    def shows(self, event: Event, view: View) -> bool:
        """Whether one row of this panel has room for the whole text of an event."""
        cells = self.size.width if self.size.height < 3 else self.size.width - 2
        return _lines(event, view, cells, 1) == _lines(event, view, 10_000, 1)


def _whole(event: Event, view: View, cells: int) -> list[Row]:
    """An event without parts in as many rows as it needs, broken between words."""
    rows = _lines(event, view, cells, 1)
    if event.parts:
        return rows
    (stamp, (_, role)), later = rows[0], (" " * CLOCK, MUTED)
    words = _lines(event, view, 10_000, 1)[0][1][0]
    lines = textwrap.wrap(words, max(10, cells - CLOCK - 1))[:ROWS]
    return [(later if number else stamp, (line, role)) for number, line in enumerate(lines)]


def _lines(event: Event, view: View, cells: int, room: int) -> list[Row]:
    """An event in one row. One with parts has as many rows as it needs, broken between parts."""
    role = ROLE.get(event.level, TEXT)
    stamp: Span = (f" {f.clock(event.time, view.zone)} ", MUTED)
    later: Span = (" " * CLOCK, MUTED)
    glyph = f"{view.glyphs.up} " if event.level in ("warning", "error") else ""
    if not event.parts:
        return [(stamp, (whole_parts(f.clean(glyph + event.text), cells - CLOCK - 1), role))]
    gap = f" {view.glyphs.dot} "
    lines: list[str] = []
    for part in (f.clean(part) for part in (glyph + event.parts[0], *event.parts[1:])):
        if lines and len(lines[-1]) + len(gap) + len(part) < cells - CLOCK:
            lines[-1] += gap + part
        else:
            lines += textwrap.wrap(part, max(10, cells - CLOCK - 1))
    return [
        (later if number else stamp, (line, role))
        for number, line in enumerate(lines[: min(room, ROWS)])
    ]

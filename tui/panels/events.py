"""Events: what happened, the newest first, so that it stands where the eye already is."""

from __future__ import annotations

from llmtop.tui import format as f
from llmtop.tui.panels.panel import Panel
from llmtop.tui.panels.view import View
from llmtop.tui.store import Event
from llmtop.tui.widgets.frame import frame
from llmtop.tui.widgets.row import MUTED, STRONG, TEXT, Row, Span, shorten_between

ROLE = {"info": TEXT, "change": "mark", "effect": STRONG, "warning": "warn", "error": "bad"}
CLOCK = 10  # cells of the time before an event
ROWS = 4  # of one event at most


class EventsPanel(Panel):
    """A box of lines; with fewer than three rows, bare lines."""

    def draw(self, view: View, width: int, height: int) -> list[Row]:
        """As many events as there is room for."""
        bare = height < 3
        room = height if bare else height - 2
        cells = width if bare else width - 2
        rows: list[Row] = []
        for event in reversed(view.store.events):
            if len(rows) >= room:
                break
            rows += _lines(event, view, cells, room - len(rows))
        if not rows:
            rows = [((" nothing yet", MUTED),)]
        return rows if bare else frame(rows, width, height, view.glyphs, title="events")

    def shows(self, event: Event, view: View) -> bool:
        """Whether an event's line has room here for all of its words."""
        cells = self.size.width if self.size.height < 3 else self.size.width - 2
        return _lines(event, view, cells, 1) == _lines(event, view, 10_000, 1)


def _lines(event: Event, view: View, cells: int, room: int) -> list[Row]:
    """An event in one row; one in pieces in as many as they need, none of them torn."""
    role = ROLE.get(event.level, TEXT)
    stamp: Span = (f" {f.clock(event.time, view.zone)} ", MUTED)
    later: Span = (" " * CLOCK, MUTED)
    if not event.parts:
        glyph = f"{view.glyphs.up} " if event.level in ("warning", "error") else ""
        return [(stamp, (shorten_between(f.clean(glyph + event.text), cells - CLOCK - 1), role))]
    gap = f" {view.glyphs.dot} "
    lines: list[str] = []
    for part in (f.clean(part) for part in event.parts):
        if lines and len(lines[-1]) + len(gap) + len(part) < cells - CLOCK:
            lines[-1] += gap + part
        else:
            lines.append(part)
    return [
        (later if number else stamp, (shorten_between(line, cells - CLOCK - 1), role))
        for number, line in enumerate(lines[: min(room, ROWS)])
    ]

"""Events: what happened, the newest first, so that it stands where the eye already is."""

from __future__ import annotations

from itertools import islice

from llmtop.tui import format as f
from llmtop.tui.panels.panel import Panel
from llmtop.tui.panels.view import View
from llmtop.tui.store import Event
from llmtop.tui.widgets.frame import frame
from llmtop.tui.widgets.row import MUTED, TEXT, Row, Span, shorten

ROLE = {"info": TEXT, "change": "mark", "warning": "warn", "error": "bad"}


class EventsPanel(Panel):
    """A box of lines; with fewer than three rows, bare lines."""

    def draw(self, view: View, width: int, height: int) -> list[Row]:
        """As many events as there is room for."""
        bare = height < 3
        room = height if bare else height - 2
        cells = width if bare else width - 2
        events = list(islice(reversed(view.store.events), room))
        rows: list[Row] = [tuple(_line(event, view, cells)) for event in events]
        if not rows:
            rows = [((" nothing yet", MUTED),)]
        return rows if bare else frame(rows, width, height, view.glyphs, title="events")

    def shows(self, event: Event, view: View) -> bool:
        """Whether an event's line has room here for all of its words."""
        cells = self.size.width if self.size.height < 3 else self.size.width - 2
        return _line(event, view, cells) == _line(event, view, 10_000)


def _line(event: Event, view: View, cells: int) -> list[Span]:
    glyph = f"{view.glyphs.up} " if event.level in ("warning", "error") else ""
    text = shorten(f.clean(glyph + event.text), cells - 11)
    return [(f" {f.clock(event.time, view.zone)} ", MUTED), (text, ROLE.get(event.level, TEXT))]

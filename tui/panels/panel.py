"""A panel: a canvas that draws a view, and survives its own bugs."""

from __future__ import annotations

from llmtop.tui.panels.view import View
from llmtop.tui.widgets.canvas import Canvas
from llmtop.tui.widgets.row import Row, fit


class Panel(Canvas):
    """A part of the dashboard. Subclasses draw; ``show`` puts on screen what they drew."""

    def draw(self, view: View, width: int, height: int) -> list[Row]:
        """At most ``height`` rows of at most ``width`` cells."""
        raise NotImplementedError

    def show(self, view: View) -> None:
        """Draw and put. A panel that raises is blank but for a note; the others go on."""
        width, height = self.size
        if not width or not height:
            return
        try:
            rows = self.draw(view, width, height)
        except Exception as error:  # a bug in one panel must not take the screen down
            rows = [fit([(f" ! {self.id}: {type(error).__name__}", "bad")], width)]
        self.put(rows, view.glyphs)

"""A panel: a canvas that draws a view, and survives its own bugs."""

from __future__ import annotations

from textual.events import Resize

from llmtop.tui.view.view import View
from llmtop.tui.widgets.canvas import Canvas
from llmtop.tui.widgets.row import Row, fit


class Panel(Canvas):
    """A part of the dashboard. Subclasses draw; ``show`` puts on screen what they drew."""

    view: View | None = None  # the last one shown, for a size that comes between two beats

    def draw(self, view: View, width: int, height: int) -> list[Row]:
        """At most ``height`` rows of at most ``width`` cells."""
        raise NotImplementedError

    def show(self, view: View) -> None:
        """Draw and put. A panel that raises is blank except for a note; the others continue."""
        self.view = view
        width, height = self.outer_size  # not ``size``: see Canvas.put
        if not width or not height:
            return
        try:
            rows = self.draw(view, width, height)
        except Exception as error:  # a bug in one panel must not take the screen down
            rows = [fit([(f" ! {self.id}: {type(error).__name__}", "bad")], width)]
        self.put(rows, view.glyphs)

    def on_resize(self, event: Resize) -> None:
        """Another size: draw the same facts again."""
        if self.view is not None:
            self.show(self.view)

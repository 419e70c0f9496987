"""The base class of panels: a canvas that draws a view. An error blanks only its own panel."""

from __future__ import annotations

from textual.events import Resize

from llmtop.tui.view.view import View
from llmtop.tui.widgets.canvas import Canvas
from llmtop.tui.widgets.row import Row, fit


class Panel(Canvas):
    """A part of the dashboard. Subclasses implement ``draw``; ``show`` puts it on the screen."""

    view: View | None = None  # the last view, to draw again after a resize

    def draw(self, view: View, width: int, height: int) -> list[Row]:
        """At most ``height`` rows of at most ``width`` cells."""
        raise NotImplementedError

    def show(self, view: View) -> None:
        """Draw the panel. If ``draw`` raises, show the name of the error instead."""
        self.view = view
        width, height = self.outer_size  # not ``size``: see Canvas.put
        if not width or not height:
            return
        try:
            rows = self.draw(view, width, height)
        except Exception as error:  # an error in one panel must not end the screen
            rows = [fit([(f" ! {self.id}: {type(error).__name__}", "bad")], width)]
        self.put(rows, view.glyphs)

    def on_resize(self, event: Resize) -> None:
        """Draw the last view in the new size."""
        if self.view is not None:
            self.show(self.view)

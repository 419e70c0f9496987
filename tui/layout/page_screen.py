"""The base class of screens with one page on one canvas."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.events import Resize

from llmtop.tui.commands.control import Control
from llmtop.tui.layout.arrangement import SMALLEST
from llmtop.tui.layout.periodic_screen import PeriodicScreen
from llmtop.tui.view.page import small_rows
from llmtop.tui.view.view import View
from llmtop.tui.widgets.canvas import Canvas
from llmtop.tui.widgets.row import Row, fit


class PageScreen(PeriodicScreen):
    """A screen that draws one page at each beat. Subclasses implement ``page``.

    make_view: makes the view of this moment. beat_s: seconds between two paints.
    """

    NAME: ClassVar[str] = ""

    def __init__(self, make_view: Callable[[], View], control: Control, beat_s: float) -> None:
        super().__init__(beat_s)
        self._make_view = make_view
        self._control = control

    def page(self, view: View, width: int, height: int) -> list[Row]:
        """The whole screen: ``height`` rows of ``width`` cells."""
        raise NotImplementedError

    def follow(self, view: View) -> None:
        """Update the screen's own state from the view. Called before each painting."""

    def compose(self) -> ComposeResult:
        """One canvas."""
        yield Canvas(id="page")

    def on_mount(self) -> None:
        """Start to paint."""
        self.begin_redraws()
        self.call_after_refresh(self.redraw)

    def on_resize(self, event: Resize) -> None:
        """Paint in the new size."""
        self.call_after_refresh(self.redraw)

    def redraw(self) -> None:
        """Read the store and paint the changes."""
        if not self.is_mounted or not self.is_seen or self.away:
            return
        view, canvas = self._make_view(), self.query_one(Canvas)
        width, height = canvas.size
        if not width or not height:
            return
        self.follow(view)
        small = width < SMALLEST[0] or height < SMALLEST[1]
        try:
            rows = small_rows(width, height) if small else self.page(view, width, height)
        except Exception as error:  # an error in a page must not end the screen
            rows = [fit([(f" ! {self.NAME}: {type(error).__name__}", "bad")], width)]
        canvas.put(rows, view.glyphs)

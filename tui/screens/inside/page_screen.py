"""A screen with one page on one canvas, painted on a beat."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.events import Resize

from llmtop.config.key_table import BY_ID
from llmtop.tui.commands.control import Control, refusal
from llmtop.tui.layout.arrangement import SMALLEST
from llmtop.tui.layout.periodic_screen import PeriodicScreen
from llmtop.tui.panels.startup import small_rows
from llmtop.tui.view.elsewhere import CLOSED
from llmtop.tui.view.page import keys_row
from llmtop.tui.view.view import View
from llmtop.tui.widgets.canvas import Canvas
from llmtop.tui.widgets.row import Row, fit
from llmtop.wording import format as f


class PageScreen(PeriodicScreen):
    """Subclasses draw ``page`` in ``height`` rows of ``width`` cells."""

    NAME: ClassVar[str] = ""

    def __init__(self, look: Callable[[], View], control: Control, beat_s: float) -> None:
        super().__init__(beat_s)
        self._make_view = look
        self._control = control

    def page(self, view: View, width: int, height: int) -> list[Row]:
        """The whole screen."""
        raise NotImplementedError

    def compose(self) -> ComposeResult:
        """One canvas."""
        yield Canvas(id="page")

    def on_mount(self) -> None:
        """Begin the beat."""
        self.begin_redraws()
        self.call_after_refresh(self.redraw)

    def on_resize(self, event: Resize) -> None:
        """Paint again."""
        self.call_after_refresh(self.redraw)

    def redraw(self) -> None:
        """One look at the store; the cells that changed are painted."""
        if not self.is_mounted or not self.is_seen or self.away:
            return
        view, canvas = self._make_view(), self.query_one(Canvas)
        width, height = canvas.size
        if not width or not height:
            return
        small = width < SMALLEST[0] or height < SMALLEST[1]
        try:
            rows = small_rows(width, height) if small else self.page(view, width, height)
        except Exception as error:  # a bug here must not take the screen down
            rows = [fit([(f" ! {self.NAME}: {type(error).__name__}", "bad")], width)]
        canvas.put(rows, view.glyphs)

    def action_back(self) -> None:
        """To the dashboard."""
        self.app.pop_screen()

    def say(self, error: Exception) -> None:
        """What went wrong with a command, as a toast."""
        self.notify(f.clean(refusal(error)), severity="error", markup=False)


def foot(names: list[str], view: View, width: int) -> Row:
    """The last line: keys and their words, by the names of their commands."""
    shown = [name for name in names if not (view.readonly and BY_ID[name].changes)]
    shown = [name for name in shown if not (view.elsewhere and name in CLOSED)]
    return keys_row([(view.keys.label(name), BY_ID[name].short) for name in shown], width)


def filled(rows: list[Row], last: Row, height: int) -> list[Row]:
    """Rows and a last line, with what is missing to the height between them."""
    body = rows[: height - 1]
    return [*body, *([()] * (height - 1 - len(body))), last]

"""A question in a box in the middle of the screen, answered by a key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from textual.app import ComposeResult
from textual.events import Resize
from textual.screen import ModalScreen

from llmtop.tui.panels.memory import held_words
from llmtop.tui.store.store import EngineTrack
from llmtop.tui.textual_private.compositor import TightScreen
from llmtop.tui.view.view import View
from llmtop.tui.widgets.canvas import Canvas
from llmtop.tui.widgets.frame import frame
from llmtop.tui.widgets.row import MUTED, STRONG, TEXT, Row, Span, join, shorten
from llmtop.wording import format as f

Answer = TypeVar("Answer")
WIDTH = 66


class Question(ModalScreen[Answer], TightScreen, Generic[Answer]):
    """A dialog that returns an answer. Subclasses draw ``rows``, which are redrawn regularly.

    make_view: makes the view of this moment.
    """

    title_words = ""

    def __init__(self, make_view: Callable[[], View]) -> None:
        super().__init__()
        self._make_view = make_view
        self._view = make_view()

    def rows(self, cells: int) -> list[Row]:
        """The content of the box, in rows of ``cells`` cells."""
        raise NotImplementedError

    def compose(self) -> ComposeResult:
        """One canvas in the middle of the screen."""
        yield Canvas(id="question")

    def on_mount(self) -> None:
        """Set the size, paint when the size is known, and then at each interval."""
        self._fit()
        self.set_interval(self._view.interval, self.redraw)

    def on_resize(self, event: Resize) -> None:
        """Fit the box to the new size of the terminal."""
        self._fit()

    def redraw(self) -> None:
        """Paint the question with the current numbers."""
        if not self.is_mounted or not self.is_seen:
            return
        self._view = self._make_view()
        if self._height() != self.query_one(Canvas).outer_size.height:
            self._fit()
        else:
            self._paint()

    def _height(self) -> int:
        width, height = self.app.size
        return min(len(self.rows(min(WIDTH, width) - 2)) + 2, height)

    def _fit(self) -> None:
        canvas = self.query_one(Canvas)
        canvas.styles.width = min(WIDTH, self.app.size.width)
        canvas.styles.height = self._height()
        self.call_after_refresh(self._paint)

    def _paint(self) -> None:
        canvas = self.query_one(Canvas)
        width, height = canvas.size
        body = self.rows(width - 2)
        box = frame(body, width, height, self._view.glyphs, title=self.title_words, lit=True)
        canvas.put(box, self._view.glyphs)

    def choice(self, command: str, words: str, cells: int) -> list[Row]:
        """Rows for a key and what it does. Text after a semicolon has a row of its own."""
        keys = self._view.keys
        label = keys.label(command)
        column = 3 + max(7, len(label) + 2)
        first, _, rest = words.partition("; ")
        key = f"   {label}".ljust(column)
        rows: list[Row] = [((key, "key"), (shorten(first, cells - column - 1), TEXT))]
        if rest:
            rows.append(((" " * column + shorten(rest, cells - column - 1), MUTED),))
        return rows


def identity(engine: EngineTrack, view: View, cells: int) -> list[Row]:
    """The engine's identity, to avoid a mix-up: name, pid, port, GPU memory."""
    record = engine.status.record if engine.status else None
    name: list[Span] = [("   ", TEXT), (shorten(f.clean(engine.name, 60), cells - 4), STRONG)]
    if record is None:
        return [tuple(name)]
    facts = join(
        [
            (0, [("pid ", MUTED), (str(record.pid), TEXT)]),
            (1, [("port ", MUTED), (str(record.spec.port), TEXT)]),
            (2, [("GPU memory ", MUTED), (held_words(engine, view), TEXT)]),
        ],
        cells - 4,
    )
    return [tuple(name), (("   ", TEXT), *facts)]

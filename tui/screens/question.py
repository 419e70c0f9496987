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
    """Subclasses say what is asked: ``rows`` in so many cells. Its numbers are those of now.

    look: the view of this moment.
    """

    title_words = ""

    def __init__(self, look: Callable[[], View]) -> None:
        super().__init__()
        self._look = look
        self._view = look()

    def rows(self, cells: int) -> list[Row]:
        """What stands in the box."""
        raise NotImplementedError

    def compose(self) -> ComposeResult:
        """A box in the middle."""
        yield Canvas(id="question")

    def on_mount(self) -> None:
        """Size it, paint once there is a size, and then with each beat."""
        self._fit()
        self.set_interval(self._view.interval, self.redraw)

    def on_resize(self, event: Resize) -> None:
        """Another terminal, another size."""
        self._fit()

    def redraw(self) -> None:
        """The same question, with the numbers of now."""
        if not self.is_mounted or not self.is_seen:
            return
        self._view = self._look()
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

    def way(self, command: str, words: str, cells: int) -> list[Row]:
        """A key and what it does; what comes after a semicolon is on a line of its own."""
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

"""The question before a restart: what it will cost, in place or rolling."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen

from llmtop.tui.widgets.canvas import Canvas
from llmtop.tui.widgets.frame import frame
from llmtop.tui.widgets.glyphs import Glyphs
from llmtop.tui.widgets.row import MUTED, STRONG, TEXT, Row, shorten

WIDTH = 66


class RestartScreen(ModalScreen[str | None]):
    """Answers "restart", "rolling", or None: leave it as it is.

    change: what is asked for, in words. cost, rolling: what either way costs, in words; rolling is
    "" where there is no room for a second engine. Enter is no answer: it was just typed behind
    the value, and may have been typed twice.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer('restart')", "restart it", id="restart.yes"),
        Binding("r", "answer('rolling')", "rolling", id="restart.rolling"),
        Binding("escape,n,q", "leave", "leave it", id="restart.no"),
    ]

    def __init__(self, engine: str, change: str, cost: str, rolling: str, glyphs: Glyphs) -> None:
        super().__init__()
        self._engine, self._change = engine, change
        self._cost, self._rolling = cost, rolling
        self._glyphs = glyphs

    def compose(self) -> ComposeResult:
        """A box in the middle."""
        canvas = Canvas(id="restart")
        canvas.styles.width = WIDTH
        canvas.styles.height = len(self._rows()) + 2
        yield canvas

    def on_mount(self) -> None:
        """Paint once there is a size."""
        self.call_after_refresh(self._paint)

    def _paint(self) -> None:
        canvas = self.query_one(Canvas)
        width, height = canvas.size
        rows = frame(self._rows(), width, height, self._glyphs, title="restart", lit=True)
        canvas.put(rows, self._glyphs)

    def _rows(self) -> list[Row]:
        room = WIDTH - 6
        rows: list[Row] = [
            (),
            ((f"   {shorten(self._engine, room)}", STRONG),),
            ((f"   {shorten(self._change, room)}", TEXT),),
            (),
            *_way("y", self._cost, room),
        ]
        if self._rolling:
            rows += _way("r", self._rolling, room)
        return [*rows, (("   esc ", "key"), ("leave it as it is", TEXT)), ()]

    def action_answer(self, way: str) -> None:
        """Do it."""
        if way != "rolling" or self._rolling:
            self.dismiss(way)

    def action_leave(self) -> None:
        """Do not."""
        self.dismiss(None)


def _way(key: str, words: str, room: int) -> list[Row]:
    """A key and what it does, the cost on a line of its own where it has several parts."""
    first, _, rest = words.partition("; ")
    rows: list[Row] = [((f"   {key}   ", "key"), (shorten(first, room - 4), TEXT))]
    if rest:
        rows.append(((f"       {shorten(rest, room - 4)}", MUTED),))
    return rows

"""The question before a restart: what it will cost, in place or rolling."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual.binding import BindingType

from llmtop.tui.keys.bindings import bindings
from llmtop.tui.screens.question import Question, identity
from llmtop.tui.store.store import EngineTrack
from llmtop.tui.view.view import View
from llmtop.tui.widgets.row import TEXT, Row, shorten


class RestartScreen(Question[str | None]):
    """Answers "restart", "rolling", or None: leave it as it is.

    change: what is asked for, in words. cost, rolling: what either way costs, in words; rolling is
    "" where there is no room for a second engine. Enter is no answer: it was just typed behind
    the value, and may have been typed twice.
    """

    ACTIONS: ClassVar[dict[str, str]] = {
        "restart.yes": "answer('restart')",
        "restart.rolling": "answer('rolling')",
        "restart.no": "leave",
    }
    BINDINGS: ClassVar[list[BindingType]] = bindings(ACTIONS)
    title_words = "restart"

    def __init__(
        self, engine: EngineTrack, change: str, cost: str, rolling: str, look: Callable[[], View]
    ) -> None:
        super().__init__(look)
        self._engine, self._change = engine, change
        self._cost, self._rolling = cost, rolling

    def rows(self, cells: int) -> list[Row]:
        """The engine, the change, and the ways."""
        rows: list[Row] = [
            (),
            *identity(self._engine, self._view, cells),
            ((f"   {shorten(self._change, cells - 4)}", TEXT),),
            (),
            *self.way("restart.yes", self._cost, cells),
        ]
        if self._rolling:
            rows += self.way("restart.rolling", self._rolling, cells)
        return [*rows, *self.way("restart.no", "leave it as it is", cells), ()]

    def action_answer(self, way: str) -> None:
        """Do it."""
        if way != "rolling" or self._rolling:
            self.dismiss(way)

    def action_leave(self) -> None:
        """Do not."""
        self.dismiss(None)

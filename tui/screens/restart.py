"""The question before a restart: its cost, in place or rolling."""

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
    """Returns "restart", "rolling", or None: do not restart.

    change: the requested change, in words. cost, rolling: the cost of a restart in place and of a
    rolling one, in words; rolling is "" if there is no room for a second engine. Enter is no
    answer: the user has just typed it after the value, and may have typed it twice.
    """

    ACTIONS: ClassVar[dict[str, str]] = {
        "restart.yes": "answer('restart')",
        "restart.rolling": "answer('rolling')",
        "restart.no": "leave",
    }
    BINDINGS: ClassVar[list[BindingType]] = bindings(ACTIONS)
    title_words = "restart"

    def __init__(
        self,
        engine: EngineTrack,
        change: str,
        cost: str,
        rolling: str,
        make_view: Callable[[], View],
    ) -> None:
        super().__init__(make_view)
        self._engine, self._change = engine, change
        self._cost, self._rolling = cost, rolling

    def rows(self, cells: int) -> list[Row]:
        """The engine, the change, and the choices."""
        rows: list[Row] = [
            (),
            *identity(self._engine, self._view, cells),
            ((f"   {shorten(self._change, cells - 4)}", TEXT),),
            (),
            *self.choice("restart.yes", self._cost, cells),
        ]
        if self._rolling:
            rows += self.choice("restart.rolling", self._rolling, cells)
        return [*rows, *self.choice("restart.no", "leave it as it is", cells), ()]

    def action_answer(self, method: str) -> None:
        """Return the answer, unless it is "rolling" and that is not possible."""
        if method != "rolling" or self._rolling:
            self.dismiss(method)

    def action_leave(self) -> None:
        """Do not restart."""
        self.dismiss(None)

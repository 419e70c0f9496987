"""The question before an engine is stopped."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual.binding import BindingType

from llmtop.tui.keys.bindings import bindings
from llmtop.tui.screens.question import Question, identity
from llmtop.tui.store.store import EngineTrack
from llmtop.tui.view.view import View
from llmtop.tui.widgets.row import TEXT, Row, shorten


class StopScreen(Question[bool | None]):
    """Returns True: stop it; None: keep it running. Enter is no answer."""

    ACTIONS: ClassVar[dict[str, str]] = {"stop.yes": "answer", "stop.no": "leave"}
    BINDINGS: ClassVar[list[BindingType]] = bindings(ACTIONS)
    title_words = "stop"

    def __init__(self, engine: EngineTrack, make_view: Callable[[], View]) -> None:
        super().__init__(make_view)
        self._engine = engine

    def rows(self, cells: int) -> list[Row]:
        """The engine, the requests that will be lost, and the keys."""
        sample = self._engine.sample
        busy = 0 if sample is None else (sample.running or 0) + (sample.waiting or 0)
        noun = "request is" if busy == 1 else "requests are"
        lost = f"   {busy:,} {noun} in it and will be lost" if busy else "   no request is in it"
        return [
            (),
            *identity(self._engine, self._view, cells),
            ((shorten(lost, cells - 1), "warn" if busy else TEXT),),
            (),
            *self.choice("stop.yes", "stop it", cells),
            *self.choice("stop.no", "leave it running", cells),
            (),
        ]

    def action_answer(self) -> None:
        """Stop it."""
        self.dismiss(True)

    def action_leave(self) -> None:
        """Do not stop it."""
        self.dismiss(None)

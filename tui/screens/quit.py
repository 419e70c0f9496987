"""The question before llmtop quits: keep or stop the engines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from textual.binding import BindingType

from llmtop.tui.keys.bindings import bindings
from llmtop.tui.panels.memory import held_words
from llmtop.tui.screens.question import Question
from llmtop.tui.store.store import EngineTrack
from llmtop.tui.view.view import View
from llmtop.tui.widgets.row import MUTED, STRONG, TEXT, Row, shorten, width
from llmtop.wording import format as f

SHOWN = 6  # engines


class QuitScreen(Question[bool | None]):
    """Returns False: quit and keep the engines; True: quit and stop them; None: stay."""

    ACTIONS: ClassVar[dict[str, str]] = {
        "quit.leave": "answer(False)",
        "quit.stop": "answer(True)",
        "quit.stay": "stay",
    }
    BINDINGS: ClassVar[list[BindingType]] = bindings(ACTIONS)
    title_words = "quit"

    def __init__(self, engines: Sequence[EngineTrack], make_view: Callable[[], View]) -> None:
        super().__init__(make_view)
        self._initial_engines = engines

    @property
    def _engines(self) -> list[EngineTrack]:
        """The engines that have not ended since the question was asked."""
        return [engine for engine in self._initial_engines if engine.runs]

    @property
    def _can_stop(self) -> bool:
        return bool(self._engines) and not self._view.readonly

    def rows(self, cells: int) -> list[Row]:
        """The engines that still run, and the choices."""
        rows: list[Row] = [()]
        if self._engines:
            rows.append(((" Started by llmtop and still running:", TEXT),))
        rows += [self._line(engine, cells) for engine in self._engines[:SHOWN]]
        if len(self._engines) > SHOWN:
            rows.append(((f"   and {len(self._engines) - SHOWN} more", MUTED),))
        words = "quit, leave them running" if self._engines else "quit"
        rows += [(), *self.choice("quit.leave", words, cells)]
        if self._can_stop:
            rows += self.choice("quit.stop", "quit and stop them", cells)
        return [*rows, *self.choice("quit.stay", "stay", cells), ()]

    def _line(self, engine: EngineTrack, cells: int) -> Row:
        record = engine.status.record if engine.status else None
        facts = f"  pid {record.pid}  port {record.spec.port}" if record else ""
        held = f"  GPU memory {held_words(engine, self._view)}"
        name = f.clean(engine.name, 40)
        if width([("   " + name + facts + held, TEXT)]) <= cells - 1:
            facts += held
        name = shorten(name, cells - len(facts) - 4)
        return (("   ", TEXT), (name, STRONG), (facts, MUTED))

    def action_answer(self, stop: bool) -> None:
        """Return the answer, unless it stops engines and that is not possible."""
        if not stop or self._can_stop:
            self.dismiss(stop)

    def action_stay(self) -> None:
        """Do not quit."""
        self.dismiss(None)

"""The question on leaving: what becomes of the engines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen

from llmtop.engines.records import State
from llmtop.tui import format as f
from llmtop.tui.store import EngineTrack
from llmtop.tui.widgets.canvas import Canvas
from llmtop.tui.widgets.frame import frame
from llmtop.tui.widgets.glyphs import Glyphs
from llmtop.tui.widgets.row import MUTED, STRONG, TEXT, Row, shorten

ALIVE = (State.STARTING, State.READY, State.UNRESPONSIVE, State.STOPPING)
WIDTH = 58
SHOWN = 6


class QuitScreen(ModalScreen[bool | None]):
    """Answers False: leave them running, True: stop them, None: stay."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,q,y", "answer(False)", "quit, leave them running", id="quit.leave"),
        Binding("S", "answer(True)", "quit and stop them", id="quit.stop"),
        Binding("escape,c,n", "stay", "stay", id="quit.stay"),
    ]

    def __init__(self, engines: Sequence[EngineTrack], glyphs: Glyphs, readonly: bool) -> None:
        super().__init__()
        self._engines = engines
        self._glyphs = glyphs
        self._readonly = readonly

    def compose(self) -> ComposeResult:
        """A box in the middle."""
        canvas = Canvas(id="quit")
        canvas.styles.width = WIDTH
        canvas.styles.height = len(self._rows()) + 2
        yield canvas

    def on_mount(self) -> None:
        """Paint once there is a size."""
        self.call_after_refresh(self._paint)

    def _paint(self) -> None:
        canvas = self.query_one(Canvas)
        width, height = canvas.size
        rows = frame(self._rows(), width, height, self._glyphs, title="quit", lit=True)
        canvas.put(rows, self._glyphs)

    @property
    def _can_stop(self) -> bool:
        return bool(self._engines) and not self._readonly

    def _rows(self) -> list[Row]:
        rows: list[Row] = [()]
        if self._engines:
            rows.append(((" Started by llmtop and still running:", TEXT),))
        for engine in self._engines[:SHOWN]:
            record = engine.status.record if engine.status else None
            facts = f"  pid {record.pid}  port {record.spec.port}" if record else ""
            name = shorten(f.clean(engine.name, 40), WIDTH - len(facts) - 8)
            rows.append((("   ", TEXT), (name, STRONG), (facts, MUTED)))
        if len(self._engines) > SHOWN:
            rows.append(((f"   and {len(self._engines) - SHOWN} more", MUTED),))
        words = "quit, leave them running" if self._engines else "quit"
        rows += [(), (("   enter ", "key"), (words, TEXT))]
        if self._can_stop:
            rows.append((("   S     ", "key"), ("quit and stop them", TEXT)))
        rows += [(("   esc   ", "key"), ("stay", TEXT)), ()]
        return rows

    def action_answer(self, stop: bool) -> None:
        """Done."""
        if not stop or self._can_stop:
            self.dismiss(stop)

    def action_stay(self) -> None:
        """Not done."""
        self.dismiss(None)

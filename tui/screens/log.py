"""The log of the selected engine, followed; a screen of its own."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.events import Resize
from textual.screen import Screen

from llmtop.tui import format as f
from llmtop.tui.control import Control, refusal
from llmtop.tui.screens.boxed import TightCompositor
from llmtop.tui.widgets.canvas import Canvas
from llmtop.tui.widgets.frame import Ranked, frame
from llmtop.tui.widgets.glyphs import Glyphs
from llmtop.tui.widgets.row import MUTED, TEXT, Row, shorten

KEEP = 2000
LEVELS = (("ERROR", "bad"), ("CRITICAL", "bad"), ("Traceback", "bad"), ("WARN", "warn"))


class LogScreen(Screen[None]):
    """The last lines, the newest at the bottom. Up leaves the tail, end follows it again."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,l,q", "app.pop_screen", "back", id="log.back"),
        Binding("up,k", "scroll(1)", "up", id="log.up"),
        Binding("down,j", "scroll(-1)", "down", id="log.down"),
        Binding("pageup", "page(1)", "a page up", id="log.page_up"),
        Binding("pagedown", "page(-1)", "a page down", id="log.page_down"),
        Binding("home,g", "scroll(100000)", "the first line kept", id="log.first"),
        Binding("end,G", "scroll(-100000)", "follow", id="log.follow"),
    ]

    def __init__(self, engine: str, control: Control, glyphs: Glyphs, beat_s: float) -> None:
        super().__init__()
        self._engine = engine
        self._control = control
        self._glyphs = glyphs
        self._beat_s = max(beat_s, 0.5)
        self._lines: list[str] = []
        self._note = ""
        self._asking = False
        self._up = 0  # lines between the last one shown and the newest
        self._compositor = TightCompositor()

    def compose(self) -> ComposeResult:
        """One canvas."""
        yield Canvas(id="log")

    def on_mount(self) -> None:
        """Read at once, then on the beat."""
        self.set_interval(self._beat_s, self.read)
        self.read()

    def on_resize(self, event: Resize) -> None:
        """Paint anew."""
        self.call_after_refresh(self.paint)

    def read(self) -> None:
        """Ask for the log: one question at a time, and none once the tail was left."""
        if self.is_current and not self._asking and not self._up:
            self._asking = True
            self.run_worker(self._read(), group="log", exit_on_error=False)

    async def _read(self) -> None:
        try:
            lines = await self._control.log_lines(self._engine, KEEP)
        except Exception as error:
            self._note = f.clean(refusal(error))
        else:
            self._note = ""
            if not self._up:  # who scrolled up meanwhile goes on reading what they read
                self._lines = [f.clean(line, 1000) for line in lines[-KEEP:]]
        finally:
            self._asking = False
        self.paint()

    def paint(self) -> None:
        """The lines that fit."""
        canvas = self.query_one(Canvas)
        width, height = canvas.size
        if width < 8 or height < 3:
            return
        room, inner = height - 2, width - 4
        self._up = max(0, min(self._up, len(self._lines) - room))
        end = len(self._lines) - self._up
        rows: list[Row] = [
            ((" ", TEXT), (shorten(line, inner), _role(line)))
            for line in self._lines[max(0, end - room) : end]
        ]
        if self._note or not rows:
            rows = [((" ", TEXT), (self._note or "the log is empty so far", MUTED))]
        follow = "following" if not self._up else f"{self._up} lines below"
        head: list[Ranked] = [(0, [(follow, "good" if not self._up else "warn")])]
        keys = [("esc", "key"), (" back  ", MUTED), ("up down", "key"), (" scroll  ", MUTED)]
        foot = [*keys, ("end", "key"), (" follow", MUTED)]
        title = f"log {self._glyphs.dot} {f.clean(self._engine, 24)}"
        box = frame(rows, width, height, self._glyphs, title=title, head=head, foot=foot)
        canvas.put(box, self._glyphs)

    def action_scroll(self, lines: int) -> None:
        """Up (positive) or down."""
        self._up = max(0, self._up + lines)
        self.paint()

    def action_page(self, direction: int) -> None:
        """A page up (1) or down (-1)."""
        self.action_scroll(direction * max(1, self.size.height - 4))


def _role(line: str) -> str:
    head = line[:80]
    return next((role for word, role in LEVELS if word in head), TEXT)

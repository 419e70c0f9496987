"""The log of the selected engine on a screen of its own: follow, filter, search."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.events import Key, MouseScrollDown, MouseScrollUp, Paste, Resize

from llmtop.config.key_table import BY_ID, Place
from llmtop.tui.commands.control import Control, EngineLog, refusal
from llmtop.tui.keys.bindings import bindings
from llmtop.tui.keys.line_editor import edited_filter
from llmtop.tui.keys.pasting import typed_line
from llmtop.tui.layout.typing import TypedText
from llmtop.tui.screens.log_window import KEEP_LINES, Level, Line, LogView
from llmtop.tui.textual_private.compositor import TightScreen
from llmtop.tui.view.view import View
from llmtop.tui.widgets.canvas import Canvas
from llmtop.tui.widgets.frame import Ranked, frame
from llmtop.tui.widgets.row import MUTED, TEXT, Row, Span, hidden_left, join, shorten
from llmtop.tui.widgets.row import width as cells_of
from llmtop.wording import format as f

LINE_CHARS = 4000  # of one line, at most
MANY = 40_000  # characters; more are cleaned in a thread: 4 MiB take 1 s, and keys must not wait
STEP = 16  # characters to the left and right
WHEEL = 3  # lines
LONGEST = 100  # characters of the search text
ROLES = {Level.ERROR: "bad", Level.WARNING: "warn", Level.PLAIN: TEXT}
WORDS = {
    Level.PLAIN: "all lines",
    Level.WARNING: "warnings and errors",
    Level.ERROR: "errors alone",
}
KEYS = ("log.back", "log.search", "log.level", "log.error", "log.follow")
SEARCH_KEYS = ("log.next", "log.previous", "log.back")


class LogScreen(TypedText, TightScreen):
    """The newest line is at the bottom, until the user scrolls up. Lines are not wrapped."""

    help_places: ClassVar[tuple[Place, ...]] = (Place.LOG,)
    ACTIONS: ClassVar[dict[str, str]] = {
        "log.up": "scroll(1)",
        "log.down": "scroll(-1)",
        "log.page_up": "page(1)",
        "log.page_down": "page(-1)",
        "log.first": "scroll(1000000)",
        "log.last": "last",
        "log.left": "sideways(-1)",
        "log.right": "sideways(1)",
        "log.follow": "follow",
        "log.level": "level",
        "log.error": "error",
        "log.search": "search",
        "log.next": "jump(True)",
        "log.previous": "jump(False)",
        "log.back": "back",
    }
    BINDINGS: ClassVar[list[BindingType]] = bindings(ACTIONS)

    def __init__(
        self, engine: str, control: Control, make_view: Callable[[], View], beat_s: float
    ) -> None:
        super().__init__()
        self._engine = engine
        self._make_view = make_view
        self._beat_s = max(beat_s, 0.5)
        self._log: EngineLog = control.open_log(engine, KEEP_LINES)
        self._text = LogView()
        self._note = ""  # why there is no log
        self._notice = ""  # the result of the last key
        self._typing = False  # the search text is being typed
        self._current_line: int | None = None  # the line that was jumped to
        self._first_column = 0  # characters hidden at the left
        self._asking = False

    def compose(self) -> ComposeResult:
        """One canvas."""
        yield Canvas(id="log")

    def on_mount(self) -> None:
        """Read at once, then at each interval."""
        self.set_interval(self._beat_s, self.read)
        self.read()

    def on_resize(self, event: Resize) -> None:
        """Paint in the new size."""
        self.call_after_refresh(self.paint)

    def read(self) -> None:
        """Read the new lines, with one request at a time."""
        if self.is_seen and not self._asking:
            self._asking = True
            self.run_worker(self._read(), group="log", exit_on_error=False)

    async def _read(self) -> None:
        try:
            lines = await self._log.more()
            if sum(map(len, lines)) > MANY:
                texts = await asyncio.to_thread(_cleaned, lines)
            else:
                texts = _cleaned(lines)
        except Exception as error:
            self._note = f.clean(refusal(error))
        else:
            self._note = ""
            self._text.add(texts)
        finally:
            self._asking = False
        self.paint()

    @property
    def _room(self) -> int:
        return max(1, self.size.height - 2)

    def paint(self) -> None:
        """Paint the lines that fit."""
        canvas = self.query_one(Canvas)
        width, height = canvas.size
        if width < 8 or height < 3:
            return
        view, inner = self._make_view(), width - 4
        lines = self._text.window(height - 2)
        rows = [self._line(line, inner, view) for line in lines]
        if self._note or not rows:
            words = "the log is empty so far"
            if self._text.kept:
                words = f"none of {self._text.kept:,} lines: {WORDS[self._text.least]} are shown"
            rows = [((" ", TEXT), (shorten(self._note or words, inner), MUTED))]
        title = f"log {view.glyphs.dot} {f.clean(self._engine, 24)}"
        head, foot = self._head(), self._foot(view, inner)
        box = frame(rows, width, height, view.glyphs, title=title, head=head, foot=foot)
        canvas.put(box, view.glyphs)

    def _line(self, line: Line, cells: int, view: View) -> Row:
        role = ROLES[line.level]
        text = line.text[self._first_column :]
        spans: list[Span] = [
            (view.glyphs.cursor if line.number == self._current_line else " ", "key")
        ]
        at = 0
        for begin, end in self._text.spans(line.text[: self._first_column + cells + LONGEST]):
            begin, end = max(0, begin - self._first_column), end - self._first_column
            if end <= at:
                continue
            spans += [(text[at:begin], role), (text[begin:end], "edit")]
            at = end
        spans.append((text[at:], role))
        out: list[Span] = []
        free = cells + 1
        for words, kind in spans:
            shown = shorten(words, free)
            out.append((shown, kind))
            free -= cells_of([(shown, kind)])
            if shown != words or free <= 0:
                break
        return tuple(out)

    def _head(self) -> list[Ranked]:
        text = self._text
        following = text.end is None
        below = f"{text.below:,} lines below" if text.below else "not following"
        count = f"{text.count:,} of {text.kept:,} lines" if text.least else f"{text.kept:,} lines"
        older = f", {text.dropped:,} older ones dropped" if text.dropped else ""
        shown = [(WORDS[text.least], "mark")] if text.least else []
        return [
            (4, [(count + older, MUTED)]),
            (3, [(f"from column {self._first_column + 1}", "mark")] if self._first_column else []),
            (1, shown),
            (0, [("following" if following else below, "good" if following else "warn")]),
        ]

    def _foot(self, view: View, cells: int) -> list[Span]:
        text = self._text
        if self._typing:
            return [("search: ", MUTED), (text.needle, "strong"), ("_", "edit"), *self._count()]
        if self._notice:
            return [(shorten(self._notice, cells), "warn")]
        names = SEARCH_KEYS if text.needle else KEYS
        groups: list[Ranked] = [
            (rank, [(view.keys.label(name), "key"), (f" {BY_ID[name].short}", MUTED)])
            for rank, name in enumerate(names)
        ]
        if text.needle:
            found = [(f"'{shorten(text.needle, 24)}'", "strong"), *self._count()]
            groups = [(0, found), *((rank + 1, spans) for rank, spans in groups)]
        return join(groups, cells - 2)

    def _count(self) -> list[Span]:
        text, at = self._text, self._text.hit_number(self._current_line)
        if not text.needle:
            return []
        if not text.hits:
            return [("  nothing", "warn")]
        return [(f"  {at:,} of {text.hits:,}" if at else f"  {text.hits:,} lines", MUTED)]

    def on_paste(self, event: Paste) -> None:
        """Add the first line of pasted text to the search text."""
        event.stop()
        if self._typing:
            self._set_needle(self._text.needle + typed_line(event.text))

    def take_key(self, event: Key) -> bool:
        """Characters belong to the search text while it is typed."""
        self._notice = ""
        if not self._typing:
            return False
        found = edited_filter(self._text.needle, event.key, event.character, LONGEST)
        if found is None:
            return False
        needle, self._typing = found
        if event.key == "enter" and self._current_line is None:
            self.action_jump(True)
        self._set_needle(needle)
        return True

    def _set_needle(self, needle: str) -> None:
        if needle != self._text.needle:
            self._current_line = None
            self._text.search(needle[:LONGEST])
        self.paint()

    def action_scroll(self, lines: int) -> None:
        """Scroll up (positive) or down."""
        self._text.scroll(lines, self._room)
        self.paint()

    def action_page(self, direction: int) -> None:
        """Scroll a page up (1) or down (-1)."""
        self.action_scroll(direction * max(1, self._room - 2))

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        """Scroll up."""
        self.action_scroll(WHEEL)

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        """Scroll down."""
        self.action_scroll(-WHEEL)

    def action_last(self) -> None:
        """Show the newest line, and follow."""
        self._text.follow(True)
        self._current_line = None
        self.paint()

    def action_follow(self) -> None:
        """Follow new lines, or stop that."""
        self._text.follow(self._text.end is not None)
        self.paint()

    def action_sideways(self, direction: int) -> None:
        """Scroll left (-1) or right (1), up to the end of the lines on screen."""
        cells = max(1, self.size.width - 4)
        shown = self._text.window(self._room)
        most = max((hidden_left(line.text, cells) for line in shown), default=0)
        self._first_column = max(
            0, min(self._first_column + direction * STEP, -(-most // STEP) * STEP)
        )
        self.paint()

    def action_level(self) -> None:
        """Select the next filter of levels."""
        self._text.show(Level((self._text.least + 1) % len(Level)))
        self.paint()

    def action_error(self) -> None:
        """Show the first error of the kept lines."""
        number = self._text.first_error()
        if number is None:
            self._notice = f"no error in {self._text.kept:,} lines"
        else:
            self._jump_to(number)
        self.paint()

    def action_search(self) -> None:
        """Begin to type the search text."""
        self._typing = True
        self._current_line = None
        self._text.search("")
        self.paint()

    def action_jump(self, forward: bool) -> None:
        """Show the next or the previous hit. The first jump starts from the lines on screen."""
        start = self._current_line
        if start is None:
            shown = self._text.window(self._room)
            start = (shown[0].number - 1 if forward else shown[-1].number + 1) if shown else None
        number = self._text.jump(forward, start)
        if number is None:
            self._notice = f"no line has '{self._text.needle}'" if self._text.needle else ""
        else:
            self._jump_to(number)
        self.paint()

    def _jump_to(self, number: int) -> None:
        self._current_line = number
        self._text.scroll_to(number, self._room)

    def action_back(self) -> None:
        """End the search if there is one, else close the log."""
        if self._text.needle:
            self._text.search("")
            self._current_line = None
            self.paint()
        else:
            self.app.pop_screen()


def _cleaned(lines: Sequence[str]) -> list[str]:
    return [f.clean(line, LINE_CHARS) for line in lines]

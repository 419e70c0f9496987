"""The palette: everything that can be done here, found by typing a few letters of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.events import Click, Key, MouseScrollDown, MouseScrollUp, Paste, Resize
from textual.screen import ModalScreen

from llmtop.config.key_table import Place
from llmtop.tui.commands.palette import Entry
from llmtop.tui.keys.bindings import bindings
from llmtop.tui.keys.line_editor import edited
from llmtop.tui.keys.pasting import typed_line
from llmtop.tui.layout.typing import TypedText
from llmtop.tui.textual_private.compositor import TightScreen
from llmtop.tui.view.view import View
from llmtop.tui.widgets.canvas import Canvas
from llmtop.tui.widgets.frame import frame
from llmtop.tui.widgets.row import MUTED, STRONG, TEXT, Row, Span, fit, join, shorten, sides
from llmtop.tui.widgets.row import width as cells_of
from llmtop.wording import format as f

WIDTH = 92
SHOWN = 14
LONGEST = 200


class PaletteScreen(TypedText, ModalScreen[Entry | None], TightScreen):
    """Answers the entry that is to be done, None: nothing.

    find: the entries for what was typed. look: the view of this moment.
    """

    ACTIONS: ClassVar[dict[str, str]] = {
        "palette.up": "move(-1)",
        "palette.down": "move(1)",
        "palette.run": "run",
        "palette.take": "take",
        "palette.back": "leave",
    }
    BINDINGS: ClassVar[list[BindingType]] = bindings(ACTIONS)

    def __init__(self, find: Callable[[str], list[Entry]], look: Callable[[], View]) -> None:
        super().__init__()
        self._find = find
        self._make_view = look
        self._typed = ""
        self._at = 0
        self._top = 0
        self._entries: list[Entry] = []

    def compose(self) -> ComposeResult:
        """One canvas."""
        yield Canvas(id="palette")

    def on_mount(self) -> None:
        """Find everything, size it, paint once there is a size."""
        self._search("")
        self._fit()

    def on_resize(self, event: Resize) -> None:
        """Another terminal, another size."""
        self._fit()

    def _fit(self) -> None:
        canvas = self.query_one(Canvas)
        canvas.styles.width = min(WIDTH, self.app.size.width)
        canvas.styles.height = min(SHOWN + 3, self.app.size.height)
        self.call_after_refresh(self.paint)

    def _search(self, typed: str) -> None:
        self._typed, self._at, self._top = typed, 0, 0
        self._entries = self._find(typed)

    def paint(self) -> None:
        """The line that is typed, and the entries that fit."""
        canvas = self.query_one(Canvas)
        width, height = canvas.size
        if width < 20 or height < 4:
            return
        view, room, inner = self._make_view(), height - 3, width - 2
        self._top = max(0, min(self._at, max(self._top, self._at - room + 1)))
        typed = self._typed[-(inner - 6) :]
        rows: list[Row] = [((" > ", "key"), (typed, STRONG), ("_", "edit"))]
        for number in range(self._top, min(self._top + room, len(self._entries))):
            rows.append(self._line(self._entries[number], number == self._at, inner, view))
        if not self._entries:
            rows.append((("   no entry matches", MUTED),))
        keys = view.keys
        moving = keys.pair("palette.up", "palette.down")
        foot = join(
            [
                (0, [(keys.label("palette.run"), "key"), (" do it", MUTED)]),
                (1, [(keys.label("palette.back"), "key"), (" back", MUTED)]),
                (2, [(keys.label("palette.take"), "key"), (" complete", MUTED)]),
                (3, [(moving, "key"), (" choose", MUTED)]),
            ],
            inner - 16,
        )
        count: list[Span] = [(f"{len(self._entries)} entries", MUTED)]
        box = frame(
            rows, width, height, view.glyphs, title="palette", foot=foot,
            foot_right=count, lit=True,
        )  # fmt: skip
        canvas.put(box, view.glyphs)

    def _line(self, entry: Entry, here: bool, cells: int, view: View) -> Row:
        mark = view.glyphs.cursor if here else " "
        key: list[Span] = [(f" {entry.key} ", "key")] if entry.key else []
        room = cells - cells_of(key) - 3
        title = shorten(f.clean(entry.title, LONGEST), room)
        left: list[Span] = [(f" {mark} ", "key"), (title, STRONG if here else TEXT)]
        free = room - cells_of([(title, TEXT)]) - 2
        # A command's note is for finding it; of the others it says what they are now.
        if entry.note and not entry.key and free > 8:
            left.append((f"  {shorten(f.clean(entry.note, LONGEST), free)}", MUTED))
        return sides(fit(left, cells - cells_of(key)), key, cells)

    def on_paste(self, event: Paste) -> None:
        """Pasted text is typed, its first line."""
        event.stop()
        self._put(self._typed + typed_line(event.text))

    def take_key(self, event: Key) -> bool:
        """Characters are typed; the keys of the palette are looked up as bindings."""
        view = self._make_view()
        if view.keys.command_of(Place.PALETTE, event.key) is not None:
            return False
        line = edited(self._typed, event.key, event.character, LONGEST)
        if line is not None:
            self._put(line)
        return line is not None

    def _put(self, typed: str) -> None:
        self._search(typed[:LONGEST])
        self.paint()

    def action_move(self, by: int) -> None:
        """The line above or below."""
        if self._entries:
            self._at = max(0, min(len(self._entries) - 1, self._at + by))
            self.paint()

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        """Up."""
        self.action_move(-3)

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        """Down."""
        self.action_move(3)

    def on_click(self, event: Click) -> None:
        """A line is done; beside the box is back."""
        region = self.query_one(Canvas).region
        if not region.contains(event.screen_x, event.screen_y):
            self.dismiss(None)
            return
        number = self._top + event.screen_y - region.y - 2
        if event.screen_y - region.y >= 2 and 0 <= number < len(self._entries):
            self._at = number
            self.action_run()

    def action_run(self) -> None:
        """Run it; where a value is missing, let it be typed."""
        if not self._entries:
            return
        entry = self._entries[self._at]
        if entry.ready:
            self.dismiss(entry)
        else:
            self._put(entry.text)

    def action_take(self) -> None:
        """Complete with the words of the line."""
        if self._entries:
            entry = self._entries[self._at]
            self._put(entry.text or entry.title)

    def action_leave(self) -> None:
        """Nothing."""
        self.dismiss(None)

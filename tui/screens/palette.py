"""The palette: all actions of this moment, found by typing a few letters."""

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

WIDTH = 92  # cells
SHOWN = 14  # entries
LONGEST = 200  # characters


class PaletteScreen(TypedText, ModalScreen[Entry | None], TightScreen):
    """Returns the chosen entry, None if the user leaves.

    find: finds the entries for the typed text. make_view: makes the view of this moment.
    """

    ACTIONS: ClassVar[dict[str, str]] = {
        "palette.up": "move(-1)",
        "palette.down": "move(1)",
        "palette.run": "run",
        "palette.take": "take",
        "palette.back": "leave",
    }
    BINDINGS: ClassVar[list[BindingType]] = bindings(ACTIONS)

    def __init__(self, find: Callable[[str], list[Entry]], make_view: Callable[[], View]) -> None:
        super().__init__()
        self._find = find
        self._make_view = make_view
        self._typed = ""
        self._at = 0
        self._top = 0
        self._entries: list[Entry] = []

    def compose(self) -> ComposeResult:
        """One canvas."""
        yield Canvas(id="palette")

    def on_mount(self) -> None:
        """Find all entries, set the size, paint when the size is known."""
        self._search("")
        self._fit()

    def on_resize(self, event: Resize) -> None:
        """Fit the box to the new size of the terminal."""
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
        """Paint the typed line, and the entries that fit."""
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
        # The note of a command serves only the search. Other notes have the current value.
        if entry.note and not entry.key and free > 8:
            left.append((f"  {shorten(f.clean(entry.note, LONGEST), free)}", MUTED))
        return sides(fit(left, cells - cells_of(key)), key, cells)

    def on_paste(self, event: Paste) -> None:
        """Type the first line of pasted text."""
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
        """Move the cursor down (positive) or up."""
        if self._entries:
            self._at = max(0, min(len(self._entries) - 1, self._at + by))
            self.paint()

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        """Move the cursor up."""
        self.action_move(-3)

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        """Move the cursor down."""
        self.action_move(3)

    def on_click(self, event: Click) -> None:
        """Run the clicked entry. A click outside the box closes the palette."""
        region = self.query_one(Canvas).region
        if not region.contains(event.screen_x, event.screen_y):
            self.dismiss(None)
            return
        number = self._top + event.screen_y - region.y - 2
        if event.screen_y - region.y >= 2 and 0 <= number < len(self._entries):
            self._at = number
            self.action_run()

    def action_run(self) -> None:
        """Run the entry. If its value is missing, the user types it next."""
        if not self._entries:
            return
        entry = self._entries[self._at]
        if entry.ready:
            self.dismiss(entry)
        else:
            self._put(entry.text)

    def action_take(self) -> None:
        """Replace the typed text with that of the entry."""
        if self._entries:
            entry = self._entries[self._at]
            self._put(entry.text or entry.title)

    def action_leave(self) -> None:
        """Close the palette."""
        self.dismiss(None)

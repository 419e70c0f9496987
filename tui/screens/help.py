"""Help: every key; for each number its meaning, its source and its caveats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.events import MouseScrollDown, MouseScrollUp, Resize

from llmtop.config.key_table import Place, of
from llmtop.config.keymap import Keymap
from llmtop.tui.keys.bindings import bindings
from llmtop.tui.textual_private.compositor import TightScreen
from llmtop.tui.view.view import View
from llmtop.tui.widgets.canvas import Canvas
from llmtop.tui.widgets.frame import frame
from llmtop.tui.widgets.row import MUTED, TEXT, Row, Span, fit
from llmtop.wording.numbers import NUMBERS

COLUMN = 13  # cells of keys and names; longer ones have a line of their own
WIDE, WIDE_COLUMN = 100, 20  # from 100 cells on, the column has 20
BESIDE = ((2, 50), (1, 60))  # columns of keys beside the numbers, and cells of each
LEAST, GAP = 80, 2  # cells for the numbers, at least, and between two columns
FAR = 1_000_000  # lines: more than there are


class HelpScreen(TightScreen):
    """All keys and numbers; it scrolls. make_view: makes the view of this moment.

    places: the places whose keys come first. They are those of the screen below.
    """

    ACTIONS: ClassVar[dict[str, str]] = {
        "help.up": "scroll(-1)",
        "help.down": "scroll(1)",
        "help.page_up": "page(-1)",
        "help.page_down": "page(1)",
        "help.first": f"scroll(-{FAR})",
        "help.last": f"scroll({FAR})",
        "help.back": "app.pop_screen",
    }
    BINDINGS: ClassVar[list[BindingType]] = bindings(ACTIONS)

    def __init__(self, make_view: Callable[[], View], places: Sequence[Place] = ()) -> None:
        super().__init__()
        self._places = tuple(places)
        self._make_view = make_view
        self._top = 0

    def compose(self) -> ComposeResult:
        """One canvas."""
        yield Canvas(id="help")

    def on_mount(self) -> None:
        """Paint when the size is known."""
        self.call_after_refresh(self.paint)

    def on_resize(self, event: Resize) -> None:
        """Paint in the new size."""
        self.call_after_refresh(self.paint)

    def paint(self) -> None:
        """Paint the lines that fit."""
        canvas = self.query_one(Canvas)
        width, height = canvas.size
        if width < 20 or height < 4:
            return
        view = self._make_view()
        rows = help_rows(width - 4, view.keys, readonly=view.readonly, first=self._places)
        self._top = max(0, min(self._top, len(rows) - (height - 2)))
        more = len(rows) - self._top - (height - 2)
        foot: list[Span] = [(view.keys.label("help.back"), "key"), (" back", MUTED)]
        right: list[Span] = []
        if more > 0:
            moving = view.keys.pair("help.up", "help.down")
            right = [(moving, "key"), (f" {more} more lines", MUTED)]
        body = rows[self._top :]
        box = frame(body, width, height, view.glyphs, title="help", foot=foot, foot_right=right)
        canvas.put(box, view.glyphs)

    def action_scroll(self, lines: int) -> None:
        """Scroll down (positive) or up."""
        self._top = max(0, self._top + lines)
        self.paint()

    def action_page(self, direction: int) -> None:
        """Scroll a page down (1) or up (-1)."""
        self.action_scroll(direction * max(1, self.size.height - 4))

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        """Scroll up."""
        self.action_scroll(-3)

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        """Scroll down."""
        self.action_scroll(3)


def help_rows(
    cells: int, keys: Keymap, *, readonly: bool = False, first: Sequence[Place] = ()
) -> list[Row]:
    """The help in rows of ``cells`` cells, with lines broken between words.

    first: the places whose keys come before all others.

    On a wide screen the numbers are beside the keys, on a very wide one beside two columns of keys.
    So lines stay short enough to read, and more of the help is visible.
    """
    for columns, own in BESIDE:
        rest = cells - columns * (own + GAP)
        if rest >= LEAST:
            parts = _halved(_keys(own, keys, readonly, first), columns)
            return _beside([*((own, part) for part in parts), (rest, _numbers(rest))])
    return [row for part in _keys(cells, keys, readonly, first) for row in part] + _numbers(cells)


def _keys(cells: int, keys: Keymap, readonly: bool, first: Sequence[Place]) -> list[list[Row]]:
    """A block of rows for each place in which keys work."""
    blocks: list[list[Row]] = []
    for place in sorted(Place, key=lambda each: each not in first):
        commands = of([place], readonly=readonly)
        if commands:
            block: list[Row] = [(), ((f" {place.value}", "title"),)]
            for command in commands:
                block += _entry(keys.labels(command.id), command.words, cells)
            blocks.append(block)
    return blocks


def _numbers(cells: int) -> list[Row]:
    rows: list[Row] = [(), ((" Numbers", "title"),)]
    for name, words in NUMBERS:
        rows += _entry(name, words, cells)
    return rows


def _halved(blocks: list[list[Row]], columns: int) -> list[list[Row]]:
    """The blocks in one column or two, divided so that the longer one is as short as possible."""

    def length(some: list[list[Row]]) -> int:
        return sum(map(len, some))

    cut = len(blocks)
    if columns > 1:
        cut = min(range(cut + 1), key=lambda at: max(length(blocks[:at]), length(blocks[at:])))
    parts = (blocks[:cut], blocks[cut:])
    return [[row for block in part for row in block] for part in parts[:columns]]


def _beside(parts: list[tuple[int, list[Row]]]) -> list[Row]:
    """Columns side by side, (cells, rows) each."""
    return [
        tuple(
            span
            for cells, rows in parts
            for span in fit(rows[at] if at < len(rows) else (), cells + GAP)
        )
        for at in range(max(len(rows) for _, rows in parts))
    ]


def _entry(name: str, words: str, cells: int) -> list[Row]:
    column = WIDE_COLUMN if cells >= WIDE else COLUMN
    out: list[str] = []
    line = ""
    for word in words.split():
        if line and len(line) + 1 + len(word) > cells - column - 1:
            out.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    out.append(line)
    rows: list[Row] = [((" " * column, TEXT), (line, TEXT)) for line in out]
    if len(name) + 2 > column:  # a long name has a line of its own
        return [((f" {name}", "key"),), *rows]
    return [((f" {name}".ljust(column), "key"), (out[0], TEXT)), *rows[1:]]

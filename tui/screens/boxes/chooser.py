"""The list of boxes. Each can be hidden; the dashboard behind shows the change at once."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import ClassVar

from textual.binding import BindingType

from llmtop.tui.keys.bindings import bindings
from llmtop.tui.layout.hidden_boxes import HIDEABLE
from llmtop.tui.screens.question import Question
from llmtop.tui.view.view import View
from llmtop.tui.widgets.row import MUTED, STRONG, TEXT, Row, Span, join


class BoxesScreen(Question[None]):
    """change: hides exactly these boxes. here: returns the boxes of this size and engine."""

    ACTIONS: ClassVar[dict[str, str]] = {
        "boxes.up": "move(-1)",
        "boxes.down": "move(1)",
        "boxes.switch": "switch",
        "boxes.all": "all",
        "boxes.back": "leave",
    }
    BINDINGS: ClassVar[list[BindingType]] = bindings(ACTIONS)
    title_words = "boxes"

    def __init__(
        self,
        hidden: Collection[str],
        here: Callable[[], Collection[str]],
        change: Callable[[frozenset[str]], None],
        make_view: Callable[[], View],
    ) -> None:
        super().__init__(make_view)
        self._hidden = frozenset(hidden)
        self._here = here
        self._change = change
        self._at = 0

    def rows(self, cells: int) -> list[Row]:
        """One row per box, then the keys."""
        here, glyphs = self._here(), self._view.glyphs
        rows: list[Row] = []
        for number, (name, title) in enumerate(HIDEABLE.items()):
            chosen = number == self._at
            mark = "[ ]" if name in self._hidden else "[x]"
            row: list[Span] = [
                (f" {glyphs.cursor if chosen else ' '} {mark} ", "key" if chosen else MUTED),
                (title, STRONG if chosen else MUTED if name in self._hidden else TEXT),
            ]
            if name not in here:
                row.append(("  not on this screen", MUTED))
            rows.append(tuple(row))
        label, pair = self._view.keys.label, self._view.keys.pair
        keys = [
            (0, [(label("boxes.switch"), "key"), (" hide, show", MUTED)]),
            (1, [(label("boxes.back"), "key"), (" back", MUTED)]),
            (2, [(label("boxes.all"), "key"), (" show all", MUTED)]),
            (3, [(pair("boxes.up", "boxes.down"), "key"), (" choose", MUTED)]),
        ]
        return [*rows, (), ((" ", TEXT), *join(keys, cells - 2))]

    def action_move(self, by: int) -> None:
        """Move the cursor down (positive) or up."""
        self._at = min(len(HIDEABLE) - 1, max(0, self._at + by))
        self.redraw()

    def action_switch(self) -> None:
        """Hide the box, or show it. At least one box stays visible."""
        name = list(HIDEABLE)[self._at]
        wanted = self._hidden ^ {name}
        if name in wanted and not set(self._here()) - wanted:
            self.notify("at least one box must stay", markup=False, timeout=3)
            return
        self._apply(wanted)

    def action_all(self) -> None:
        """Show all boxes."""
        self._apply(frozenset())

    def action_leave(self) -> None:
        """Close the list."""
        self.dismiss(None)

    def _apply(self, hidden: frozenset[str]) -> None:
        self._hidden = hidden
        self._change(hidden)
        self.redraw()

"""The last line: the keys that do something now."""

from __future__ import annotations

from llmtop.tui.panels.edit import EDITING_KEYS
from llmtop.tui.panels.panel import Panel
from llmtop.tui.panels.view import Stage, View
from llmtop.tui.widgets.frame import Ranked
from llmtop.tui.widgets.row import MUTED, TEXT, Row, join, sides


class KeysPanel(Panel):
    """One line; the panel in which the keyboard is says its own keys."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.editing = False

    def draw(self, view: View, width: int, height: int) -> list[Row]:
        """What works now, and only that."""
        return [_line(self._keys(view), width)]

    def _keys(self, view: View) -> list[tuple[str, str]]:
        if self.editing:
            return [("up down", "choose"), *EDITING_KEYS]
        if view.stage is Stage.EMPTY:
            return [("q", "quit"), ("?", "help"), ("t", "theme")]
        keys = [("q", "quit"), ("?", "help"), ("l", "log"), ("t", "theme")]
        if view.stage is Stage.RUNNING and not view.readonly:
            keys.insert(2, ("o", "options"))
        if len(view.store.engines) > 1:
            keys.insert(2, ("tab", "next engine"))
            keys.insert(3, ("v", "side by side"))
        if view.stage is Stage.RUNNING and view.load is None and not view.readonly:
            keys.insert(0, ("+", "start a load at 1"))
        return keys


def _line(keys: list[tuple[str, str]], cells: int) -> Row:
    """Keys and their words; the last ones leave when it is narrow."""
    groups: list[Ranked] = [
        (rank, [(key, "key"), (f" {word}", MUTED)]) for rank, (key, word) in enumerate(keys)
    ]
    return sides([(" ", TEXT), *join(groups, cells - 2)], [], cells)

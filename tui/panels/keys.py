"""The last line: the keys that work now."""

from __future__ import annotations

from llmtop.config.key_table import BY_ID
from llmtop.tui.view.edit import editing_keys
from llmtop.tui.view.elsewhere import CLOSED
from llmtop.tui.view.panel import Panel
from llmtop.tui.view.replay_bar import replay_row
from llmtop.tui.view.view import LifecycleView, View
from llmtop.tui.widgets.frame import Ranked
from llmtop.tui.widgets.row import MUTED, TEXT, Row, Span, join, sides
from llmtop.tui.widgets.row import width as width_of


class KeysPanel(Panel):
    """One line. While the options have the keyboard focus (``editing``), it has their keys."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.editing = False
        self._cached_for: tuple[object, ...] = ()
        self._cached: Row = ()

    def draw(self, view: View, width: int, height: int) -> list[Row]:
        """The keys that work now; in a replay, its position and keys."""
        if view.replay is not None and not self.editing:
            return [replay_row(view.replay, view, width)]
        state: list[Span] = [(" REC ", "badge-bad"), (" ", TEXT)] if view.store.recording else []
        sign = view.axis.sign(view.now)
        state += [(f" {sign} ", "badge-warn"), (" ", TEXT)] if sign else []
        state += [] if view.mouse else [("mouse off ", "warn")]
        keys = self._keys(view)
        closed = len(keys)  # the keys from here on do nothing here
        if view.elsewhere:
            keys += [(view.keys.label(name), word) for name, word in CLOSED.items()]
        if (inputs := (keys, state, width)) != self._cached_for:
            self._cached_for, self._cached = inputs, _line(keys, state, width, closed)
        return [self._cached]

    def _keys(self, view: View) -> list[tuple[str, str]]:
        keys = view.keys
        if self.editing:
            return [(keys.pair("options.up", "options.down"), "choose"), *editing_keys(view)]
        running, empty = view.stage is LifecycleView.RUNNING, view.stage is LifecycleView.EMPTY
        names = ["quit", "help"]
        if not empty and len(view.store.engines) > 1:
            names += ["engine.next", "engine.beside"]
        if running and not view.readonly:
            names += ["options", "saturation", "compare"]
        if running and view.engine is not None and view.engine.why is not None:
            names += ["why", "steps", "requests"] if view.engine.steps is not None else ["why"]
        names += ["palette"] if empty or view.elsewhere else ["log", "palette"]
        names.append("theme")
        if not view.mouse:
            names.insert(2, "mouse")
        if not (empty or view.readonly) and view.engine is not None and view.engine.owned:
            names += ["engine.restart", "engine.stop", "engine.hold"] if running else []
        names += ["tune"] if running and not view.readonly else []
        found = [(keys.label(name), BY_ID[name].short) for name in names]
        if running and view.load is None and not view.readonly:
            found.insert(0, (keys.label("load.more"), "start a load at 1"))
        return found


def _line(keys: list[tuple[str, str]], state: list[Span], cells: int, closed: int) -> Row:
    """Keys and their words; the last ones are left out first. closed: keys from it on are grey."""
    groups: list[Ranked] = [
        (rank, [(key, "key" if rank < closed else MUTED), (f" {word}", MUTED)])
        for rank, (key, word) in enumerate(keys)
    ]
    room = cells - 2 - width_of(state)
    return sides([(" ", TEXT), *join(groups, room)], state, cells)

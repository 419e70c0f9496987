"""Several engines: one line of figures each. The selected one is marked."""

from __future__ import annotations

from textual.events import Click
from textual.message import Message

from llmtop.engines.core.records import State
from llmtop.tui.panels.pulse import kv_role
from llmtop.tui.panels.state import WORD, headline, stale_words, state_spans
from llmtop.tui.store.store import EngineTrack
from llmtop.tui.view.panel import Panel
from llmtop.tui.view.view import View
from llmtop.tui.widgets.bar import bar
from llmtop.tui.widgets.row import MUTED, STRONG, TEXT, Row, Span, faded, fit, join, shorten, sides
from llmtop.tui.widgets.row import width as cells
from llmtop.wording import format as f


class EnginesPanel(Panel):
    """One line per engine. If not all fit: the engines around the selected one.

    Then the first and the last line show how many engines are hidden above and below.
    """

    class Chosen(Message):
        """An engine's row was clicked."""

        def __init__(self, engine: str) -> None:
            super().__init__()
            self.engine = engine

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._shown: list[str] = []

    def on_click(self, event: Click) -> None:
        """Post ``Chosen`` for the engine of the clicked row."""
        chosen = self._shown[event.y] if 0 <= event.y < len(self._shown) else ""
        if self.view is not None and chosen in self.view.store.engines:
            self.post_message(self.Chosen(chosen))

    def draw(self, view: View, width: int, height: int) -> list[Row]:
        """One line per engine, as many as fit."""
        names = [*view.store.engines, *view.store.missing]
        at = names.index(view.store.selected) if view.store.selected in names else 0
        first = max(0, min(at - height // 2, len(names) - height))
        self._shown = names[first : first + height]
        engines = view.store.engines
        rows = [
            self._line(engines[name], view, width)
            if name in engines
            else self._absent(name, view, width)
            for name in self._shown
        ]
        if height > 1:
            _count(rows, 0, first)
            _count(rows, -1, len(names) - first - height)
        return rows

    def _absent(self, url: str, view: View, width: int) -> Row:
        """The line of a wanted engine that does not answer."""
        why = view.store.missing[url]
        name = f.clean(url.removeprefix("http://"), 16).ljust(16)
        left: list[Span] = [("   ", TEXT), (name, MUTED), (f"  {view.glyphs.up} ", "bad")]
        words = shorten(f.clean(f"not there: {why}"), width - cells(left) - 1)
        return (*left, (words, "bad"))

    def _line(self, engine: EngineTrack, view: View, width: int) -> Row:
        here = engine.name == view.store.selected
        sample = engine.sample
        mark = (
            view.glyphs.cursor if here else view.glyphs.dot if engine.name == view.beside else " "
        )
        name = f.clean(engine.name, 16).ljust(16)
        left: list[Span] = [(f" {mark} ", "key"), (name, STRONG if here else TEXT)]
        head = headline(view, engine)
        block = f" {view.glyphs.block}{head.word.ljust(WORD)} "
        left += [(block, head.role), *state_spans(engine, view)]
        if engine.stale_since is not None:
            left.append((f" {stale_words(view, engine)}", "bad"))
        state = engine.status.state if engine.status else State.READY
        if sample is None or state not in (State.READY, State.UNRESPONSIVE, State.STOPPING):
            return fit(left, width)
        share = sample.kv_usage
        right = join(
            [
                (1, [("run ", MUTED), (f.count(sample.running).rjust(4), STRONG)]),
                (2, [("wait ", MUTED), (f.count(sample.waiting).rjust(4), STRONG)]),
                (3, [("KV ", MUTED), *bar(share, 10, kv_role(share), view.glyphs)]),
                (4, [(f.percent(share).rjust(4), STRONG)]),
                (0, [(f.rate(sample.output_tokens_per_s).rjust(6), STRONG), (" tok/s", MUTED)]),
            ],
            max(0, width - cells(left) - 3),
        )
        if engine.stale_since is not None:
            right = faded(right)
        return sides(left, [*right, (" ", TEXT)], width)


def _count(rows: list[Row], at: int, hidden: int) -> None:
    """Show how many engines are hidden, in place of the mark of a row that has none."""
    if hidden > 0 and rows and not rows[at][0][0].strip():
        rows[at] = ((f"+{hidden}".ljust(3) if hidden < 100 else "99+", MUTED), *rows[at][1:])

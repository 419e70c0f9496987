"""The requests inside the selected engine: a live table to sort, filter and choose from."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual.binding import BindingType
from textual.events import Key

from llmtop.config.key_table import Place
from llmtop.engines.core.requests import Aborted, RequestRow, RequestSort, RequestTable
from llmtop.tui.commands.control import Control, refusal
from llmtop.tui.keys.bindings import bindings
from llmtop.tui.keys.line_editor import edited_filter
from llmtop.tui.layout.typing import TypedText
from llmtop.tui.plots.request_rows import detail_rows, matches, table_rows, total_words
from llmtop.tui.screens.inside.confirm import AbortScreen
from llmtop.tui.screens.inside.inside_screen import InsideScreen, filled, foot
from llmtop.tui.view.page import paragraph_rows, title_row
from llmtop.tui.view.view import View
from llmtop.tui.widgets.row import MUTED, STRONG, Row, Span, fit
from llmtop.wording import format as f

EVERY_S = 1.0  # between two reads, because the engine makes the table between two steps
MOST = 50  # requests
LONGEST = 60  # characters of the filter
SORT_WORDS = {"age": "age", "kv": "KV blocks", "tokens": "output tokens", "wait": "wait"}
KEYS = [
    *("requests.age", "requests.kv", "requests.tokens", "requests.wait"),
    *("requests.filter", "requests.details", "requests.abort", "requests.back", "help"),
]


class RequestsScreen(TypedText, InsideScreen):
    """The table is read once a second. The cursor stays on its request while rows move."""

    NAME = "requests"
    help_places: ClassVar[tuple[Place, ...]] = (Place.REQUESTS,)
    ACTIONS: ClassVar[dict[str, str]] = {
        "requests.up": "move(-1)",
        "requests.down": "move(1)",
        "requests.age": "sort('age')",
        "requests.kv": "sort('kv')",
        "requests.tokens": "sort('tokens')",
        "requests.wait": "sort('wait')",
        "requests.filter": "filter",
        "requests.details": "details",
        "requests.abort": "abort",
        "requests.back": "back",
    }
    BINDINGS: ClassVar[list[BindingType]] = bindings(ACTIONS)

    def __init__(self, make_view: Callable[[], View], control: Control, beat_s: float) -> None:
        super().__init__(make_view, control, beat_s)
        self._table: RequestTable | None = None
        self._note = ""
        self._sort: RequestSort = "age"
        self._filter = ""
        self._typing = False
        self._chosen: str | None = None  # the id that the cursor is on
        self._details_open = False  # details are shown
        self._asking = False

    def on_mount(self) -> None:
        """Read at once, then once a second."""
        self.set_interval(EVERY_S, self.read)
        self.read()
        super().on_mount()

    def read(self) -> None:
        """Read the table, one request at a time, and none while another screen is on top."""
        if self.is_seen and not self.away and not self._asking:
            self._asking = True
            self.run_worker(self._read(), group="requests", exit_on_error=False)

    async def _read(self) -> None:
        engine = self._make_view().engine
        try:
            if engine is not None:
                self._table = await self._control.requests(engine.name, self._sort, MOST)
                self._note = ""
        except Exception as error:
            self._note = f.clean(refusal(error))
        finally:
            self._asking = False
        self.redraw()

    def _rows(self) -> list[RequestRow]:
        rows = self._table.rows if self._table is not None else ()
        return [row for row in rows if matches(row, self._filter)]

    def _cursor(self, rows: list[RequestRow]) -> int:
        found = next((at for at, row in enumerate(rows) if row.id == self._chosen), 0)
        if rows:
            self._chosen = rows[found].id
        return found

    def page(self, view: View, width: int, height: int) -> list[Row]:
        """Title, totals, table, details of one request, keys."""
        state: Span = ("live", "good") if self._table is not None else ("no requests", MUTED)
        rows = [title_row("requests", view.engine, state, view, width)]
        last = self._last_line(view, width)
        if self._table is None or self._note:
            rows += [(), *paragraph_rows([self._note or "asking the engine"], width)]
            return filled(rows, last, height)
        total = total_words(self._table)
        sort = f"  sorted by {SORT_WORDS[self._sort]}"
        rows.append(fit([(f" {total}", STRONG), (sort, MUTED)], width))
        listed = self._rows()
        cursor = self._cursor(listed)
        details = detail_rows(listed[cursor], width) if self._details_open and listed else []
        room = height - 3 - (len(details) + 1 if details else 0)
        top = max(0, min(cursor - (room - 1) // 2, len(listed) - (room - 1)))
        rows += table_rows(listed, cursor, top, room, view, width)
        if not listed:
            words = (
                f"no request has '{self._filter}'" if self._filter else "the engine has no request"
            )
            rows.append(fit([(f"  {words}", MUTED)], width))
        if details:
            rows += [()] * (height - 2 - len(details) - len(rows))
            rows += [(), *details]
        return filled(rows, last, height)

    def _last_line(self, view: View, width: int) -> Row:
        if self._typing:
            return fit([(" filter: ", MUTED), (self._filter, STRONG), ("_", "edit")], width)
        line = foot(KEYS, view, width)
        if self._filter:
            return fit([(f" '{self._filter}' ", STRONG), *line], width)
        return line

    def take_key(self, event: Key) -> bool:
        """Characters belong to the filter while it is typed."""
        if not self._typing:
            return False
        found = edited_filter(self._filter, event.key, event.character, LONGEST)
        if found is None:
            return False
        self._filter, self._typing = found
        self.redraw()
        return True

    def action_move(self, by: int) -> None:
        """Move the cursor to the row above (-1) or below (1)."""
        rows = self._rows()
        if rows:
            self._chosen = rows[max(0, min(len(rows) - 1, self._cursor(rows) + by))].id
            self.redraw()

    def action_sort(self, sort: RequestSort) -> None:
        """Sort by another figure. The engine does it, because it knows all its requests."""
        self._sort = sort
        self.read()
        self.redraw()

    def action_filter(self) -> None:
        """Begin to type the filter: a text in the id or the state."""
        self._typing, self._filter = True, ""
        self.redraw()

    def action_details(self) -> None:
        """Show all facts of the request under the cursor, or hide them."""
        self._details_open = not self._details_open
        self.redraw()

    def action_back(self) -> None:
        """End the filter; without one close the details; without them leave the screen."""
        if self._filter:
            self._filter = ""
        elif self._details_open:
            self._details_open = False
        else:
            self.app.pop_screen()
            return
        self.redraw()

    def action_abort(self) -> None:
        """Abort the request under the cursor, once that is confirmed."""
        view, rows = self._make_view(), self._rows()
        engine = view.engine
        if view.readonly:
            self.notify("read-only", markup=False, timeout=2)
            return
        if engine is None or not rows:
            return
        name, row = engine.name, rows[self._cursor(rows)]

        async def abort() -> None:
            try:
                done = await self._control.abort(name, [row.id])
            except Exception as error:
                self.show_error(error)
            else:
                self.notify(f.clean(aborted_words(row.id, done)), markup=False, timeout=5)
            self.read()

        def answered(yes: bool | None) -> None:
            if yes:
                self.run_worker(abort(), group="commands", exit_on_error=False)

        self.app.push_screen(AbortScreen(engine, row, self._make_view), answered)


def aborted_words(ident: str, done: Aborted) -> str:
    """The result of the abort of one request, in words."""
    if ident in done.aborted:
        return f"{ident} is aborted"
    if ident in done.ended_before:
        return f"{ident} had ended already"
    reason = next((why for other, why in done.refused if other == ident), "no answer")
    return f"{ident} is not aborted: {reason}"

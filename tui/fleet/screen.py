"""The fleet screen: a table that is queried at one interval and painted at another."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.events import Key, MouseScrollDown, MouseScrollUp, Resize

from llmtop.config.key_table import BY_ID, Place
from llmtop.fleet.instances import Id, Instance, State
from llmtop.fleet.observer import Table
from llmtop.fleet.words import age_words
from llmtop.tui.fleet.listing import BY, Choice, Line, Order, listed
from llmtop.tui.fleet.rows import ROLES, head_row, layout, line_row
from llmtop.tui.keys.bindings import bindings
from llmtop.tui.keys.line_editor import edited_filter
from llmtop.tui.layout.typing import TypedText
from llmtop.tui.textual_private.compositor import TightScreen
from llmtop.tui.view.page import sentence_rows
from llmtop.tui.view.view import View
from llmtop.tui.widgets.canvas import Canvas
from llmtop.tui.widgets.frame import Ranked
from llmtop.tui.widgets.row import MUTED, TEXT, Row, Span, fit, join, sides
from llmtop.values import replace
from llmtop.wording import format as f

PAINT_S = 1.0
WHEEL = 3
LONGEST = 60
KEYS = ("open", "sort", "group", "filter", "pin", "ssh")


class FleetScreen(TypedText, TightScreen):
    """The table of all instances.

    make_view: the input of the widgets. query: reads the table; it never raises. place: the address
    of the Prometheus. interval: seconds between two queries. chosen: called with the instance to
    open, and whether through ssh. message: the result of the instance opened last; shown until the
    cursor moves. wall: unix seconds.
    """

    help_places: ClassVar[tuple[Place, ...]] = (Place.FLEET,)
    ACTIONS: ClassVar[dict[str, str]] = {
        "fleet.up": "move(-1)",
        "fleet.down": "move(1)",
        "fleet.page_up": "page(-1)",
        "fleet.page_down": "page(1)",
        "fleet.first": "move(-1000000)",
        "fleet.last": "move(1000000)",
        "fleet.open": "open(False)",
        "fleet.ssh": "open(True)",
        "fleet.sort": "sort",
        "fleet.group": "group",
        "fleet.pin": "pin",
        "fleet.filter": "filter",
        "fleet.back": "back",
    }
    BINDINGS: ClassVar[list[BindingType]] = bindings(ACTIONS)

    def __init__(
        self,
        make_view: Callable[[], View],
        query: Callable[[], Awaitable[Table]],
        place: str,
        interval: float,
        chosen: Callable[[Instance, bool], None],
        choice: Choice,
        *,
        message: str = "",
        wall: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        self._make_view = make_view
        self._query = query
        self._place = place
        self._interval = interval
        self._chosen = chosen
        self.choice = choice
        self._message = message
        self._wall = wall
        self.table: Table | None = None
        self._lines: list[Line] = []
        self._listed: tuple[Table | None, Choice] | None = None  # the input of the lines
        self._at: Id | None = None
        self._top = 0
        self._typing = False
        self._querying = False

    def compose(self) -> ComposeResult:
        """One canvas."""
        yield Canvas(id="fleet")

    def on_mount(self) -> None:
        """Query at once, then periodically; paint more often, because the shown ages grow."""
        self.set_interval(self._interval, self.request_table)
        self.set_interval(PAINT_S, self.paint)
        self.request_table()
        self.call_after_refresh(self.paint)

    def on_resize(self, event: Resize) -> None:
        """Paint again."""
        self.call_after_refresh(self.paint)

    def request_table(self) -> None:
        """Query the table in the background, one query at a time, so that no key waits for it."""
        if not self._querying:
            self._querying = True
            self.run_worker(self._renew(), group="fleet", exit_on_error=False)

    async def _renew(self) -> None:
        try:
            self.table = await self._query()
        finally:
            self._querying = False
        self.paint()

    def redraw(self) -> None:
        """Paint now."""
        self.paint()

    def paint(self) -> None:
        """Draw the title, the visible lines, the detail and the keys."""
        canvas = self.query_one(Canvas)
        width, height = canvas.size
        if width < 20 or height < 6:
            return
        view = self._make_view()
        self._list()
        at = self._index()
        room = height - 4
        self._scroll(at, room)
        shape = layout(width)
        rows = [self._title(view, width), head_row(shape, width)]
        for number, line in enumerate(self._lines[self._top : self._top + room], self._top):
            rows.append(line_row(line, shape, width, view.glyphs, chosen=number == at))
        if not self._lines:
            if self.table is not None and self.table.trouble:
                rows += sentence_rows(self.table.trouble, "bad", width, room)
            rows += sentence_rows(self._empty(), MUTED, width, room)
        rows = rows[: height - 2]
        rows += [fit((), width)] * (height - 2 - len(rows))
        rows += [self._detail(at, width), self._foot(view, width)]
        canvas.put(rows, view.glyphs)

    def _list(self) -> None:
        """The lines of the table, rebuilt when the table or the choice changed."""
        made_of = self._listed
        if made_of is None or made_of[0] is not self.table or made_of[1] is not self.choice:
            instances = self.table.instances if self.table is not None else ()
            self._lines = listed(instances, self.choice)
            self._listed = self.table, self.choice

    def _title(self, view: View, width: int) -> Row:
        table = self.table
        words: list[Ranked] = [
            (0, [("llmtop", "brand")]),
            (0, [("fleet", "title")]),
            (3, [(self._place, MUTED)]),
        ]
        counts = Counter(one.state for one in table.instances) if table is not None else Counter()
        states: list[Span] = []
        for state in State:
            if counts[state]:
                states.append(
                    (f"{view.glyphs.bullet} {counts[state]:,} {state.value}  ", ROLES[state])
                )
        words.append((0, states))
        words.append((2, [(f"by {self.choice.order}", MUTED)]))
        if table is not None and table.trouble and table.instances:
            words.insert(2, (0, [(age_words(table, self._wall()), "bad")]))
        right: list[Span] = []
        if table is not None and not table.trouble:
            right = [(f"{f.duration(max(0.0, self._wall() - table.time))} ago ", MUTED)]
        return sides([(" ", TEXT), *join(words, width - 12)], right, width)

    def _empty(self) -> str:
        if self.table is None:
            return f"asking {self._place} …"
        if self.table.trouble:
            return self.table.hint
        if self.choice.needle:
            return f"no instance contains {self.choice.needle!r}"
        return "this Prometheus scrapes no matching vLLM, SGLang or TensorRT-LLM"

    def _detail(self, at: int | None, width: int) -> Row:
        """The message or the query error, else the details of the chosen instance."""
        if self._message:
            return fit([(f" {f.clean(self._message)}", "warn")], width)
        if self.table is not None and self.table.trouble and self._lines:
            return fit([(f" {f.clean(self.table.trouble)}", "bad")], width)
        line = self._lines[at] if at is not None else None
        if not isinstance(line, Instance):
            return fit((), width)
        job = f"job {line.job}" if line.job else ""
        age = f"scraped {f.duration(line.age_s)} ago" if line.age_s is not None else ""
        words = (line.reason, line.model or "", line.engine, line.version or "", job, age)
        text = "  ".join(f.clean(word) for word in words if word)
        return fit([(f" {text}", MUTED)], width)

    def _foot(self, view: View, width: int) -> Row:
        if self._typing or self.choice.needle:
            cursor: list[Span] = [("_", "edit")] if self._typing else []
            return fit([(" filter: ", MUTED), (self.choice.needle, "strong"), *cursor], width)
        groups: list[Ranked] = [
            (
                rank,
                [
                    (view.keys.label(f"fleet.{name}"), "key"),
                    (f" {BY_ID[f'fleet.{name}'].short}", MUTED),
                ],
            )
            for rank, name in enumerate(KEYS)
        ]
        groups += [(2, [(view.keys.label("help"), "key"), (" help", MUTED)])]
        groups += [(1, [(view.keys.label("quit"), "key"), (" quit", MUTED)])]
        return fit([(" ", TEXT), *join(groups, width - 2)], width)

    def _index(self) -> int | None:
        """The index of the chosen line; the first instance if the chosen one is gone."""
        instances = [n for n, line in enumerate(self._lines) if isinstance(line, Instance)]
        if not instances:
            return None
        for number in instances:
            line = self._lines[number]
            if isinstance(line, Instance) and line.id == self._at:
                return number
        first = self._lines[instances[0]]
        assert isinstance(first, Instance)
        self._at = first.id
        return instances[0]

    def _scroll(self, at: int | None, room: int) -> None:
        if at is not None:
            # Keep the heading above the first instance visible.
            self._top = min(self._top, max(0, at - 1))
            self._top = max(self._top, at - room + 1)
        self._top = max(0, min(self._top, len(self._lines) - room))

    def take_key(self, event: Key) -> bool:
        """Add a key to the filter while it is typed; return whether it was."""
        if not self._typing:
            return False
        found = edited_filter(self.choice.needle, event.key, event.character, LONGEST)
        if found is None:
            return False
        needle, self._typing = found
        self._choose(replace(self.choice, needle=needle))
        return True

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        """Move the cursor up."""
        self.action_move(-WHEEL)

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        """Move the cursor down."""
        self.action_move(WHEEL)

    def action_move(self, steps: int) -> None:
        """Move the cursor by ``steps`` instances: up (negative) or down."""
        self._message = ""
        ids = [line.id for line in self._lines if isinstance(line, Instance)]
        if ids:
            at = ids.index(self._at) if self._at in ids else 0
            self._at = ids[max(0, min(len(ids) - 1, at + steps))]
        self.paint()

    def action_page(self, direction: int) -> None:
        """Move the cursor one page up (-1) or down (1)."""
        self.action_move(direction * max(1, self.size.height - 6))

    def action_open(self, by_ssh: bool) -> None:
        """Open the chosen instance, through ssh if ``by_ssh``."""
        for line in self._lines:
            if isinstance(line, Instance) and line.id == self._at:
                self._chosen(line, by_ssh)

    def action_sort(self) -> None:
        """Sort by the next key."""
        orders = list(Order)
        self._choose(
            replace(self.choice, order=orders[(orders.index(self.choice.order) + 1) % len(orders)])
        )

    def action_group(self) -> None:
        """Group by the next label."""
        now = self.choice.by[0] if len(self.choice.by) == 1 else ""
        following = BY[(BY.index(now) + 1) % len(BY)] if now in BY else BY[0]
        self._choose(replace(self.choice, by=(following,) if following else ()))

    def action_pin(self) -> None:
        """Pin or unpin the chosen instance."""
        if self._at is not None:
            self._choose(replace(self.choice, pinned=self.choice.pinned ^ {self._at}))

    def action_filter(self) -> None:
        """Start to type a filter."""
        self._typing = True
        self.paint()

    def action_back(self) -> None:
        """Remove the filter."""
        self._choose(replace(self.choice, needle=""))

    def _choose(self, choice: Choice) -> None:
        self.choice = choice
        self.paint()

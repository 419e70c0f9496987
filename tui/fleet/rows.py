"""The lines of the fleet table as rows of text with roles. Pure."""

from __future__ import annotations

from msgspec import Struct

from llmtop.fleet.groups import Group
from llmtop.fleet.instances import Instance, State
from llmtop.fleet.words import HEADS, cells, price
from llmtop.tui.fleet.listing import Line
from llmtop.tui.widgets.glyphs import Glyphs
from llmtop.tui.widgets.row import MUTED, STRONG, TEXT, Row, Span, cell_len, fit, join, shorten
from llmtop.wording import format as f

ROLES = {
    State.GONE: "bad",
    State.HUNG: "bad",
    State.STALE: "warn",
    State.RESTARTED: "mark",
    State.READY: "good",
}
STATE_CELLS = max(len(state.value) for state in State)


class Column(Struct, frozen=True):
    """A column. cells: its width. rank: high ranks are dropped first. left: align left."""

    head: str
    cells: int
    rank: int
    left: bool = False


COLUMNS = (
    Column("RUN", 5, 0),
    Column("WAIT", 5, 0),
    Column("KV", 4, 1),
    Column("TTFT p95", 10, 1),
    Column("n", 6, 4),
    Column("TOK/S", 6, 1),
    Column("HITS", 4, 3),
    Column("PREEMPT", 7, 3),
    Column("POWER", 6, 2),
    Column("$/M tok", 7, 2),
    Column("HOST", 16, 5, left=True),
)
GAP = 2
LEAST_NAME, MOST_NAME = 21, 36
LEAST_DETAIL = 24


class Layout(Struct, frozen=True):
    """The columns that fit. name, detail: widths of those two columns; 0: no detail."""

    columns: tuple[Column, ...]
    name: int
    detail: int


def layout(width: int) -> Layout:
    """Fit as many columns as possible beside state and name; the detail gets the rest."""
    fixed = 2 + STATE_CELLS + GAP  # the cursor and the state
    columns = list(COLUMNS)
    while columns and fixed + LEAST_NAME + sum(one.cells + GAP for one in columns) > width:
        columns.remove(max(columns, key=lambda one: (one.rank, one.cells)))
    left = width - fixed - sum(one.cells + GAP for one in columns)
    name = max(8, min(MOST_NAME, left if left < LEAST_NAME + LEAST_DETAIL else left - LEAST_DETAIL))
    detail = left - name - GAP
    return Layout(tuple(columns), name, detail if detail >= 8 else 0)


def head_row(shape: Layout, width: int) -> Row:
    """The names of the columns."""
    text = "  " + _padded("STATE", STATE_CELLS, left=True) + " " * GAP
    text += _padded("INSTANCE", shape.name, left=True)
    for one in shape.columns:
        text += " " * GAP + _padded(one.head, one.cells, left=one.left)
    if shape.detail:
        text += " " * GAP + "DETAIL"
    return fit([(text, MUTED)], width)


def line_row(line: Line, shape: Layout, width: int, glyphs: Glyphs, *, chosen: bool) -> Row:
    """One line of the table."""
    if isinstance(line, Instance):
        return _instance_row(line, shape, width, glyphs, chosen=chosen)
    if isinstance(line, Group):
        return _group_row(line, width, glyphs)
    return fit([(f" {line}", STRONG)], width)


def _instance_row(one: Instance, shape: Layout, width: int, glyphs: Glyphs, *, chosen: bool) -> Row:
    texts = dict(zip(HEADS, cells(one), strict=True))
    role = TEXT if one.fresh else MUTED
    cursor = glyphs.cursor if chosen else " "
    spans: list[Span] = [
        (f"{cursor} ", "key"),
        (_padded(one.state.value, STATE_CELLS, left=True), ROLES[one.state]),
        (" " * GAP + _padded(f.clean(one.instance, 60), shape.name, left=True), role),
    ]
    for column in shape.columns:
        words = _padded(texts[column.head], column.cells, left=column.left)
        waiting = column.head == "WAIT" and one.sample is not None and one.sample.waiting
        spans.append((" " * GAP + words, "warn" if waiting and one.fresh else role))
    if shape.detail and one.reason:
        spans.append((" " * GAP + shorten(f.clean(one.reason), shape.detail), MUTED))
    if chosen:
        spans = [(text, kind if kind in ("good", "bad", "warn", "mark") else STRONG)
                 for text, kind in spans]  # fmt: skip
    return fit(spans, width)


def _group_row(group: Group, width: int, glyphs: Glyphs) -> Row:
    ready = dict(group.states)
    states: list[Span] = []
    for state in State:
        if count := ready.get(state.value):
            states += [(" ", TEXT)] if states else []
            states.append((f"{count} {state.value}", ROLES[state]))
    ttft = group.ttft
    p95 = f.quantile(ttft.p95 if ttft is not None else None)
    window = f" n={f.count(ttft.n)}/{f.span(ttft.window_s)}" if ttft is not None else ""
    uneven = [(f"{glyphs.up} {f.clean(group.imbalance[0])}", "warn")] if group.imbalance else []
    name = f.clean(group.name, 60)
    spans = join(
        [
            (0, [(name, "title")]),
            (0, states),
            (1, [(f"run {f.count(group.running)}", TEXT)]),
            (1, [(f"wait {f.count(group.waiting)}", "warn" if group.waiting else TEXT)]),
            (2, [(f"TTFT p95 {p95}{window}", TEXT)]),
            (2, [(f"{f.rate(group.output_tokens_per_s)} tok/s", TEXT)]),
            (4, [(f"KV {f.percent(group.kv_usage)}", TEXT)]),
            (5, [(f"{group.power_w:,.0f}W", TEXT)] if group.power_w is not None else []),
            (5, _price(group)),
            (3, uneven),
        ],
        width - 2,
    )
    return fit([(" ", TEXT), *spans], width)


def _price(group: Group) -> list[Span]:
    dollars = group.dollars_per_million_tokens
    return [] if dollars is None else [(f"{price(dollars)} $/M tok", TEXT)]


def _padded(text: str, size: int, *, left: bool) -> str:
    text = shorten(text, size)
    pad = " " * (size - cell_len(text))
    return text + pad if left else pad + text

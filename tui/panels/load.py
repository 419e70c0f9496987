"""The load panel: requested and achieved load, failures, validity of the measurement."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmtop.analysis.series import SeriesName
from llmtop.config.key_table import BY_ID
from llmtop.tui.view.elsewhere import short_reason
from llmtop.tui.view.panel import Panel
from llmtop.tui.view.view import LifecycleView, View
from llmtop.tui.widgets.axis import columns, nice, time_grid
from llmtop.tui.widgets.braille import overlay, plot
from llmtop.tui.widgets.chart import merged
from llmtop.tui.widgets.frame import Ranked, frame
from llmtop.tui.widgets.row import MUTED, STRONG, TEXT, Row, Span, join, shorten, width
from llmtop.wording import format as f

if TYPE_CHECKING:
    from llmtop.loadgen.core.results import ClientHealth, LatencySummary, LoadSnapshot
    from llmtop.operations.shared_load import SharedLoad

RUNNING = ("load.hold", "load.burst", "load.stop", "load.cut", "load.loop")
RANKS = {"load.stop": 1, "load.hold": 2}  # the keys that a narrow panel leaves out last


class LoadPanel(Panel):
    """Shape above, keys below, results between."""

    def draw(self, view: View, width: int, height: int) -> list[Row]:
        """The box. If not all rows fit, the least important ones are left out."""
        load = view.load
        inner, room = width - 4, max(0, height - 2)
        other = view.engine.shared_load if view.engine is not None else None
        if other is not None and view.client is None:
            return frame(
                _other_load(other, inner), width, height, view.glyphs,
                title="load of another llmtop", head=[(0, [(f.clean(other.shape, 60), "load")])],
            )  # fmt: skip
        if load is None:
            return self._none(view, width, height)
        groups = [
            (0, [(" ", TEXT), *_level(load, inner)]),
            (1, [(" ", TEXT), *_outcome(load, inner)]),
            (4, [(" ", TEXT), *_speed(load, inner)]),
            (3, [(" ", TEXT), *_errors(load, inner, view)] if load.errors else []),
            # If the client was the limit, all other numbers are worthless: then this row stays.
            (5 if _valid(load.health) else 2, [(" ", TEXT), *_client(load, inner, view)]),
        ]
        rows = [(rank, tuple(spans)) for rank, spans in groups if spans]
        while len(rows) > room:
            rows.remove(max(rows, key=lambda row: row[0]))
        body: list[Row] = [row for _, row in rows]
        free = room - len(body)
        if free > 0:
            body = [*_history(view, inner, min(free, 9)), *body]
        ending = "draining" if load.in_flight else "ended"
        state = "" if load.running else ending
        state = f"held at {load.asked:,g}" if load.held and load.running else state
        shape: list[Span] = [("shape ", MUTED)] if load.held else []
        head: list[Ranked] = [
            (0, [(state, "warn" if load.held else MUTED)] if state else []),
            (1, [*shape, (f.clean(load.shape, 60), "load")]),
        ]
        return frame(
            body, width, height, view.glyphs, title="load", head=head, foot=_keys(view, load, width)
        )

    def _none(self, view: View, width: int, height: int) -> list[Row]:
        if view.stage is not LifecycleView.RUNNING:
            words: list[Span] = [(" no load while the engine does not run", MUTED)]
        elif view.replay is not None:
            words = [(" no load is recorded at this moment", MUTED)]
        elif view.elsewhere:
            words = [(f" {short_reason(view)}", MUTED)]
        elif view.readonly:
            words = [(" no load; read-only", MUTED)]
        elif view.store.load is not None and view.store.load_target:
            words = [(f" the load goes to {f.clean(view.store.load_target, 24)}", MUTED)]
        else:
            key = view.keys.label("load.more")
            words = [(" no load yet.  ", MUTED), (key, "key"), (" starts one stream", MUTED)]
        return frame([tuple(words)], width, height, view.glyphs, title="load")


def _other_load(other: SharedLoad, cells: int) -> list[Row]:
    """The load that another process sends to this engine, as that process reports it."""
    unit = " req/s" if other.loop == "open" else " streams"
    state = "held" if other.held else "running" if other.running else "draining"
    groups: list[list[Ranked]] = [
        [
            (0, [("asked ", MUTED), (f.short(other.asked), "load"), (unit, MUTED)]),
            (1, [("in flight ", MUTED), (f.count(other.in_flight), STRONG)]),
            (2, [(state, MUTED)]),
        ],
        [
            (0, [("ok ", MUTED), (f.count(other.ok), "good" if other.ok else STRONG)]),
            (1, _refused(other)),
            (1, [("failed ", MUTED), (f.count(other.failed), "bad" if other.failed else STRONG)]),
            (2, [(f.rate(other.requests_per_s), STRONG), (" req/s", MUTED)]),
        ],
        [
            (0, [("TTFT p95 ", MUTED), (f.latency(other.ttft_p95), STRONG)]),
            (1, [(f"process {other.pid} steers it", MUTED)]),
        ],
    ]
    return [((" ", TEXT), *join(group, cells)) for group in groups]


def _level(load: LoadSnapshot, cells: int) -> list[Span]:
    unit = " req/s" if load.loop == "open" else " streams"
    return join(
        [
            (0, [("asked ", MUTED), (f.short(load.asked), "load"), (unit, MUTED)]),
            (1, [("in flight ", MUTED), (f.count(load.in_flight), STRONG)]),
            (2, [("first token awaited ", MUTED), (f.count(load.waiting_first), STRONG)]),
        ],
        cells,
    )


def _refused(load: LoadSnapshot | SharedLoad) -> list[Span]:
    """Requests that the full queue of the engine refused: in total, per second; [] if none."""
    if not load.refused:
        return []
    return [
        ("refused ", MUTED),
        (f.count(load.refused), "warn"),
        (f" {f.rate(load.refused_per_s)}/s", "warn"),
    ]


def _outcome(load: LoadSnapshot, cells: int) -> list[Span]:
    return join(
        [
            (0, [("ok ", MUTED), (f.count(load.ok), "good" if load.ok else STRONG)]),
            (1, _refused(load)),
            (1, [("failed ", MUTED), (f.count(load.failed), "bad" if load.failed else STRONG)]),
            (4, [("cut ", MUTED), (f.count(load.cut), STRONG)]),
            # Late and unsent requests are part of the requested load: shown if there is one.
            (2, [("late ", MUTED), (f.count(load.late), "warn")] if load.late else []),
            (2, [("not sent ", MUTED), (f.count(load.not_sent), "bad")] if load.not_sent else []),
            (5, [("thinking ", MUTED), (f.count(load.thinking), STRONG)] if load.thinking else []),
            (3, [(f.rate(load.requests_per_s), STRONG), (" req/s", MUTED)]),
            (6, [(f.rate(load.output_tokens_per_s), STRONG), (" tok/s", MUTED)]),
        ],
        cells,
    )


def _speed(load: LoadSnapshot, cells: int) -> list[Span]:
    tpot = load.tpot
    wait = load.oldest_wait_s
    return join(
        [
            (1, [("TPOT p95 ", MUTED), (f.latency(tpot.p95), STRONG), (_count(tpot), MUTED)]),
            (0, [("oldest wait ", MUTED), (f.latency(wait), "waiting" if wait else STRONG)]),
        ],
        cells,
    )


def _errors(load: LoadSnapshot, cells: int, view: View) -> list[Span]:
    worst = sorted(load.errors.items(), key=lambda item: (-item[1], item[0]))
    return join(
        [
            (rank, [(f"{view.glyphs.up} {f.count(n)}x ", "bad"), (f.clean(why, 60), TEXT)])
            for rank, (why, n) in enumerate(worst[:4])
        ],
        cells,
    )


def _client(load: LoadSnapshot, cells: int, view: View) -> list[Span]:
    health = load.health
    clock: Span = (f"{f.clean(health.clock, 20)} clock", MUTED)
    if not _valid(health):
        return _client_causes(health, cells, view, clock)
    lag = health.lag if health.lag is not None and health.lag.p99 is not None else None
    late: list[Span] = [(f"lag p99 {f.latency(lag.p99)}{_count(lag)}", MUTED)] if lag else []
    return join([(0, [("client valid", MUTED)]), (1, late), (2, [clock])], cells)


def _valid(health: ClientHealth) -> bool:
    from llmtop.loadgen.statistics.client_health import (
        VALID,  # imported with the first load, not at the start
    )

    return health.verdict == VALID


def _client_causes(health: ClientHealth, cells: int, view: View, clock: Span) -> list[Span]:
    """The figures that this client may have distorted, and by how much.

    As many as fit; the first one in any case.
    """
    up = view.glyphs.up
    if not health.causes:
        return [(shorten(f"{up} {f.clean(health.verdict, 80)}", cells), "warn")]
    first, *more = (f.clean(cause, 80) for cause in health.causes)
    words = shorten(f"{up} client: {first}", cells)
    rest = [(rank, [(cause, "warn")]) for rank, cause in enumerate(more, 1)]
    return join([(0, [(words, "warn")]), *rest, (len(rest) + 1, [clock])], cells)


def _count(found: LatencySummary) -> str:
    """The number of observations of a percentile, and their window."""
    window = f"/{f.span(found.window_s)}" if found.window_s is not None else ""
    return f" n={f.count(found.n)}{window}"


def _history(view: View, cells: int, height: int) -> list[Row]:
    """Requested and achieved load on one time axis. A gap between them: the engine is full."""
    column = 6
    grid = time_grid(view.now, max(1, cells - column))
    gap_s = max(3.0, 2.5 * view.interval)

    def data(name: SeriesName) -> list[float | None]:
        return columns(view.points(name, grid.start - gap_s), grid, view.now, gap_s)

    asked, got = data(SeriesName.ASKED), data(SeriesName.ACHIEVED)
    top = nice(max((v for v in (*asked, *got) if v is not None), default=0.0)) or 1.0
    layers = [
        (plot(got, grid.cells, height, top, fill=True), "requests"),
        (plot(asked, grid.cells, height, top), "load"),
    ]
    drawn = overlay(layers, grid.cells, height, braille=view.glyphs.braille)
    words: list[Span] = [("", MUTED)] * height
    words[-1] = ("got", "requests")
    words[0] = ("asked", "load")
    if height > 3:
        words[1:3] = [(f.short(top), MUTED), words[1]]
    return [
        ((" ", MUTED), (word.ljust(column), role), *merged(line))
        for (word, role), line in zip(words, drawn, strict=True)
    ]


def _keys(view: View, load: LoadSnapshot, cells: int) -> list[Span]:
    if view.readonly:
        return []
    keys = view.keys
    if not load.running:
        start: list[Span] = [(keys.label("load.more"), "key"), (" starts one stream", MUTED)]
        again: list[Span] = [(keys.label("load.again"), "key"), (" repeat the last load", MUTED)]
        cut: list[Span] = [(keys.label("load.cut"), "key"), (" cut the rest", MUTED)]
        return join([(1, again), (2, start), (0, cut if load.in_flight else [])], cells - 5)

    def words(command: str) -> list[Span]:
        word = BY_ID[command].short
        word = "resume" if load.held and command == "load.hold" else word
        return [(keys.label(command), "key"), (f" {word}", MUTED)]

    level_keys: list[Ranked] = [(0, words("load.more")), (0, words("load.less"))]
    for names in (RUNNING, RUNNING[:-1], RUNNING[:-2]):
        rest: list[Ranked] = [(RANKS.get(name, 3), words(name)) for name in names]
        if width(out := join([*level_keys, *rest], 10_000)) <= cells - 5:
            return out
    pair: Ranked = (0, [(keys.pair("load.more", "load.less"), "key")])
    return join([pair, *rest], cells - 5)

"""The charts: TTFT, tokens/s, KV cache, queue, inter-token latency and requests/s over time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from msgspec import Struct

from llmtop.engines.samples import Latency
from llmtop.tui import format as f
from llmtop.tui.marks import Mark
from llmtop.tui.panels import per_token, speculation
from llmtop.tui.panels.panel import Panel
from llmtop.tui.panels.view import View
from llmtop.tui.series import SeriesName
from llmtop.tui.widgets.axis import Scale, TimeGrid, Trail, time_grid
from llmtop.tui.widgets.chart import GUTTER, Trace, chart_rows
from llmtop.tui.widgets.frame import Ranked, frame, head_room
from llmtop.tui.widgets.row import MUTED, STRONG, Row, Span, faded, join
from llmtop.tui.widgets.row import width as cells

# Of an idle engine a chart has two faces by turns: its newest cell is drawn half, then whole.
DRAWN = 2
BORDER = 8  # cells of a lower border that words on its two sides leave to the line


class Line(Struct, frozen=True):
    """One series of a chart. fill: the area below it too. rule: a limit, as a broken line."""

    series: SeriesName
    role: str
    fill: bool = False
    rule: bool = False


class ChartKind(Struct, frozen=True):
    """What a chart is about. head: the numbers in its upper border, each with its rank,
    for that many cells.

    floor: the smallest axis maximum. fixed: an axis that never moves (percentages).
    foot: more words for the lower border of a box so wide, [] for none. empty: what stands in a
    chart without a single value.
    """

    title: str
    lines: tuple[Line, ...]
    label: Callable[[float], str]
    head: Callable[[View, int], Sequence[Ranked]]
    floor: float
    fixed: bool = False
    foot: Callable[[View, int], list[Span]] = lambda view, width: []
    empty: Callable[[View], str] = lambda view: "no data yet"


class ChartPanel(Panel):
    """A chart in a box: numbers above; window, and the newest mark's words, below."""

    def __init__(self, kind: ChartKind, *, id: str) -> None:
        super().__init__(id=id)
        self._kind = kind
        self._scale = Scale(kind.floor)
        self._shown: frozenset[str] = frozenset()
        self._drawn: deque[tuple[tuple[object, ...], list[Row]]] = deque(maxlen=DRAWN)
        self._trails: dict[tuple[str, SeriesName], Trail] = {}

    def draw(self, view: View, width: int, height: int) -> list[Row]:
        """The box with its chart."""
        kind = self._kind
        other = view.other
        shown = frozenset(v.engine.name for v in (view, other) if v is not None and v.engine)
        if shown != self._shown:  # another engine: its axis, not the last one's
            self._shown, self._scale = shown, Scale(kind.floor)
            self._trails.clear()
        grid = time_grid(view.now, max(1, width - 2 - GUTTER - 1))
        gap_s = max(3.0, 2.5 * view.interval)
        traces = self._traces(view, grid, gap_s)
        peak = _peak(traces, grid)
        if other is not None:  # both on one axis, or they could not be compared
            peak = max(peak, _peak(self._traces(other, grid, gap_s), grid))
        maximum = kind.floor if kind.fixed else self._scale.fit(peak, view.now)
        marks = [m for m in view.engine.marks if m.time >= grid.start] if view.engine else []
        places, empty = [grid.cell_of(m.time) for m in marks], kind.empty(view)
        head, foot = _head(kind, view, width), _foot(kind, view, grid, width)
        mark = _mark_words(marks, grid, width - BORDER - cells(foot))
        made_of = (traces, maximum, places, empty, head, foot, mark, width, height, view.glyphs)
        for before, rows in self._drawn:
            if before == made_of:
                return rows
        body = chart_rows(
            traces,
            grid,
            height - 2,
            maximum,
            view.glyphs,
            label=kind.label,
            marks=[m.time for m in marks],
            empty=empty,
        )
        rows = frame(
            body,
            width,
            height,
            view.glyphs,
            title=kind.title,
            head=head,
            foot=foot,
            foot_right=mark,
        )
        self._drawn.append((made_of, rows))
        return rows

    def _traces(self, view: View, grid: TimeGrid, gap_s: float) -> list[Trace]:
        name = view.engine.name if view.engine is not None else ""
        found = []
        for line in self._kind.lines:
            trail = self._trails.setdefault((name, line.series), Trail())
            data = trail.columns(view.series(line.series), grid, view.now, gap_s)
            found.append(Trace(data, line.role, line.fill, line.rule))
        return found


def _peak(traces: Sequence[Trace], grid: TimeGrid) -> float:
    """The highest value that must be seen, limits that are near included."""
    tops = [max(filter(None, t.columns), default=0.0) for t in traces if not t.rule]
    peak = max(tops, default=0.0)
    # A limit comes into view once it is near; far above, it would only flatten the rest.
    limits = [t.columns[-2] or 0.0 for t in traces if t.rule and grid.cells > 1]
    return max([peak, *(limit for limit in limits if limit <= 2 * peak)])


def _foot(kind: ChartKind, view: View, grid: TimeGrid, width: int) -> list[Span]:
    window: list[Span] = [(f"{grid.window_s}s", MUTED)]
    more = kind.foot(view, width)
    # A mark's words have their room first, also those of a mark to come.
    if not more or cells([*window, *more]) + 22 > width:
        return window
    return [*window, ("  ", MUTED), *more]


def _mark_words(marks: Sequence[Mark], grid: TimeGrid, room: int) -> list[Span]:
    """The newest mark's words, in what the figures leave: no number is torn, and none stands
    without what it became."""
    if not marks or grid.cells <= 12:
        return []
    words = f.clean(marks[-1].label)
    tight = words.replace(" -> ", "->").replace(" → ", "→")
    whole = [tight.rsplit(", ", left)[0] + "…" for left in range(1, tight.count(", ") + 1)]
    name = words.partition(" ")[0] + "…"
    kept = next((one for one in (words, tight, *whole, name) if len(one) <= room), None)
    return [(kept, "mark")] if kept else []


def _head(kind: ChartKind, view: View, width: int) -> Sequence[Ranked]:
    """Stale numbers are dimmed and say how old they are."""
    room = head_room(width, kind.title)
    if view.stale_s is None:
        return kind.head(view, room)
    stale = f"stale {f.duration(view.stale_s)}"
    head = kind.head(view, room - len(stale) - 2)
    return [*((rank, faded(spans)) for rank, spans in head), (0, [(stale, "bad")])]


def _pair(word: str, number: str, role: str) -> list[Span]:
    return [(f"{word} ", role), (number, STRONG)]


def _counted(
    word: str, number: str, role: str, n: int, window_s: float | None, room: int
) -> tuple[Ranked, Ranked]:
    """A percentile and its n and window; in one piece and without the window where it is narrow."""
    own, over = _pair(word, number, role), f"/{f.span(round(window_s))}" if window_s else ""
    counted: list[Span] = [(f"n={f.count(n)}{over}", MUTED)]
    if cells([*own, *counted]) + 2 <= room:
        return (0, own), (0, counted)
    return (0, [*own, (f" n={f.short(n)}", MUTED)]), (0, [])


def _own_head(view: View, latency: Latency, room: int) -> Sequence[Ranked]:
    """The engine's own p95."""
    sample = view.sample
    own = sample.latencies.get(latency) if sample else None
    if own is None or not own.n:
        return [(0, _pair("server p95", f.ABSENT, "server"))]
    return _counted("server p95", f.quantile(own.p95), "server", own.n, own.window_s, room)


def _ttft_head(view: View, room: int) -> Sequence[Ranked]:
    load = view.client
    sample = view.sample
    own = sample.latencies.get(Latency.TTFT) if sample else None
    if load is None or not load.ttft.n:
        return _own_head(view, Latency.TTFT, room)
    ttft = load.ttft
    p95, counted = _counted("p95", f.latency(ttft.p95), "ttft", ttft.n, ttft.window_s, room)
    server: list[Span] = []
    if own is not None and own.n:
        # The client's window stands beside it already; another one has to be said.
        same = ttft.window_s is not None and round(ttft.window_s) == round(own.window_s)
        over = "" if same else f"/{f.span(round(own.window_s))}"
        server = _pair("server p95", f.quantile(own.p95), "server")
        server.append((f" n={f.count(own.n)}{over}", MUTED))
    return [
        (2, _pair("p50", f.latency(ttft.p50), "ttft-low")),
        p95,
        (3, _pair("p99", f.latency(ttft.p99), "ttft-high")),
        counted,
        (1, server),
    ]


def _ttft_foot(view: View, width: int) -> list[Span]:
    """What the upper border has no room for: the client's p99, and the oldest that still waits."""
    load, oldest = view.client, view.value(SeriesName.OLDEST_WAIT)
    groups: list[Ranked] = []
    if load is not None and load.ttft.n:
        p99, room = _pair("p99", f.latency(load.ttft.p99), "ttft-high"), head_room(width, "TTFT")
        if p99[0] not in join(_ttft_head(view, room), room):
            groups.append((1, p99))
    if load is not None and oldest is not None:
        groups.append((0, _pair("oldest wait", f.latency(oldest), "waiting")))
    return join(groups, width)


def _tokens_head(view: View, room: int) -> Sequence[Ranked]:
    return [
        (0, _pair("decode", f.rate(view.value(SeriesName.OUTPUT_TOKENS)), "tokens")),
        (1, _pair("prefill", f.rate(view.value(SeriesName.PROMPT_TOKENS)), "prefill")),
        (2, _pair("requests", f.rate(view.value(SeriesName.REQUESTS)) + "/s", "requests")),
    ]


def _kv_head(view: View, room: int) -> Sequence[Ranked]:
    sample = view.sample
    head: list[Ranked] = [(0, [(f.percent(view.value(SeriesName.KV_USAGE)), STRONG)])]
    if sample is None:
        return head
    if sample.kv_tokens_total:
        words = f"{f.short(sample.kv_tokens_used)}/{f.short(sample.kv_tokens_total)} tok"
        head.append((1, [(words, "kv")]))
    if sample.prefix_hit_rate is not None:
        head.append((3, [("prefix hit ", MUTED), (f.percent(sample.prefix_hit_rate), STRONG)]))
    if sample.preemptions:
        head.append((2, [("preempted ", "warn"), (f.count(sample.preemptions), STRONG)]))
    return head


def _queue_head(view: View, room: int) -> Sequence[Ranked]:
    cap = view.value(SeriesName.CAP)
    return [
        (0, _pair("running", f.count(view.value(SeriesName.RUNNING)), "running")),
        (1, _pair("waiting", f.count(view.value(SeriesName.WAITING)), "waiting")),
        (2, _pair("cap", f.count(cap), "cap") if cap is not None else []),
    ]


def _itl_head(view: View, room: int) -> Sequence[Ranked]:
    return per_token.client_itl(view) or per_token.itl(view)


def _itl_foot(view: View, width: int) -> list[Span]:
    both = per_token.client_itl(view) and per_token.server_itl(view)
    return list(both[0][1]) if both else []


def _spec_head(view: View, room: int) -> Sequence[Ranked]:
    return speculation.figures(view) or [(0, speculation.state_words(view))]


def _spec_empty(view: View) -> str:
    return "nothing was drafted in this time"


def _requests_head(view: View, room: int) -> Sequence[Ranked]:
    return [(0, [(f.rate(view.value(SeriesName.REQUESTS)), STRONG), ("/s", MUTED)])]


S = SeriesName
TTFT = ChartKind(
    "TTFT",
    (
        Line(S.OLDEST_WAIT, "waiting"),
        Line(S.CLIENT_TTFT_P99, "ttft-high"),
        Line(S.CLIENT_TTFT_P50, "ttft-low"),
        Line(S.TTFT_P95, "server"),
        Line(S.CLIENT_TTFT_P95, "ttft"),
    ),
    f.latency,
    _ttft_head,
    floor=0.1,
    foot=_ttft_foot,
)
TOKENS = ChartKind(
    "tokens/s", (Line(S.OUTPUT_TOKENS, "tokens"),), f.short, _tokens_head, floor=100.0
)
KV = ChartKind(
    "KV cache",
    (Line(S.KV_USAGE, "kv", fill=True),),
    f.percent,
    _kv_head,
    floor=1.0,
    fixed=True,
)
QUEUE = ChartKind(
    "queue",
    (
        Line(S.CAP, "cap", rule=True),
        Line(S.RUNNING, "running"),
        Line(S.WAITING, "waiting"),
    ),
    f.short,
    _queue_head,
    floor=10.0,
)
ITL = ChartKind(
    "inter-token latency",
    (Line(S.ITL_P95, "server"), Line(S.CLIENT_ITL_P95, "itl")),
    f.latency,
    _itl_head,
    floor=0.02,
    foot=_itl_foot,
)
SPECULATION = ChartKind(
    "speculation",
    (Line(S.SPEC_ACCEPTANCE, "itl"),),
    f.percent,
    _spec_head,
    floor=1.0,
    fixed=True,
    foot=lambda view, width: speculation.positions(view),
    empty=_spec_empty,
)
REQUESTS = ChartKind("requests/s", (Line(S.REQUESTS, "requests"),), f.rate, _requests_head, floor=5)

CHARTS: dict[str, ChartKind] = {
    "ttft": TTFT,
    "tokens": TOKENS,
    "kv": KV,
    "queue": QUEUE,
    "itl": ITL,
    "speculation": SPECULATION,
    "requests": REQUESTS,
}

"""The numbers in the borders of the latency charts: percentiles, exact mean, n and window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmtop.analysis.series import SeriesName
from llmtop.engines.core.samples import Latency
from llmtop.tui.widgets.frame import Ranked, head_room
from llmtop.tui.widgets.row import MUTED, STRONG, Span, join
from llmtop.tui.widgets.row import width as cells
from llmtop.wording import format as f

if TYPE_CHECKING:
    from llmtop.tui.view.view import View


def pair(word: str, number: str, role: str) -> list[Span]:
    """A name in its role, and its number."""
    return [(f"{word} ", role), (number, STRONG)]


def _counted(
    word: str, number: str, role: str, n: int, window_s: float | None, room: int
) -> tuple[Ranked, Ranked]:
    """A percentile, and its n and window; without room, one group without the window."""
    own, over = pair(word, number, role), f"/{f.span(round(window_s))}" if window_s else ""
    counted: list[Span] = [(f"n={f.count(n)}{over}", MUTED)]
    if cells([*own, *counted]) + 2 <= room:
        return (0, own), (0, counted)
    return (0, [*own, (f" n={f.short(n)}", MUTED)]), (0, [])


def own_head(view: View, latency: Latency, room: int) -> Sequence[Ranked]:
    """The engine's own p95, its exact mean, n and window."""
    sample = view.sample
    own = sample.latencies.get(latency) if sample else None
    if own is None or not own.n:
        return [(0, pair("server p95", f.ABSENT, "server"))]
    p95, counted = _counted(
        "server p95", f.own_quantile(own, own.p95), "server", own.n, own.window_s, room
    )
    return [p95, (1, pair("mean", f.latency(own.mean), "server")), counted]


def ttft_head(view: View, room: int) -> Sequence[Ranked]:
    """TTFT: while our load runs, the client's exact percentiles; and the engine's own."""
    load = view.client
    sample = view.sample
    own = sample.latencies.get(Latency.TTFT) if sample else None
    if load is None or not load.ttft.n:
        return own_head(view, Latency.TTFT, room)
    ttft = load.ttft
    p95, counted = _counted("p95", f.latency(ttft.p95), "ttft", ttft.n, ttft.window_s, room)
    server: list[Span] = []
    if own is not None and own.n:
        # The client's window is shown already. The engine's is shown only if it differs.
        same = ttft.window_s is not None and round(ttft.window_s) == round(own.window_s)
        over = "" if same else f"/{f.span(round(own.window_s))}"
        server = pair("server p95", f.own_quantile(own, own.p95), "server")
        server.append((f" n={f.count(own.n)}{over}", MUTED))
    return [
        (2, pair("p50", f.latency(ttft.p50), "ttft-low")),
        p95,
        (3, pair("p99", f.latency(ttft.p99), "ttft-high")),
        counted,
        (1, server),
        (4, pair("mean", f.latency(own.mean), "server") if server and own is not None else []),
    ]


def ttft_foot(view: View, width: int) -> list[Span]:
    """What does not fit above: the client's p99, and the oldest wait for a first token."""
    load, oldest = view.client, view.value(SeriesName.OLDEST_WAIT)
    groups: list[Ranked] = []
    if load is not None and load.ttft.n:
        p99, room = pair("p99", f.latency(load.ttft.p99), "ttft-high"), head_room(width, "TTFT")
        if p99[0] not in join(ttft_head(view, room), room):
            groups.append((1, p99))
    if load is not None and oldest is not None:
        groups.append((0, pair("oldest wait", f.latency(oldest), "waiting")))
    return join(groups, width)

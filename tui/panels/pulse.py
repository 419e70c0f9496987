"""The pulse: two lines that are never dropped: is the engine alive, is it full, what hurts."""

from __future__ import annotations

from llmtop import __version__
from llmtop.engines.records import State
from llmtop.engines.samples import Latency
from llmtop.tui import format as f
from llmtop.tui.panels.panel import Panel
from llmtop.tui.panels.saturation import saturation
from llmtop.tui.panels.view import Stage, View
from llmtop.tui.series import SeriesName
from llmtop.tui.store import EngineTrack
from llmtop.tui.widgets.bar import bar
from llmtop.tui.widgets.row import FAINT, MUTED, STRONG, TEXT, Row, Span, faded, fit, join, sides
from llmtop.tui.widgets.row import width as cells

STATE_ROLE = {
    State.STARTING: "warn",
    State.READY: "good",
    State.UNRESPONSIVE: "bad",
    State.STOPPING: "warn",
    State.STOPPED: MUTED,
    State.FAILED: "bad",
    State.LOST: "bad",
}
KV_WARN, KV_BAD = 0.80, 0.95  # past the second, vLLM starts to preempt


# Of these nobody expects any: that nothing answers is no news beside the state itself.
_NO_NUMBERS = (State.STARTING, State.STOPPED, State.FAILED, State.LOST)


def kv_role(share: float | None) -> str:
    """The role of a KV occupancy: by threshold, said in words elsewhere."""
    if share is None or share < KV_WARN:
        return "kv"
    return "warn" if share < KV_BAD else "bad"


def state_spans(engine: EngineTrack, view: View) -> list[Span]:
    """The state with its glyph and age: ``● ready 1h12m``; stale numbers say so and since when."""
    glyphs = view.glyphs
    stale = view.now - engine.stale_since if engine.stale_since is not None else None
    status = engine.status
    if status is None:
        state, since = ("no answer", None) if stale is not None else ("attached", None)
        role = "bad" if stale is not None else "good"
    else:
        state, since, role = status.state.value, status.since, STATE_ROLE[status.state]
    glyph = glyphs.bullet if role in ("good", "warn") else glyphs.hollow
    spans: list[Span] = [(f"{glyph} {state}", role)]
    if since is not None:
        spans.append((f" {f.duration(view.now - since)}", MUTED))
    if stale is not None and (status is None or status.state not in _NO_NUMBERS):
        spans.append((f" {glyphs.up} stale {f.duration(stale)}", "bad"))
    return spans


class Pulse(Panel):
    """Identity and state, running and waiting, KV, TTFT p95 with n, tokens/s, saturation."""

    def draw(self, view: View, width: int, height: int) -> list[Row]:
        """Two rows; which facts are on which depends on the width."""
        engine = view.engine
        if engine is None:
            return [sides([(" llmtop", "brand"), (f" {__version__}", MUTED)], [], width)]
        if width >= 100:
            return [self._identity(view, engine, width), self._wide(view, engine, width)]
        return self._narrow(view, engine, width)

    def _identity(self, view: View, engine: EngineTrack, width: int) -> Row:
        state = state_spans(engine, view)
        words = [(0, [(" llmtop", "brand")]), *_names(engine, view)]
        slow = "low bandwidth, " if view.low_bandwidth else ""
        right = [*state, (f"   {slow}every {f.span(view.interval)} ", MUTED)]
        left = join(words, width - cells(right) - 2)
        return sides(left, right, width)

    def _wide(self, view: View, engine: EngineTrack, width: int) -> Row:
        divider: Span = (f" {view.glyphs.divider} ", FAINT)
        fixed: list[list[Span]] = [
            [(" ", TEXT), *_aged(view, _queue(view))],
            [*_ttft(view, word=True)],
            [*_aged(view, _tokens(view))],
        ]
        hint = _hint(view)
        kv = _aged(view, _kv_words(view))
        used = sum(cells(spans) for spans in fixed) + cells(kv)
        used += 3 * len(divider[0]) + cells(hint) + 2
        share = view.value(SeriesName.KV_USAGE)
        room = max(6, min(40, width - used - 5))
        drawn = _aged(view, bar(share, room, kv_role(share), view.glyphs))
        middle = [("KV ", MUTED), *drawn, (" ", TEXT), *kv]
        row = [*fixed[0], divider, *middle, divider, *fixed[1], divider, *fixed[2]]
        return sides(row, [*hint, (" ", TEXT)] if hint else [], width)

    def _narrow(self, view: View, engine: EngineTrack, width: int) -> list[Row]:
        state = [(" ", TEXT), *state_spans(engine, view)]
        queue = [*_aged(view, _queue(view)), (" ", TEXT)]
        room = width - cells((*state, *queue)) - 3
        name = join(_names(engine, view)[:3], max(0, room))
        first = sides([*state, ("  ", TEXT), *name], queue, width)
        divider: Span = (f" {view.glyphs.divider} ", FAINT)
        kv, hint = _aged(view, _kv_words(view)), _hint(view)
        rest = [divider, *_ttft(view, word=width >= 76), divider, *_aged(view, _tokens(view))]
        taken = cells((*kv, *rest, *hint)) + 7
        share = view.value(SeriesName.KV_USAGE)
        length = max(4, min(30, width - taken))
        drawn = _aged(view, bar(share, length, kv_role(share), view.glyphs))
        middle = [(" KV ", MUTED), *drawn, (" ", TEXT)]
        left = [*middle, *kv, *rest]
        if cells((*left, *hint)) + 2 > width:
            return [first, fit(left, width)]
        return [first, sides(left, [*hint, (" ", TEXT)] if hint else [], width)]


def _aged(view: View, spans: list[Span]) -> list[Span]:
    """What the engine told, faded while that is stale; its age stands beside its state."""
    return spans if view.stale_s is None else faded(spans)


def _names(engine: EngineTrack, view: View) -> list[tuple[int, list[Span]]]:
    title = f.clean(engine.title or engine.kind, 30)
    version = f.clean(engine.version or "", 16)
    where = f.clean(engine.url, 60).removeprefix("http://").removeprefix("https://")
    where = ":" + where.rpartition(":")[2] if where.startswith(("127.", "localhost")) else where
    model = f.clean(engine.model or "", 40).rpartition("/")[2]
    words: list[tuple[int, list[Span]]] = [(1, [(f.clean(engine.name, 24), STRONG)])]
    if engine.simulated:
        words.append((2, [("simulated", "warn")]))
    if model:
        words.append((3, [(model, TEXT)]))
    if engine.stale_since is not None and engine.trouble and view.stage is not Stage.ENDED:
        words.append((2, [(f.clean(engine.trouble, 60), "bad")]))
    if title and title != engine.name:
        words.append((6, [(f"{title} {version}".strip(), MUTED)]))
    words.append((5, [(where, MUTED)]))
    if view.readonly:
        words.append((4, [("read-only", "warn")]))
    return words


def _queue(view: View) -> list[Span]:
    running, waiting = view.value(SeriesName.RUNNING), view.value(SeriesName.WAITING)
    cap, oldest = view.value(SeriesName.CAP), view.value(SeriesName.OLDEST_WAIT)
    of = f"/{f.count(cap)}" if cap is not None else ""
    spans: list[Span] = [
        ("run ", MUTED),
        (f.count(running), STRONG),
        (of, MUTED),
        ("  wait ", MUTED),
    ]
    spans.append((f.count(waiting), "waiting" if waiting else TEXT))
    if oldest is not None and oldest >= 0.5:
        spans += [("  oldest ", MUTED), (f.latency(oldest), "waiting" if oldest >= 2 else TEXT)]
    return [span for span in spans if span[0]]


def _kv_words(view: View) -> list[Span]:
    share = view.value(SeriesName.KV_USAGE)
    sample = view.sample
    role = kv_role(share)
    spans: list[Span] = [(f.percent(share), STRONG if role == "kv" else role)]
    if sample and sample.kv_tokens_total:
        spans.append(
            (f" {f.short(sample.kv_tokens_used)}/{f.short(sample.kv_tokens_total)}", MUTED)
        )
    return spans


def _ttft(view: View, *, word: bool) -> list[Span]:
    """The client's p95 when llmtop's own load runs on this engine, else the engine's."""
    name = "TTFT p95 " if word else "p95 "
    load, role = view.client, STRONG
    if load is not None and load.ttft.n:
        text, n, window = f.latency(load.ttft.p95), load.ttft.n, load.ttft.window_s
    else:
        sample = view.sample
        own = sample.latencies.get(Latency.TTFT) if sample else None
        if own is None or not own.n:
            return [(name, MUTED), (f.ABSENT, TEXT)]
        text, n, window = f.quantile(own.p95), own.n, own.window_s
        role = STRONG if view.stale_s is None else MUTED
    over = f"/{f.span(round(window))}" if word and window is not None else ""
    return [(name, MUTED), (text, role), (f" n={f.count(n)}{over}", MUTED)]


def _tokens(view: View) -> list[Span]:
    return [(f.rate(view.value(SeriesName.OUTPUT_TOKENS)), STRONG), (" tok/s", MUTED)]


def _hint(view: View) -> list[Span]:
    words = saturation(view)
    if not words:
        return []
    return [(f"{view.glyphs.up} {words}", "bad" if words == "past knee" else "warn")]

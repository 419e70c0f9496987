"""The pulse: the line of figures below the state: running, waiting, KV, TTFT p95, tokens/s."""

from __future__ import annotations

from llmtop import __version__
from llmtop.analysis.series import SeriesName
from llmtop.diagnosis.state_rules import CAP_FULL, KV_FULL, KV_NEAR
from llmtop.engines.core.samples import Latency
from llmtop.tui.view.panel import Panel
from llmtop.tui.view.view import View
from llmtop.tui.widgets.bar import bar
from llmtop.tui.widgets.row import FAINT, MUTED, STRONG, TEXT, Row, Span, faded, join, sides
from llmtop.tui.widgets.row import width as cells
from llmtop.wording import format as f

RANKS_APART = 0.05  # of the KV cache: a smaller difference between ranks is not shown


def kv_role(share: float | None) -> str:
    """The role of a KV cache usage, 0..1, by threshold. The state line has the words for it."""
    if share is None or share < KV_NEAR:
        return "kv"
    return "warn" if share < KV_FULL else "hot"


# The variants of the row, the longest first: KV tokens; the word TTFT and the window; the mean.
WIDE = ((True, True, True), (False, True, True), (False, False, True), (False, False, False))
LEAST_BAR = 6  # cells


class Pulse(Panel):
    """Running and waiting, KV, TTFT p95 with n, tokens/s; one row at every size."""

    def draw(self, view: View, width: int, height: int) -> list[Row]:
        """The row. Groups that do not fit are left out as a whole, queue and KV cache last."""
        if view.engine is None:
            return [sides([(" llmtop", "brand"), (f" {__version__}", MUTED)], [], width)]
        divider = f" {view.glyphs.divider} "
        queue, oldest = _muted_if_stale(view, _queue(view)), _muted_if_stale(view, _oldest(view))
        speed = _muted_if_stale(view, _tokens(view))
        # The exact mean beside a range is left out last: a range alone is not precise.
        for tokens, word, mean in WIDE:
            ttft = _ttft(view, word=word, mean=mean)
            kv = _muted_if_stale(view, _kv_words(view, tokens=tokens))
            taken = (queue, kv, ttft, speed)
            used = sum(map(cells, taken)) + 3 * len(divider) + len(" KV  ")
            if used + LEAST_BAR <= width:
                break
        used += cells(oldest) + len(divider) if oldest else 0
        share = view.value(SeriesName.KV_USAGE)
        room = min(40, width - used - 2)
        drawn = bar(share, room, kv_role(share), view.glyphs) if room >= LEAST_BAR else []
        between: list[Span] = [(" ", TEXT)] if drawn else []
        groups: list[tuple[int, list[Span]]] = [
            (0, queue),
            (4, oldest),
            (1, [("KV ", MUTED), *_muted_if_stale(view, drawn), *between, *kv]),
            (2, ttft),
            (3, speed),
        ]
        row = [
            (text, FAINT) if text == divider else (text, role)
            for text, role in join(groups, width - 2, divider)
        ]
        return [sides([(" ", TEXT), *row], [], width)]


def _muted_if_stale(view: View, spans: list[Span]) -> list[Span]:
    """The engine's figures, muted while they are stale. Their age is beside the state."""
    return spans if view.stale_s is None else faded(spans)


def _queue(view: View) -> list[Span]:
    running, waiting = view.value(SeriesName.RUNNING), view.value(SeriesName.WAITING)
    cap = view.value(SeriesName.CAP)
    of = f"/{f.count(cap)}" if cap is not None else ""
    full = cap and running is not None and running >= CAP_FULL * cap
    spans: list[Span] = [
        ("run ", MUTED),
        (f.count(running), STRONG),
        (of, "hot" if full else MUTED),
        ("  wait ", MUTED),
    ]
    spans.append((f.count(waiting), "waiting" if waiting else TEXT))
    return [span for span in spans if span[0]]


def _oldest(view: View) -> list[Span]:
    """The oldest wait for a first token, at the client.

    The state line has it too, if there is no room here.
    """
    oldest = view.value(SeriesName.OLDEST_WAIT)
    if oldest is None or oldest < 0.5:
        return []
    return [("oldest ", MUTED), (f.latency(oldest), "waiting" if oldest >= 2 else TEXT)]


def _kv_words(view: View, *, tokens: bool) -> list[Span]:
    share = view.value(SeriesName.KV_USAGE)
    sample = view.sample
    role = kv_role(share)
    spans: list[Span] = [(f.percent(share), STRONG if role == "kv" else role)]
    if tokens and sample and sample.kv_tokens_total:
        spans.append((f" {f.short(view.kv_tokens_used)}/{f.short(sample.kv_tokens_total)}", MUTED))
    fullest = sample.kv_usage_fullest if sample is not None else None
    if tokens and share is not None and fullest is not None and fullest - share >= RANKS_APART:
        spans.append((f" fullest rank {f.percent(fullest)}", kv_role(fullest)))
    return spans


def _ttft(view: View, *, word: bool, mean: bool = True) -> list[Span]:
    """The client's p95 if llmtop's own load runs on this engine, else the engine's own.

    That one is mostly a range, so that its exact mean is shown too.
    """
    name = "TTFT p95 " if word else "p95 "
    load, role = view.client, STRONG
    exact: list[Span] = []
    if load is not None and load.ttft.n:
        text, n, window = f.latency(load.ttft.p95), load.ttft.n, load.ttft.window_s
    else:
        sample = view.sample
        own = sample.latencies.get(Latency.TTFT) if sample else None
        if own is None or not own.n:
            return [(name, MUTED), (f.ABSENT, TEXT)]
        text, n, window = f.own_quantile(own, own.p95), own.n, own.window_s
        role = STRONG if view.stale_s is None else MUTED
        exact = [(" mean ", MUTED), (f.latency(own.mean), role)] if mean else []
    over = f"/{f.span(round(window))}" if word and window is not None else ""
    return [(name, MUTED), (text, role), *exact, (f" n={f.count(n)}{over}", MUTED)]


def _tokens(view: View) -> list[Span]:
    return [(f.rate(view.value(SeriesName.OUTPUT_TOKENS)), STRONG), (" tok/s", MUTED)]

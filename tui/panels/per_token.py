"""Figures per token: inter-token latency, tokens per step, cost of a million tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmtop.engines.core.samples import Latency, Quantiles
from llmtop.tui.panels import speculation
from llmtop.tui.view.panel import Panel
from llmtop.tui.view.view import LifecycleView, View
from llmtop.tui.widgets.frame import Ranked, frame
from llmtop.tui.widgets.row import MUTED, STRONG, TEXT, Row, Span, faded, join
from llmtop.wording import format as f

if TYPE_CHECKING:
    from llmtop.loadgen.core.results import LatencySummary

NAMES = 6  # cells of a row's name


class PerTokenPanel(Panel):
    """A row each for inter-token latency, speculation and cost."""

    def draw(self, view: View, width: int, height: int) -> list[Row]:
        """The rows in their box, in this order, as many as fit."""
        room = width - 4 - NAMES
        rows = (
            ("ITL", itl(view), "itl"),
            ("spec", muted_if_stale(view, spec(view)), TEXT),
            ("cost", muted_if_stale(view, cost(view)), TEXT),
        )
        body = [
            ((" ", TEXT), (name.ljust(NAMES), role if role != TEXT else MUTED), *join(groups, room))
            for name, groups, role in rows
        ]
        virtual = view.engine is not None and view.engine.simulated
        head: list[Ranked] = [(1, [("simulated", "warn")])] if virtual else []
        head += _stale(view)
        return frame(body, width, height, view.glyphs, title="per token", head=head)


class CostPanel(Panel):
    """A row for each cost figure, with its window or its price."""

    def draw(self, view: View, width: int, height: int) -> list[Row]:
        """A row for each figure."""
        facts = view.engine.cost if view.engine is not None else None
        over = f" over {f.span(round(facts.window_s))}" if facts and facts.window_s >= 1 else ""
        virtual = view.engine is not None and view.engine.simulated
        # A simulated GPU has no energy and no idle time.
        none = f"{f.ABSENT} simulated" if virtual else f.ABSENT
        energy = facts.tokens_per_joule if facts else None
        idle = facts.idle if facts else None
        price = facts.per_million(view.gpu_hour) if facts else None
        cards = facts.gpus or 1 if facts else 1
        per = f" at {view.gpu_hour:g} an hour for {cards} GPU" if view.gpu_hour is not None else ""
        rows: list[tuple[str, str, str]] = [
            ("tokens per joule", f.rate(energy) if energy is not None else none, over),
            ("$ per million tokens", f.ABSENT if price is None else f"{price:.2f}", per),
            ("GPU time idle", f.percent(idle) if idle is not None else none, over),
            ("KV never used", _unused(view) or f.ABSENT, _peak(view)),
        ]
        if view.gpu_hour is None:
            rows[1] = (rows[1][0], f.ABSENT, " needs --gpu-hour PRICE")
        elif virtual:
            rows[1] = (rows[1][0], rows[1][1], " simulated")
        role = STRONG if view.stale_s is None else MUTED
        body: list[Row] = [
            ((f" {name.ljust(22)}", MUTED), (figure.rjust(7), role), (note, MUTED))
            for name, figure, note in rows
        ]
        return frame(body, width, height, view.glyphs, title="cost", head=_stale(view))


def muted_if_stale(view: View, groups: list[Ranked]) -> list[Ranked]:
    """The figures that the engine reported, muted while they are stale."""
    if view.stale_s is None:
        return groups
    return [(rank, faded(spans)) for rank, spans in groups]


def _stale(view: View) -> list[Ranked]:
    """The age of the figures while the engine reports no new ones."""
    if view.stale_s is None or view.stage is not LifecycleView.RUNNING:
        return []
    return [(0, [(f"stale {f.duration(view.stale_s)}", "bad")])]


def itl(view: View) -> list[Ranked]:
    """The client's p95 while our load runs, and the engine's own."""
    groups = [*client_itl(view), *server_itl(view)]
    return groups or [(0, [("p95 ", MUTED), (f.ABSENT, TEXT)])]


def client_itl(view: View) -> list[Ranked]:
    """The client's p50, and its p95 with n and window; [] without a load of ours."""
    load = view.client
    if load is None or not load.itl.n:
        return []
    from llmtop.loadgen.core.results import SEVERAL  # there is a load, so it is imported already

    several = load.tokens_per_chunk
    if several is None or several <= SEVERAL:
        return _client(load.itl)
    # The gap between two chunks is not the gap between two tokens.
    return [*_client(load.itl), (1, [("chunks of ", MUTED), (f"{several:.1f} tok", STRONG)])]


def server_itl(view: View) -> list[Ranked]:
    """The engine's own p95, then its exact mean; [] if it reports none.

    The window is shown only if there are no figures of the client.
    """
    load, sample = view.client, view.sample
    own = sample.latencies.get(Latency.ITL) if sample else None
    if own is None or not own.n:
        return []
    alone = load is None or not load.itl.n
    mean: list[Span] = [("mean ", MUTED), (f.latency(own.mean), STRONG)]
    return muted_if_stale(view, [(2, _server(own, alone=alone)), (4, mean)])


def _client(found: LatencySummary) -> list[Ranked]:
    over = f"/{f.span(round(found.window_s))}" if found.window_s else ""
    return [
        (3, [("p50 ", MUTED), (f.latency(found.p50), STRONG)]),
        (
            0,
            [
                ("p95 ", MUTED),
                (f.latency(found.p95), STRONG),
                (f" n={f.short(found.n)}{over}", MUTED),
            ],
        ),
    ]


def _server(own: Quantiles, *, alone: bool) -> list[Span]:
    over = f"/{f.span(round(own.window_s))}" if alone else ""
    words: list[Span] = [("server p95 ", MUTED), (f.own_quantile(own, own.p95), STRONG)]
    return [*words, (f" n={f.short(own.n)}{over}", MUTED)]


def spec(view: View) -> list[Ranked]:
    """Acceptance rate and accepted length, or why there are none."""
    figures = speculation.figures(view)
    if not figures:
        return [(0, speculation.state_words(view))]
    sample = view.sample
    over = f"/{f.span(round(sample.window_s))}" if sample is not None else ""
    return [*figures, (4, [(over, MUTED)]), (3, speculation.positions(view))]


def cost(view: View) -> list[Ranked]:
    """Tokens per joule, price, idle time, unused KV cache; an unknown figure is ``--``."""
    engine = view.engine
    facts = engine.cost if engine is not None else None
    if engine is None or facts is None:
        return [(0, [(f.ABSENT, TEXT)])]
    groups: list[Ranked] = [(0, [(f.rate(facts.tokens_per_joule), STRONG), (" tok/J", MUTED)])]
    price = facts.per_million(view.gpu_hour)
    if view.gpu_hour is not None:
        money = f.ABSENT if price is None else f"{price:.2f}"
        groups.append((2, [("$", MUTED), (money, STRONG), ("/M tok", MUTED)]))
    groups.append((4, [("idle ", MUTED), (f.percent(facts.idle), STRONG)]))
    unused = _unused(view)
    if unused:
        groups.append((3, [("KV never used ", MUTED), (unused, STRONG)]))
    return groups


def _unused(view: View) -> str:
    """KV cache that was never used: in GiB if its size is known, else as a share."""
    facts = view.engine.cost if view.engine is not None else None
    if facts is None or facts.kv_peak is None:
        return ""
    if facts.kv_unused is not None:
        return f"{f.gib(facts.kv_unused)} GiB"
    return f.percent(max(0.0, 1 - facts.kv_peak))


def _peak(view: View) -> str:
    facts = view.engine.cost if view.engine is not None else None
    if facts is None or facts.kv_peak is None or facts.kv_since is None:
        return ""
    return f" peak {f.percent(facts.kv_peak)} in {f.duration(view.now - facts.kv_since)}"

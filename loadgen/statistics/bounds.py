"""An error bound for each measure: how far this client can have moved it.

Nothing here looks at a clock or at a process. docs/explanation/load-clock.md explains the sources.
"""

from __future__ import annotations

from llmtop.loadgen.core.measures import Bound, Extent, Measure, Sources
from llmtop.loadgen.core.results import LatencySummary

QUANTILES = ("p50", "p95", "p99")
STAMP_S = 1e-4  # two kernels and their clocks, on one machine: nothing that matters is as short


def bounds(sources: Sources) -> tuple[Bound, ...]:
    """A bound for each measure and quantile of which there is a value."""
    found = [
        _latency(measure, quantile, extent, sources)
        for measure, extent in sources.extents.items()
        for quantile in QUANTILES
        if getattr(extent.value, quantile) is not None
    ]
    if sources.tokens_per_s is not None:
        found.append(_throughput(sources, sources.tokens_per_s))
    if sources.attained is not None:
        *counts, n = sources.attained
        low, value, high = (count / n if n else None for count in counts)
        found.append(_voided(Bound(Measure.ATTAINMENT, "", value, low, high, n), sources))
    return tuple(found)


def extent(
    value: LatencySummary,
    low: LatencySummary,
    high: LatencySummary | None = None,
    sent: LatencySummary | None = None,
) -> Extent:
    """Of a latency that can only have been shorter, unless ``high`` is given."""
    return Extent(value, low, value if high is None else high, sent=sent)


def shares_lost(sources: Sources) -> float:
    """By which share throughput can be too low, because the engine was offered less than asked.

    In a closed loop N streams of which each is away for a share f of its time are N (1 - f) at the
    engine: below its capacity that much less comes out, at its capacity nothing. Tokens are counted
    when they are read, so either end of the window is blurred by the lag.
    """
    away = min(0.999, max(0.0, sources.turnaround)) if sources.closed else 0.0
    edges = 0.0
    if sources.window_s:
        edges = (sources.lag_s + (0.0 if sources.closed else sources.late_s)) / sources.window_s
    return away / (1 - away) + sources.stalled + edges


def _latency(measure: Measure, quantile: str, extent: Extent, sources: Sources) -> Bound:
    value, low, high = (
        getattr(summary, quantile) for summary in (extent.value, extent.low, extent.high)
    )
    # Half a bucket of the histogram that a value was read from, in either direction.
    blur = STAMP_S + value * extent.value.resolution / 2
    bound = Bound(
        measure,
        quantile,
        value,
        None if low is None else max(0.0, min(low, value) - blur),
        None if high is None else max(high, value) + blur,
        extent.value.n,
        blur,
    )
    return _voided(bound, sources)


def _throughput(sources: Sources, tokens_per_s: float) -> Bound:
    lost = shares_lost(sources)
    edges = sources.lag_s / sources.window_s if sources.window_s else 0.0
    bound = Bound(
        Measure.THROUGHPUT,
        "",
        tokens_per_s,
        tokens_per_s * max(0.0, 1 - edges),
        tokens_per_s * (1 + lost),
    )
    return _voided(bound, sources)


def _voided(bound: Bound, sources: Sources) -> Bound:
    if not sources.void:
        return bound
    return Bound(bound.measure, bound.quantile, bound.value, None, None, bound.n)

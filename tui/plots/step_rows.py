"""The steps of an engine as charts: time per step, tokens per step, a histogram. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from llmtop.diagnosis.steps.window import Parts
from llmtop.engines.core.steps import Step
from llmtop.tui.plots.step_bins import Column
from llmtop.tui.widgets.axis import TimeGrid
from llmtop.tui.widgets.bar import bar
from llmtop.tui.widgets.chart import GUTTER, Trace, chart_rows
from llmtop.tui.widgets.glyphs import Glyphs
from llmtop.tui.widgets.row import MUTED, STRONG, TEXT, Row, Span, fit
from llmtop.wording import format as f

DECODE, PREFILL, HOST, IDLE, STALL = "tokens", "prefill", "warn", MUTED, "bad"
PARTS = ("decode", DECODE), ("prefill", PREFILL), ("host", HOST), ("idle", IDLE)
STALLED, STALLED_S = 10.0, 0.5  # a stall takes this multiple of the mean, and these seconds
LEAST_BUCKET = 50e-6  # seconds; shorter steps count as this long
BUCKET_GROWTH = 1.26  # the smallest factor between ranges: ten of them per decade
LABEL = 17  # cells before the bar of a histogram row

Columns = Sequence[Column | None]


def stacked(columns: Columns, ongoing_s: float | None = None) -> tuple[list[Trace], float]:
    """Traces of the time per step, the last one on top, and the highest value, seconds.

    ongoing_s: the seconds that the current step has taken so far, if that is unusually long.
    """
    decode: list[float | None] = []
    prefill: list[float | None] = []
    whole: list[float | None] = []
    for column in columns:
        if column is None or column.covered <= 0:
            for series in (decode, prefill, whole):
                series.append(None if column is None else 0.0)
            continue
        parts = (column.decode, column.decode + column.prefill)
        total = parts[1] + column.host
        for series, value in zip((decode, prefill, whole), (*parts, total), strict=True):
            series.append(value / column.covered)
    if ongoing_s is not None and whole:
        decode[-1], prefill[-1], whole[-1] = None, None, ongoing_s
    known = [value for value in whole if value]
    steps = sum(column.steps for column in columns if column is not None)
    covered = sum(column.covered for column in columns if column is not None)
    usual = covered / steps if steps else 0.0
    long = max(STALLED_S, STALLED * usual)
    stalls = [value if value is not None and value >= long else None for value in whole]
    traces = [
        Trace(whole, HOST, fill=True),
        Trace(prefill, PREFILL, fill=True),
        Trace(decode, DECODE, fill=True),
        Trace(stalls, STALL, fill=True, tint=True),
    ]
    return traces, max(known, default=0.0)


def time_rows(
    columns: Columns,
    cells: int,
    height: int,
    maximum: float,
    glyphs: Glyphs,
    ongoing_s: float | None = None,
) -> list[Row]:
    """The time per step as a stacked area of decode, prefill and host."""
    traces, _ = stacked(columns, ongoing_s)
    grid = TimeGrid(0.0, 1, max(1, cells - GUTTER))
    return chart_rows(
        traces, grid, height, maximum, glyphs, label=f.latency, empty="no step in this time"
    )


def token_rows(
    columns: Columns, cells: int, height: int, budget: float | None, maximum: float, glyphs: Glyphs
) -> list[Row]:
    """The tokens per step, with the token budget as a line if it is within the axis."""
    values: list[float | None] = [
        None if column is None else column.tokens / column.covered if column.covered > 0 else 0.0
        for column in columns
    ]
    traces = [Trace(values, DECODE, fill=True)]
    if budget is not None and budget <= maximum:
        traces.insert(0, Trace([budget] * len(values), "cap", rule=True))
    grid = TimeGrid(0.0, 1, max(1, cells - GUTTER))
    return chart_rows(traces, grid, height, maximum, glyphs, label=f.short)


def most_tokens(columns: Columns, budget: float | None) -> float:
    """The top of the token axis: the budget if steps come near it, else the highest value."""
    values = [c.tokens / c.covered for c in columns if c is not None and c.covered > 0]
    peak = max(values, default=0.0)
    return budget if budget is not None and budget <= 2.5 * peak and budget >= peak else peak


def share_spans(parts: Parts) -> list[list[Span]]:
    """The shares of the time as groups of words, such as ``decode 62 %``."""
    values = (parts.decode, parts.prefill, parts.host, parts.idle)
    total = parts.total
    return [
        [(f"{name} ", role), (f.percent(value / total) if total > 0 else f.ABSENT, STRONG)]
        for (name, role), value in zip(PARTS, values, strict=True)
    ]


def quantile(steps: Sequence[Step], share: float) -> float | None:
    """The nearest-rank quantile of the durations, seconds; None without steps. share: 0..1."""
    durations = sorted(step.duration_s for step in steps)
    return durations[min(len(durations) - 1, int(share * len(durations)))] if durations else None


def histogram_rows(steps: Sequence[Step], cells: int, height: int, glyphs: Glyphs) -> list[Row]:
    """A histogram of the durations: a bar for each range, as long as its number of steps.

    The ranges grow by a constant factor, so that short and long steps are both visible.
    """
    if not steps or height < 1:
        return [fit([(" no step in this time", MUTED)], cells)]
    durations = [max(LEAST_BUCKET, step.duration_s) for step in steps]
    low, high = min(durations), max(durations)
    wanted = 1 + math.ceil(math.log(high / low, BUCKET_GROWTH)) if high > low else 1
    rows = max(1, min(height, wanted))
    factor = (high / low) ** (1 / rows) if high > low else 2.0
    counts = [0] * rows
    for value in durations:
        place = int(math.log(value / low) / math.log(factor)) if value > low else 0
        counts[min(rows - 1, place)] += 1
    most = max(counts)
    out: list[Row] = []
    for number, count in enumerate(counts):
        begin, end = low * factor**number, low * factor ** (number + 1)
        label = f" {f.latency(begin)}-{f.latency(end)}".ljust(LABEL)
        number_of_steps = f" {count:,}"
        drawn = bar(count / most, cells - LABEL - 8, DECODE, glyphs) if count else []
        filled = [span for span in drawn if span[1] == DECODE]
        spans: list[Span] = [(label, MUTED), *filled, (number_of_steps, TEXT)]
        out.append(fit(spans if count else [(label, MUTED)], cells))
    return out

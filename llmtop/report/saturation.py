"""The sections of a saturation search."""

from __future__ import annotations

from typing import Any

from llmtop.report.document import Chart, Section, Series, Table
from llmtop.report.fields import at, flag, items, number, text, whole
from llmtop.report.percentiles import latency_table, level_table, valid, verdict
from llmtop.report.runs import Run
from llmtop.wording.format import count, latency, percent, rate

SHARES_NOTE = (
    "A level holds a limit when the given share of its requests kept every limit."
    " The knee is the lowest number of streams with almost the highest throughput."
)


def saturation_sections(run: Run) -> list[Section]:
    """Throughput curve, answers, levels, percentiles and cost of one search."""
    levels = items(run.document, "levels")
    counted = [level for level in levels if valid(level)]
    sections = [
        Section(
            f"Throughput and latency: {run.label}",
            paragraphs=(SHARES_NOTE,),
            tables=(_answers(run), level_table(levels, "Levels, by number of streams")),
            charts=tuple(chart for chart in (_throughput(run, levels), _curve(run, counted))),
        )
    ]
    best = max(counted, key=lambda one: number(one, "output_tokens_per_s") or 0.0, default=None)
    if best is not None:
        caption = f"Latencies at {count(number(best, 'streams'))} streams, the highest throughput"
        sections.append(
            Section(f"Percentiles: {run.label}", tables=(latency_table(best, caption),))
        )
    if (cost := _cost(run, counted)) is not None:
        sections.append(cost)
    rejected = [level for level in levels if not valid(level)]
    if rejected:
        words = tuple(
            f"{count(number(level, 'streams'))} streams: {verdict(level)}" for level in rejected
        )
        sections.append(
            Section(
                f"Rejected levels: {run.label}",
                paragraphs=(
                    "This client may have influenced these values. They do not count.",
                    *words,
                ),
            )
        )
    return sections


def saturation_cautions(run: Run) -> list[str]:
    """What limits the use of a search."""
    found = []
    if flag(run.document, "client_limited"):
        limit = whole(run.document, "client_limit_streams")
        found.append(
            "This client was the limit before the engine was"
            + (f", at {limit:,} streams" if limit else "")
            + ". The engine may serve more."
        )
    elif flag(run.document, "complete") is False:
        found.append("The search ended early. Higher levels were not measured.")
    if any(flag(level, "steady") is False for level in items(run.document, "levels")):
        found.append("Some levels did not reach a steady state.")
    return found


def _answers(run: Run) -> Table:
    limits = ", ".join(
        f"{name.removesuffix('_s').upper()} <= {latency(number(run.document, 'slo', name))}"
        for name in ("ttft_s", "tpot_s", "e2e_s")
        if number(run.document, "slo", name) is not None
    )
    rows = []
    for answer in items(run.document, "answers"):
        rows.append(
            (
                percent(number(answer, "share")),
                count(number(answer, "streams")),
                count(number(answer, "fails_at")),
                text(answer, "end"),
            )
        )
    knee = at(run.document, "knee")
    if knee is not None:
        low, high = number(knee, "low"), number(knee, "high")
        rows.append(
            (
                "knee",
                count(number(knee, "streams")),
                "--",
                _between(low, high),
            )
        )
    caption = f"Streams held within {limits}" if limits else "The knee of the throughput curve"
    return Table(caption, ("Share of requests", "Holds", "Fails at", "Ended"), tuple(rows),
                 frozenset({1, 2}))  # fmt: skip


def _between(low: float | None, high: float | None) -> str:
    """The interval of the knee. high is None where the search did not find the upper end."""
    if high is None:
        return f"at least {count(low)}"
    return f"between {count(low)} and {count(high)}"


def _throughput(run: Run, levels: list[Any]) -> Chart:
    """Output tokens per second against streams, with standard errors and rejected levels."""
    series = []
    for name, role, kept in (("counted", "main", True), ("rejected", "rejected", False)):
        chosen = sorted(
            (
                (streams, tokens, number(level, "output_tokens_error") or 0.0)
                for level in levels
                if valid(level) is kept
                and (streams := number(level, "streams")) is not None
                and (tokens := number(level, "output_tokens_per_s")) is not None
            ),
        )
        if chosen:
            points = tuple((streams, tokens) for streams, tokens, _ in chosen)
            spans = tuple((x, y * (1 - error), y * (1 + error)) for x, y, error in chosen if error)
            series.append(Series(f"output tok/s ({name})", points, spans, role))
    knee = number(run.document, "knee", "streams")
    top = max((y for one in series for _, y in one.points if y is not None), default=0.0)
    if knee is not None:
        series.append(Series("knee", ((knee, 0.0), (knee, top)), role="limit"))
    return Chart(
        f"Throughput against streams, {run.label}",
        "concurrent streams",
        "output tokens per second",
        tuple(series),
        f"The highest throughput is {rate(top)} output tokens per second."
        + (f" The knee lies at {count(knee)} streams." if knee is not None else ""),
        logarithmic_x=True,
    )


def _curve(run: Run, levels: list[Any]) -> Chart:
    """TTFT p95 against throughput, with the TTFT limit if one was given."""
    points = sorted(
        (streams, tokens, ttft)
        for level in levels
        if (streams := number(level, "streams")) is not None
        and (tokens := number(level, "output_tokens_per_s")) is not None
        and (ttft := number(level, "ttft_s", "p95")) is not None
    )
    series = [Series("TTFT p95", tuple((tokens, ttft) for _, tokens, ttft in points))]
    limit = number(run.document, "slo", "ttft_s")
    if limit is not None and points:
        right = max(tokens for _, tokens, _ in points)
        series.append(Series("TTFT limit", ((0.0, limit), (right, limit)), role="limit"))
    ends = (points[0][2], points[-1][2]) if points else (None, None)
    return Chart(
        f"Latency against throughput, {run.label}",
        "output tokens per second",
        "TTFT p95, seconds",
        tuple(series),
        f"TTFT p95 is {latency(ends[0])} at the lowest level, {latency(ends[1])} at the highest.",
    )


def _cost(run: Run, levels: list[Any]) -> Section | None:
    rows = tuple(
        (
            count(number(level, "streams")),
            f"{dollars:.3f}" if dollars is not None else "--",
            rate(joules),
        )
        for level in sorted(levels, key=lambda one: number(one, "streams") or 0)
        if (dollars := number(level, "dollars_per_million_tokens")) is not None
        or number(level, "tokens_per_joule") is not None
        for joules in (number(level, "tokens_per_joule"),)
    )
    if not rows:
        return None
    price = number(run.document, "dollars_per_hour")
    words = (f"The GPUs cost {price:,.2f} dollars an hour together.",) if price is not None else ()
    table = Table("Cost by level", ("Streams", "Dollars per million output tokens",
                  "Output tokens per joule"), rows, frozenset({0, 1, 2}))  # fmt: skip
    return Section(f"Cost: {run.label}", paragraphs=words, tables=(table,))

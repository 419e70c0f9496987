"""The sections of a recording: charts over time, and a table of changes and events."""

from __future__ import annotations

from typing import Any

from llmtop.report.document import Chart, Section, Series, Table
from llmtop.report.fields import at, entries, items, number, text
from llmtop.report.runs import Run
from llmtop.wording.format import duration, latency, percent, rate

MOST_MARKS = 200  # drawn in a chart
# title, title of the y axis, (series, name in the legend, role)
_CHARTS: tuple[tuple[str, str, tuple[tuple[str, str, str], ...]], ...] = (
    ("Output tokens", "tokens per second", (("output_tokens_per_s", "output tok/s", "main"),)),
    (
        "Time to first token, p95",
        "seconds",
        (
            ("client_ttft_p95", "client", "main"),
            ("ttft_p95_low", "engine, at least", "other"),
            ("ttft_p95_high", "engine, at most", "rejected"),
        ),
    ),
    (
        "Requests",
        "requests",
        (("running", "running", "main"), ("waiting", "waiting", "other"),
         ("cap", "batch limit", "limit")),
    ),
    ("KV cache", "share in use", (("kv_usage", "KV cache", "main"),)),
)  # fmt: skip

_FORMATS = {"seconds": latency, "share in use": percent}  # by y axis; ``rate`` for any other


def recording_sections(run: Run) -> list[Section]:
    """The charts of each engine, then a table of marks and events."""
    sections = []
    for engine, lines in entries(run.document, "series"):
        charts = tuple(
            chart for one in _CHARTS if (chart := _chart(run, engine, lines, *one)) is not None
        )
        sections.append(Section(f"{engine} over time: {run.label}", charts=charts))
    rows = tuple(_rows(run.document))
    if rows:
        table = Table("Changes and events, by time", ("Time", "Kind", "What"), rows)
        sections.append(Section(f"Changes and events: {run.label}", tables=(table,)))
    return sections


def recording_cautions(run: Run) -> list[str]:
    """What limits the use of a recording."""
    found = []
    if source := text(run.document, "source"):
        found.append(f"Source of the numbers: {source}.")
    if remark := text(run.document, "remark"):
        found.append(f"The recording is incomplete: {remark}.")
    return found


def _rows(document: Any) -> list[tuple[str, str, str]]:
    rows = [("change", one) for one in items(document, "marks")]
    rows += [("event", one) for one in items(document, "events")]
    rows.sort(key=lambda pair: number(pair[1], "at_s") or 0.0)
    return [(duration(number(one, "at_s")), kind, text(one, "text")) for kind, one in rows]


def _chart(
    run: Run,
    engine: str,
    lines: Any,
    title: str,
    unit: str,
    parts: tuple[tuple[str, str, str], ...],
) -> Chart | None:
    series = []
    for name, words, role in parts:
        points = tuple(_points(at(lines, name)))
        if any(value is not None for _, value in points):
            series.append(Series(words, points, role=role))
    if not series:
        return None
    known = [value for _, value in series[0].points if value is not None]
    shown = _FORMATS.get(unit, rate)
    words = (
        f"{series[0].name}: lowest {shown(min(known))}, mean {shown(sum(known) / len(known))},"
        f" highest {shown(max(known))}."
    )
    moments = [
        when
        for one in items(run.document, "marks")
        if (when := number(one, "at_s")) is not None and text(one, "text").startswith(f"{engine}: ")
    ][:MOST_MARKS]
    # All marks are one line with gaps, because each line takes room in the legend.
    strokes = [(when, top) for when in moments for top in (0.0, max(known), None)]
    marks = (Series("change", tuple(strokes), role="change"),) if strokes else ()
    return Chart(f"{title}, {engine}", "seconds since the start", unit, (*series, *marks), words)


def _points(value: Any) -> list[tuple[float, float | None]]:
    if not isinstance(value, list):
        return []
    found = []
    for one in value:
        if isinstance(one, list) and len(one) == 2:
            when, what = number({"x": one[0]}, "x"), number({"x": one[1]}, "x")
            if when is not None:
                found.append((when, what))
    return found

"""Tables of latencies and of load levels. Every percentile has its number of requests (n)."""

from __future__ import annotations

from typing import Any

from llmtop.report.document import Table
from llmtop.report.fields import number, text, whole
from llmtop.wording.format import count, latency, percent, rate

MEASURES = (("ttft_s", "TTFT"), ("tpot_s", "TPOT"), ("itl_s", "ITL"), ("e2e_s", "End to end"))


def latency_table(document: Any, caption: str) -> Table:
    """The latencies of one run: percentiles, mean, standard deviation and n."""
    rows = []
    for field, name in MEASURES:
        values = [number(document, field, one) for one in ("p50", "p95", "p99", "mean", "std")]
        rows.append((name, *map(latency, values), count(number(document, field, "n"))))
    columns = ("Latency", "p50", "p95", "p99", "mean", "std. dev.", "n")
    return Table(caption, columns, tuple(rows), frozenset(range(1, 7)))


def level_table(levels: list[Any], caption: str) -> Table:
    """The levels of a saturation search by number of streams, with the client's verdict on each."""
    rows = []
    for level in sorted(levels, key=lambda one: number(one, "streams") or 0):
        error = number(level, "output_tokens_error")
        tokens = rate(number(level, "output_tokens_per_s"))
        ok = number(level, "requests", "ok")
        within = number(level, "in_time")
        rows.append(
            (
                count(number(level, "streams")),
                tokens + (f" ± {percent(error)}" if error is not None else ""),
                rate(number(level, "goodput_per_s")),
                percent(within / ok) if within is not None and ok else "--",
                latency(number(level, "ttft_s", "p50")),
                latency(number(level, "ttft_s", "p95")),
                latency(number(level, "tpot_s", "p50")),
                latency(number(level, "tpot_s", "p95")),
                count(number(level, "ttft_s", "n")),
                verdict(level),
            )
        )
    columns = (
        "Streams", "Output tok/s", "Goodput req/s", "Within limits", "TTFT p50", "TTFT p95",
        "TPOT p50", "TPOT p95", "n", "Client",
    )  # fmt: skip
    return Table(caption, columns, tuple(rows), frozenset(range(9)))


def verdict(level: Any) -> str:
    """The client's verdict: whether the load generator can have influenced the values."""
    return text(level, "client", "verdict", limit=160) or "not judged"


def valid(level: Any) -> bool:
    """Whether a level counts: its client's verdict is valid, partly valid or missing."""
    return text(level, "client", "verdict") in ("valid", "") or text(
        level, "client", "verdict"
    ).startswith("partly valid")


def failures(document: Any) -> str:
    """The requests of a run that were not answered: ``3 failed, 1 refused``; "" without any."""
    parts = []
    for name in ("failed", "refused", "cut"):
        many = whole(document, "requests", name)
        if many:
            parts.append(f"{many:,} {name}")
    return ", ".join(parts)

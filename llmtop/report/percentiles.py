"""Tables of latencies and levels: every percentile with its number of requests."""

from __future__ import annotations

from typing import Any

from llmtop.report.document import Table
from llmtop.report.fields import number, text, whole
from llmtop.wording.format import count, latency, percent, rate

MEASURES = (("ttft_s", "TTFT"), ("tpot_s", "TPOT"), ("itl_s", "ITL"), ("e2e_s", "End to end"))


def latency_table(found: Any, caption: str) -> Table:
    """The latencies of one run: percentiles, mean, spread and n."""
    rows = []
    for field, name in MEASURES:
        values = [number(found, field, one) for one in ("p50", "p95", "p99", "mean", "std")]
        rows.append((name, *map(latency, values), count(number(found, field, "n"))))
    columns = ("Latency", "p50", "p95", "p99", "mean", "std. dev.", "n")
    return Table(caption, columns, tuple(rows), frozenset(range(1, 7)))


def level_table(levels: list[Any], caption: str) -> Table:
    """The levels of a search, in the order of their streams, rejected ones marked."""
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
    """Whether this client could have moved the values of a level."""
    return text(level, "client", "verdict", limit=160) or "not judged"


def valid(level: Any) -> bool:
    """Whether the client's verdict lets a level count."""
    return text(level, "client", "verdict") in ("valid", "") or text(
        level, "client", "verdict"
    ).startswith("partly valid")


def failures(found: Any) -> str:
    """``3 failed, 1 refused`` of a run's requests; "" when all went well."""
    parts = []
    for name in ("failed", "refused", "cut"):
        many = whole(found, "requests", name)
        if many:
            parts.append(f"{many:,} {name}")
    return ", ".join(parts)

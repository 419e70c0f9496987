"""Results as CSV, as an HdrHistogram log, and in the JSON of ``vllm bench serve``."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import datetime
from statistics import fmean, pstdev
from typing import Any

from llmtop.loadgen.core.results import MAX_GAPS, Fate, LatencySummary, RequestRecord
from llmtop.loadgen.experiments.level import LevelResult
from llmtop.loadgen.export import hdr_log

CSV_HEAD = (
    "streams", "seconds", "warm_up_s", "ok", "failed", "cut", "in_time",
    "output_tokens_per_s", "output_tokens_error", "requests_per_s", "goodput_per_s",
    "ttft_p50_s", "ttft_p95_s", "ttft_p99_s", "tpot_p50_s", "tpot_p95_s", "tpot_p99_s",
    "itl_p50_s", "itl_p95_s", "itl_p99_s", "e2e_p50_s", "e2e_p95_s", "e2e_p99_s",
    "in_flight", "little", "steady", "client", "energy_j", "tokens_per_joule",
    "gpu_idle", "kv_peak", "refused",
)  # fmt: skip


def csv_row(level: LevelResult) -> list[Any]:
    """One level, in the order of CSV_HEAD; None for what is not known, an empty cell in CSV."""
    latencies = [
        getattr(summary, name)
        for summary in (level.ttft, level.tpot, level.itl, level.e2e)
        for name in ("p50", "p95", "p99")
    ]
    return [
        level.level, level.seconds, level.warm_up_s, level.ok, level.failed, level.cut,
        level.in_time, level.output_tokens_per_s, level.error, level.requests_per_s,
        level.goodput_per_s, *latencies, level.in_flight, level.little, level.steady,
        level.health.verdict, level.energy_j, level.tokens_per_joule, level.usage.gpu_idle,
        level.usage.kv_peak, level.refused,
    ]  # fmt: skip


def table(rows: Iterable[tuple[Sequence[Any], LevelResult]], extra: Sequence[str] = ()) -> str:
    """Levels as CSV with a head (RFC 4180). extra: names of the columns put before each level."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*extra, *CSV_HEAD])
    for before, level in rows:
        writer.writerow([*before, *csv_row(level)])
    return text.getvalue()


def bench_serve(
    level: LevelResult, *, model: str, chat: bool, at: datetime, limits: bool = True
) -> dict[str, Any]:
    """One level as ``vllm bench serve --save-result --save-detailed`` writes a run.

    limits: there were some. See ``bench_run``.
    """
    return bench_run(
        level.records,
        seconds=level.seconds,
        model=model,
        chat=chat,
        at=at,
        itl=level.itl,
        verdict=level.health.verdict,
        output_tokens_per_s=level.output_tokens_per_s,
        streams=level.level,
        goodput_per_s=level.goodput_per_s if limits else None,
    )


def bench_run(
    records: Sequence[RequestRecord],
    *,
    seconds: float,
    model: str,
    chat: bool,
    at: datetime,
    itl: LatencySummary,
    verdict: str,
    output_tokens_per_s: float,
    streams: int | None = None,
    rate: float | None = None,
    burstiness: float = 1.0,
    goodput_per_s: float | None = None,
) -> dict[str, Any]:
    """Requests as ``vllm bench serve --save-result --save-detailed`` writes a run.

    Names and units as in vllm/benchmarks/serve.py of 0.11 to 0.27: lists in seconds, summaries in
    milliseconds. What is not measured the same way is null or left out: texts, and without gaps in
    the records their lists, and the mean and the spread of ITL. streams: most at a time, None:
    no limit. rate: requests a second that were asked for, None: as the streams allowed.
    """
    ok = [record for record in records if record.fate is Fate.OK]
    tokens_in = sum(record.prompt_tokens or 0 for record in ok)
    backend = "openai-chat" if chat else "openai"
    span = seconds if seconds > 0 else None
    document: dict[str, Any] = {
        "date": at.strftime("%Y%m%d-%H%M%S"),
        "endpoint_type": backend,
        "backend": backend,
        "label": "llmtop",
        "model_id": model,
        "tokenizer_id": model,
        "num_prompts": len(records),
        "request_rate": "inf" if rate is None else rate,
        "burstiness": burstiness,
        "max_concurrency": streams,
        "client_verdict": verdict,  # ours, as --metadata would add it
        "duration": seconds,
        "completed": len(ok),
        "failed": len(records) - len(ok),
        "total_input_tokens": tokens_in,
        "total_output_tokens": sum(record.tokens for record in ok),
        "request_throughput": len(ok) / span if span else None,
        "request_goodput": goodput_per_s,
        "output_throughput": output_tokens_per_s,
        "total_token_throughput": output_tokens_per_s + tokens_in / span if span else None,
        "input_lens": [record.prompt_tokens or 0 for record in records],
        "output_lens": [record.tokens for record in records],
        "ttfts": [record.ttft or 0.0 for record in records],  # 0.0: no token, as there
        "errors": [record.error for record in records],
    }
    for name, values in (
        ("ttft", [record.ttft for record in ok]),
        ("tpot", [record.tpot for record in ok]),
        ("e2el", [record.e2e for record in ok]),
    ):
        document |= _summary(name, sorted(value for value in values if value is not None))
    for word, value in (("median", itl.p50), ("p99", itl.p99)):
        document[f"{word}_itl_ms"] = None if value is None else value * 1000
    document["mean_itl_ms"] = document["std_itl_ms"] = None
    kept = [record.gaps_us for record in records if record.gaps_us is not None]
    if kept and len(kept) == len(records):
        document["itls"] = [[gap / 1e6 for gap in gaps] for gaps in kept]
        of_ok = [gap / 1e3 for record in ok for gap in record.gaps_us or ()]
        if of_ok and all(len(gaps) < MAX_GAPS for gaps in kept):
            document["mean_itl_ms"] = fmean(of_ok)
            document["std_itl_ms"] = pstdev(of_ok)
    return document


def levels_log(levels: Sequence[LevelResult], *, start: float) -> str:
    """Levels as an HdrHistogram log: an interval a level, tagged ``ttft-64`` at 64 streams.

    Only requests that ended well. start: unix seconds of the records' zero.
    """
    intervals = []
    for level in levels:
        ok = [record for record in level.records if record.fate is Fate.OK]
        end = max((record.last for record in ok if record.last is not None), default=0.0)
        named = latencies(ok, f"-{level.level}")
        intervals.append(hdr_log.Interval(max(0.0, end - level.seconds), end, named))
    return hdr_log.log(intervals, start=start, comments=["llmtop saturate, nanoseconds"])


def seconds_log(records: Iterable[RequestRecord], *, start: float, every_s: float = 1.0) -> str:
    """Requests as an HdrHistogram log, by the second in which they ended; those that ended well."""
    bins: dict[int, list[RequestRecord]] = {}
    for record in records:
        if record.fate is Fate.OK and record.last is not None:
            bins.setdefault(int(record.last / every_s), []).append(record)
    intervals = [
        hdr_log.Interval(number * every_s, (number + 1) * every_s, latencies(bins[number]))
        for number in sorted(bins)
    ]
    return hdr_log.log(intervals, start=start, comments=["llmtop load, nanoseconds"])


def latencies(records: Sequence[RequestRecord], suffix: str = "") -> dict[str, list[float]]:
    """The latencies of requests by name, seconds."""
    found = {
        "ttft": [record.ttft for record in records],
        "tpot": [record.tpot for record in records],
        "e2e": [record.e2e for record in records],
    }
    return {f"{name}{suffix}": [v for v in each if v is not None] for name, each in found.items()}


def _summary(name: str, ordered: list[float]) -> dict[str, float | None]:
    if not ordered:
        return {f"{word}_{name}_ms": None for word in ("mean", "median", "std", "p99")}
    return {
        f"mean_{name}_ms": fmean(ordered) * 1000,
        f"median_{name}_ms": _percentile(ordered, 0.50) * 1000,
        f"std_{name}_ms": pstdev(ordered) * 1000,
        f"p99_{name}_ms": _percentile(ordered, 0.99) * 1000,
    }


def _percentile(ordered: list[float], share: float) -> float:
    """Between the two nearest ranks, as numpy's default does it: these fields come from numpy."""
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)

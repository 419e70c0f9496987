"""Reads TensorRT-LLM's /prometheus/metrics. Names may have the prefix ``trtllm_``.

1.0 and 1.1 report latencies and finished requests. Later versions add gauges of the KV cache, and
the newest report all names below. A series appears with its first value. No version has a histogram
of inter-token latency.
"""

from __future__ import annotations

from collections.abc import Mapping

from llmtop.engines.core.adapter import MetricText, SeriesNames
from llmtop.engines.core.samples import Counter, Latency, Reading
from llmtop.engines.metrics.histograms import histogram
from llmtop.engines.metrics.series import looked_up

PATH = "/prometheus/metrics"
PREFIX = "trtllm_"

# tensorrt_llm/metrics/collector.py, without the prefix.
COUNTERS = {
    Counter.OUTPUT_TOKENS: "generation_tokens_total",
    Counter.PROMPT_TOKENS: "prompt_tokens_total",
    Counter.PREFIX_QUERIES: "prompt_tokens_total",
    Counter.PREFIX_HITS: "prompt_cached_tokens_total",
    Counter.DRAFT_TOKENS: "spec_decode_num_draft_tokens_total",
    Counter.ACCEPTED_TOKENS: "spec_decode_num_accepted_tokens_total",
}
HISTOGRAMS = {
    Latency.TTFT: "time_to_first_token_seconds",
    Latency.TPOT: "time_per_output_token_seconds",
    Latency.E2E: "e2e_request_latency_seconds",
    Latency.QUEUE: "request_queue_time_seconds",
}
FINISHED = "request_success_total"  # counts all finished requests, by reason
SUCCESS_REASONS = frozenset({"stop", "length", "tool_calls"})
ERRORS = "request_error_total"
RUNNING = "num_requests_running"
WAITING = "num_requests_waiting"
KV_USAGE = "kv_cache_utilization"
KV_BLOCKS = "kv_cache_max_blocks"
KV_BLOCK_TOKENS = "kv_cache_tokens_per_block"

# Names without the prefix are so general that the parser accepts only those used here.
PREFIXES = (
    PREFIX,
    *{*COUNTERS.values(), *HISTOGRAMS.values(), FINISHED, ERRORS},
    *(RUNNING, WAITING, KV_USAGE, KV_BLOCKS, KV_BLOCK_TOKENS),
)
_BARE = looked_up(
    RUNNING,
    (WAITING, KV_USAGE, KV_BLOCKS, KV_BLOCK_TOKENS),
    (*COUNTERS.values(), FINISHED, ERRORS),
    HISTOGRAMS,
)
# Names without the prefix could belong to any program. So a query to a collector uses only prefixed
# names.
SERIES = SeriesNames(
    running=tuple(PREFIX + name for name in (RUNNING, FINISHED)),
    values=(*(PREFIX + name for name in _BARE.values), "process_start_time_seconds"),
    histograms={
        latency: tuple(PREFIX + name for name in names)
        for latency, names in _BARE.histograms.items()
    },
)


def read(text: MetricText, time: float, elapsed: float) -> Reading:
    """The reading from this page alone. time: unix seconds. elapsed: monotonic seconds."""
    text = _Unprefixed(text)
    blocks, tokens = _gauge(text, KV_BLOCKS), _gauge(text, KV_BLOCK_TOKENS)
    return Reading(
        time=time,
        elapsed=elapsed,
        model=_model(text),
        running=_whole(_gauge(text, RUNNING)),
        waiting=_whole(_gauge(text, WAITING)),
        kv_usage=_gauge(text, KV_USAGE),
        kv_tokens_total=round(blocks * tokens) if blocks and tokens else None,
        counters=_counters(text),
        histograms={
            latency: found
            for latency, name in HISTOGRAMS.items()
            if (found := histogram(text, name)) is not None
        },
        process_start=text.value("process_start_time_seconds"),
    )


class _Unprefixed:
    """Looks up a name, first with the prefix and then without it."""

    def __init__(self, text: MetricText) -> None:
        self._text = text

    def value(self, name: str, **labels: str) -> float | None:
        found = self._text.value(PREFIX + name, **labels)
        return found if found is not None else self._text.value(name, **labels)

    def series(self, name: str) -> tuple[tuple[Mapping[str, str], float], ...]:
        return tuple(self._text.series(PREFIX + name) or self._text.series(name))


def _gauge(text: MetricText, name: str) -> float | None:
    # Several server processes have a series each, but only one process writes its value.
    return max((value for _, value in text.series(name) if value >= 0), default=None)


def _counters(text: MetricText) -> dict[Counter, float]:
    found = {
        counter: value
        for counter, name in COUNTERS.items()
        if (value := text.value(name)) is not None
    }
    if Counter.PREFIX_HITS not in found:  # queries without hits would mean a hit rate of 0
        found.pop(Counter.PREFIX_QUERIES, None)
    finished, errors = text.series(FINISHED), text.value(ERRORS)
    if finished or errors is not None:
        ok = sum(n for labels, n in finished if labels.get("finished_reason") in SUCCESS_REASONS)
        found[Counter.REQUESTS_OK] = ok
        found[Counter.REQUESTS_FAILED] = sum(n for _, n in finished) - ok + (errors or 0.0)
    return found


def _model(text: MetricText) -> str | None:
    # Some versions write "undefined" into their labels.
    names = (labels.get("model_name") for labels, _ in text.series(FINISHED))
    return next((name for name in names if name and name != "undefined"), None)


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)

"""TensorRT-LLM's /prometheus/metrics: names with and without ``trtllm_``, whatever of it is there.

1.0 and 1.1 have latencies and finished requests, later versions the KV cache's gauges as well, the
newest everything. A series appears with its first value. There is no gap-between-tokens histogram.
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
FINISHED = "request_success_total"  # despite its name it counts every ending, by reason
FINISHED_WELL = frozenset({"stop", "length", "tool_calls"})
ERRORS = "request_error_total"
RUNNING = "num_requests_running"
WAITING = "num_requests_waiting"
KV_USAGE = "kv_cache_utilization"
KV_BLOCKS = "kv_cache_max_blocks"
KV_BLOCK_TOKENS = "kv_cache_tokens_per_block"

# Bare names are so general that only those that are read are let in.
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
# Names without the prefix could be those of any program. A query by name to a collector uses the
# prefixed ones alone.
SERIES = SeriesNames(
    running=tuple(PREFIX + name for name in (RUNNING, FINISHED)),
    values=(*(PREFIX + name for name in _BARE.values), "process_start_time_seconds"),
    histograms={
        latency: tuple(PREFIX + name for name in names)
        for latency, names in _BARE.histograms.items()
    },
)


def read(text: MetricText, time: float, elapsed: float) -> Reading:
    """What this page alone reports of one moment."""
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
    """Looks a bare name up with the prefix first."""

    def __init__(self, text: MetricText) -> None:
        self._text = text

    def value(self, name: str, **labels: str) -> float | None:
        found = self._text.value(PREFIX + name, **labels)
        return found if found is not None else self._text.value(name, **labels)

    def series(self, name: str) -> tuple[tuple[Mapping[str, str], float], ...]:
        return tuple(self._text.series(PREFIX + name) or self._text.series(name))


def _gauge(text: MetricText, name: str) -> float | None:
    # With several server processes each has a series, and only one of them writes it.
    return max((value for _, value in text.series(name) if value >= 0), default=None)


def _counters(text: MetricText) -> dict[Counter, float]:
    found = {
        counter: value
        for counter, name in COUNTERS.items()
        if (value := text.value(name)) is not None
    }
    if Counter.PREFIX_HITS not in found:  # queries alone would read as a cache that never hits
        found.pop(Counter.PREFIX_QUERIES, None)
    finished, errors = text.series(FINISHED), text.value(ERRORS)
    if finished or errors is not None:
        well = sum(n for labels, n in finished if labels.get("finished_reason") in FINISHED_WELL)
        found[Counter.REQUESTS_OK] = well
        found[Counter.REQUESTS_FAILED] = sum(n for _, n in finished) - well + (errors or 0.0)
    return found


def _model(text: MetricText) -> str | None:
    # Some versions write the word "undefined" into both of their labels.
    names = (labels.get("model_name") for labels, _ in text.series(FINISHED))
    return next((name for name in names if name and name != "undefined"), None)


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)

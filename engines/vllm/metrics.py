"""Reads vLLM's metrics. Names: 0.20 to 0.32, and earlier names."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping

from llmtop.engines.core import conditions
from llmtop.engines.core.adapter import MetricText
from llmtop.engines.core.conditions import Condition
from llmtop.engines.core.samples import Counter, Latency, Reading
from llmtop.engines.metrics.histograms import histogram
from llmtop.engines.metrics.series import Names, by_engine, gauge, looked_up

COUNTERS = {
    Counter.OUTPUT_TOKENS: "vllm:generation_tokens_total",
    Counter.PROMPT_TOKENS: "vllm:prompt_tokens_total",
    Counter.PREFIX_QUERIES: "vllm:prefix_cache_queries_total",
    Counter.PREFIX_HITS: "vllm:prefix_cache_hits_total",
    Counter.PREEMPTIONS: "vllm:num_preemptions_total",
    Counter.DRAFTS: "vllm:spec_decode_num_drafts_total",
    Counter.DRAFT_TOKENS: "vllm:spec_decode_num_draft_tokens_total",
    Counter.ACCEPTED_TOKENS: "vllm:spec_decode_num_accepted_tokens_total",
}
HISTOGRAMS = {
    Latency.TTFT: "vllm:time_to_first_token_seconds",
    Latency.ITL: "vllm:inter_token_latency_seconds",
    Latency.TPOT: "vllm:request_time_per_output_token_seconds",
    Latency.E2E: "vllm:e2e_request_latency_seconds",
    Latency.QUEUE: "vllm:request_queue_time_seconds",
}
FINISHED = "vllm:request_success_total"  # counts all finished requests, by reason
FAILED_REASONS = frozenset({"abort", "error"})
ACCEPTED_BY_POSITION = "vllm:spec_decode_num_accepted_tokens_per_pos_total"
RUNNING = "vllm:num_requests_running"
KV_USAGE = "vllm:kv_cache_usage_perc"
WAITING = "vllm:num_requests_waiting"
SLEEP = "vllm:engine_sleep_state"
CACHE = "vllm:cache_config_info"
START = "process_start_time_seconds"
# vLLM exposes them from its start. If they are missing, a collector has changed the page.
TOTALS = (COUNTERS[Counter.OUTPUT_TOKENS], COUNTERS[Counter.PROMPT_TOKENS])
# Names up to 0.10. There, time_per_output_token is the latency between two tokens.
OLD_NAMES = {
    KV_USAGE: ("vllm:gpu_cache_usage_perc",),
    COUNTERS[Counter.PREFIX_QUERIES]: ("vllm:gpu_prefix_cache_queries_total",),
    COUNTERS[Counter.PREFIX_HITS]: ("vllm:gpu_prefix_cache_hits_total",),
    HISTOGRAMS[Latency.ITL]: ("vllm:time_per_output_token_seconds",),
}
SERIES = looked_up(
    RUNNING,
    (WAITING, KV_USAGE, SLEEP, CACHE, START),
    (*COUNTERS.values(), FINISHED, ACCEPTED_BY_POSITION),
    HISTOGRAMS,
    OLD_NAMES,
)


def read(text: MetricText, time: float, elapsed: float) -> Reading:
    """The reading of the whole server: its data-parallel engines, combined.

    time: unix seconds. elapsed: monotonic seconds.
    """
    names = Names(text, OLD_NAMES)
    capacity = _capacity(text)
    usage, fullest = _kv_usage(text, names.name(KV_USAGE), capacity)
    models = _models(text)
    counters = _counters(text, names)
    histograms = {
        latency: merged
        for latency, name in HISTOGRAMS.items()
        if (merged := histogram(text, names.name(name, "_bucket"))) is not None
    }
    return Reading(
        time=time,
        elapsed=elapsed,
        model=models[0] if models else None,
        running=_whole(gauge(text, RUNNING)),
        waiting=_whole(gauge(text, WAITING)),
        kv_usage=usage,
        kv_usage_fullest=fullest,
        kv_tokens_total=sum(capacity.values()) if capacity else None,
        counters=counters,
        histograms=histograms,
        accepted_per_position=_accepted(text),
        process_start=_value(text, START),
        conditions=tuple(_conditions(text, names, models)),
    )


def _conditions(text: MetricText, names: Names, models: tuple[str, ...]) -> list[Condition]:
    series = by_engine(text.series(RUNNING))
    if not series:
        return []
    found = []
    if any("server" in labels for labels, _ in series):
        found.append(conditions.router("vLLM's production stack"))
    state = {labels.get("sleep_state", ""): value for labels, value in text.series(SLEEP)}
    if state.get("awake") == 0:
        level = next((word for word, on in state.items() if on and word != "awake"), "")
        found.append(conditions.asleep(level.replace("_", " ")))
    if names.renamed:
        found.append(conditions.renamed_series(names.renamed))
    lost = [name for name in TOTALS if not text.series(name)]
    if lost or names.bare:
        missing = list(dict.fromkeys([*lost, *names.bare]))
        found.append(conditions.missing_totals(missing, list(names.bare.values())))
    if len(models) > 1:
        found.append(conditions.several_models(models))
    return found


def _models(text: MetricText) -> tuple[str, ...]:
    """The model names on the page, in its order."""
    series = text.series(RUNNING)
    return tuple(
        dict.fromkeys(labels["model_name"] for labels, _ in series if "model_name" in labels)
    )


def _capacity(text: MetricText) -> dict[str, int]:
    """The capacity of each engine's KV cache in tokens. Labels give it; a label may be "None"."""
    found: dict[str, int] = {}
    for labels, _ in text.series(CACHE):
        tokens = _label_count(labels, "kv_cache_size_tokens")
        if tokens is None:  # older versions report only the blocks
            blocks, size = (
                _label_count(labels, "num_gpu_blocks"),
                _label_count(labels, "block_size"),
            )
            tokens = blocks * size if blocks is not None and size is not None else None
        if tokens:
            found[labels.get("engine", "0")] = tokens
    return found


def _kv_usage(
    text: MetricText, name: str, capacity: Mapping[str, int]
) -> tuple[float | None, float | None]:
    """The mean over the engines, and the highest value (None with one engine).

    The mean is weighted by capacity if all capacities are known.
    """
    usage = [(labels.get("engine", "0"), value) for labels, value in by_engine(text.series(name))]
    if not usage:
        return None, None
    known = all(engine in capacity for engine, _ in usage)
    weights = [capacity[engine] if known else 1 for engine, _ in usage]
    pairs = zip(weights, usage, strict=True)
    mean = sum(weight * value for weight, (_, value) in pairs) / sum(weights)
    return mean, max(value for _, value in usage) if len(usage) > 1 else None


def _counters(text: MetricText, names: Names) -> dict[Counter, float]:
    found = {}
    for counter, name in COUNTERS.items():
        value = _value(text, names.name(name))
        if value is not None:
            found[counter] = value
    finished = text.series(names.name(FINISHED))
    if finished:
        found[Counter.REQUESTS_OK] = found[Counter.REQUESTS_FAILED] = 0.0
    for labels, value in finished:
        failed = labels.get("finished_reason") in FAILED_REASONS
        found[Counter.REQUESTS_FAILED if failed else Counter.REQUESTS_OK] += value
    return found


def _accepted(text: MetricText) -> tuple[float, ...]:
    by_position: defaultdict[int, float] = defaultdict(float)
    for labels, value in text.series(ACCEPTED_BY_POSITION):
        position = _label_count(labels, "position")
        if position is not None:
            by_position[position] += value
    return tuple(by_position[position] for position in sorted(by_position))


def _value(text: MetricText, name: str) -> float | None:
    value = text.value(name)
    return value if value is not None and math.isfinite(value) else None


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def _label_count(labels: Mapping[str, str], name: str) -> int | None:
    value = labels.get(name, "")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 16 else None

"""Reads SGLang's metrics. Names and labels: SGLang 0.5.12 to 0.5.23, observability/.

The gauges come from the schedulers, with one series for each rank. Latencies of requests come from
the front end, with one series for streamed and one for other requests. These series appear at their
first observation. So if one is missing while the gauges are present, its value is zero.
"""

from __future__ import annotations

from collections.abc import Mapping

from llmtop.engines.core import conditions
from llmtop.engines.core.adapter import MetricText
from llmtop.engines.core.conditions import Condition
from llmtop.engines.core.samples import BucketHistogram, Counter, Latency, Reading
from llmtop.engines.metrics.histograms import histogram, merge
from llmtop.engines.metrics.series import TOTAL, Names, by_engine, looked_up

RANKS = ("dp_rank", "pp_rank", "tp_rank", "moe_ep_rank")
FRONT_END = {
    Latency.TTFT: "sglang:time_to_first_token_seconds",
    Latency.ITL: "sglang:inter_token_latency_seconds",
    Latency.TPOT: "sglang:request_time_per_output_token_seconds",  # since 0.5.22
    Latency.E2E: "sglang:e2e_request_latency_seconds",
}
QUEUE = "sglang:queue_time_seconds"
RUNNING = "sglang:num_running_reqs"
TOKENS = "sglang:realtime_tokens_total"
# Counters of the front end: they count a request's tokens at its end. Before 0.5.12 only these.
OUTPUT = "sglang:generation_tokens_total"
PROMPT = "sglang:prompt_tokens_total"
CACHED = "sglang:cached_tokens_total"
WAITING = "sglang:num_queue_reqs"
USAGE = "sglang:token_usage"
USED = "sglang:kv_used_tokens"
OLD_USED = "sglang:num_used_tokens"
CAPACITY = "sglang:max_total_num_tokens"
EVICTABLE = "sglang:kv_evictable_tokens"
THROUGHPUT = "sglang:gen_throughput"
ACCEPTED_LENGTH = "sglang:spec_accept_length"
ACCEPTED_RATE = "sglang:spec_accept_rate"
RETRACTED = "sglang:num_retracted_requests_total"
FINISHED = "sglang:num_requests_total"
ABORTED = "sglang:num_aborted_requests_total"
SERIES = looked_up(
    RUNNING,
    (
        WAITING,
        USAGE,
        USED,
        OLD_USED,
        CAPACITY,
        EVICTABLE,
        THROUGHPUT,
        ACCEPTED_LENGTH,
        ACCEPTED_RATE,
    ),
    (TOKENS, OUTPUT, PROMPT, CACHED, RETRACTED, FINISHED, ABORTED),
    {**FRONT_END, Latency.QUEUE: QUEUE},
)
ROUNDING = 0.011  # token_usage is reported in steps of 0.01

Labels = Mapping[str, str]


def read(text: MetricText, time: float, elapsed: float) -> Reading:
    """The reading of the whole server: its data-parallel ranks combined.

    time: unix seconds. elapsed: monotonic seconds.
    """
    ranks = _Ranks(text)
    running = ranks.total(RUNNING)
    used, total = ranks.total(USED), ranks.total(CAPACITY)
    if used is None:
        used = ranks.total(OLD_USED)
    acceptance, length = _speculation(ranks) if running else (None, None)
    full = ranks.each(USAGE)
    names = Names(text, {})
    counters = _counters(text, ranks, names)  # before the conditions, which read what it looked up
    return Reading(
        time=time,
        elapsed=elapsed,
        model=ranks.model,
        running=_whole(running),
        waiting=_whole(ranks.total(WAITING)),
        kv_usage=_kv_usage(ranks, used, total),
        kv_tokens_used=_whole(used),
        kv_tokens_evictable=_whole(ranks.total(EVICTABLE)),
        kv_tokens_total=_whole(total),
        counters=counters,
        histograms=_histograms(text, ranks),
        spec_acceptance=acceptance,
        spec_accepted_length=length,
        kv_usage_fullest=max(full) if len(full) > 1 else None,
        conditions=_conditions(text, ranks, names),
    )


class _Ranks:
    """The schedulers that represent the server: the first of each data-parallel rank.

    The others (with --enable-metrics-for-all-schedulers) report the same requests.
    """

    def __init__(self, text: MetricText) -> None:
        self._text = text
        first: dict[str, Labels] = {}
        series = text.series(RUNNING)
        names = (labels["model_name"] for labels, _ in series if "model_name" in labels)
        self.models = tuple(dict.fromkeys(names))
        self.model = self.models[0] if self.models else None
        for labels, _ in series:
            group = labels.get("dp_rank", "")
            if group not in first or _rank_order(labels) < _rank_order(first[group]):
                first[group] = labels
        self.all = [
            {rank: labels[rank] for rank in RANKS if rank in labels} for labels in first.values()
        ]

    def each(self, name: str, **more: str) -> list[float]:
        """A gauge or counter of each rank that reports it."""
        found = []
        for rank in self.all:
            wanted = {**rank, **more}.items()
            values = [
                value
                for labels, value in by_engine(self._text.series(name))
                # With priority scheduling, each priority has its own series besides the total.
                if wanted <= labels.items() and not labels.get("priority")
            ]
            if values:
                found.append(sum(values))
        return found

    def total(self, name: str, **more: str) -> float | None:
        """The sum over the ranks; None when no rank reports it."""
        found = self.each(name, **more)
        return sum(found) if found else None


def _rank_order(labels: Labels) -> tuple[int, ...]:
    return tuple(_number(labels.get(rank, "0")) for rank in RANKS)


def _kv_usage(ranks: _Ranks, used: float | None, total: float | None) -> float | None:
    """The share of the KV cache in use, without evictable tokens (kept only for reuse).

    token_usage is rounded. With several pools (sliding window, Mamba) it belongs to the fullest. So
    the share from the token counts is used if it agrees with token_usage, otherwise token_usage.
    """
    reported = ranks.each(USAGE)
    usage = sum(reported) / len(reported) if reported else None
    exact = used / total if used is not None and total else None
    if usage is None or (exact is not None and abs(exact - usage) <= ROUNDING):
        return exact
    return usage


def _lost(text: MetricText, ranks: _Ranks) -> bool:
    """Whether tokens are generated although their counter is missing on the page."""
    generating = (ranks.total(THROUGHPUT) or 0.0) > 0
    bare = any(text.series(name.removesuffix(TOTAL)) for name in (TOKENS, OUTPUT))
    return generating and not bare and not text.series(TOKENS) and not text.series(OUTPUT)


def _conditions(text: MetricText, ranks: _Ranks, names: Names) -> tuple[Condition, ...]:
    found = []
    if names.bare or _lost(text, ranks):
        missing = list(names.bare) or [TOKENS, OUTPUT]
        found.append(conditions.missing_totals(missing, list(names.bare.values())))
    if len(ranks.models) > 1:
        found.append(conditions.several_models(ranks.models))
    return tuple(found)


def _counters(text: MetricText, ranks: _Ranks, names: Names) -> dict[Counter, float]:
    """Totals. Token counters change with each logged batch, not at the end of a request."""
    if not ranks.all:
        return {}
    tokens = names.name(TOKENS)
    if not text.series(tokens) and (_front_end(text, names) or _lost(text, ranks)):
        return {**_requests(text, ranks), **_front_end(text, names)}
    computed = ranks.total(tokens, mode="prefill_compute") or 0.0
    cached = ranks.total(tokens, mode="prefill_cache") or 0.0
    return {
        Counter.OUTPUT_TOKENS: ranks.total(tokens, mode="decode") or 0.0,
        Counter.PROMPT_TOKENS: computed + cached,
        Counter.PREFIX_QUERIES: computed + cached,
        Counter.PREFIX_HITS: cached,
        **_requests(text, ranks),
    }


def _front_end(text: MetricText, names: Names) -> dict[Counter, float]:
    wanted = {Counter.OUTPUT_TOKENS: OUTPUT, Counter.PROMPT_TOKENS: PROMPT}
    if text.series(names.name(CACHED)):
        wanted |= {Counter.PREFIX_QUERIES: PROMPT, Counter.PREFIX_HITS: CACHED}
    found = {counter: text.value(names.name(name)) for counter, name in wanted.items()}
    return {counter: value for counter, value in found.items() if value is not None}


def _requests(text: MetricText, ranks: _Ranks) -> dict[Counter, float]:
    return {
        Counter.PREEMPTIONS: ranks.total(RETRACTED) or 0.0,
        # Requests aborted while running count as finished too: SGLang reports no reasons, and the
        # difference of the two counters could decrease.
        Counter.REQUESTS_OK: text.value(FINISHED) or 0.0,
        Counter.REQUESTS_FAILED: text.value(ABORTED) or 0.0,
    }


def _histograms(text: MetricText, ranks: _Ranks) -> dict[Latency, BucketHistogram]:
    found = {latency: histogram(text, name) for latency, name in FRONT_END.items()}
    parts = [histogram(text, QUEUE, **rank) for rank in ranks.all]
    found[Latency.QUEUE] = merge(part for part in parts if part is not None)
    return {latency: one for latency, one in found.items() if one is not None}


def _speculation(ranks: _Ranks) -> tuple[float | None, float | None]:
    """Accepted share of draft tokens, and tokens per verification, in the last log interval.

    These are gauges, because no counter reports accepted tokens. Both are 0 without drafts; a
    verification always gives at least one token.
    """
    lengths = ranks.each(ACCEPTED_LENGTH)
    rates = ranks.each(ACCEPTED_RATE)
    pairs = [pair for pair in zip(rates, lengths, strict=False) if pair[1] >= 1.0]
    if not pairs:
        return None, None
    return sum(rate for rate, _ in pairs) / len(pairs), sum(one for _, one in pairs) / len(pairs)


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)

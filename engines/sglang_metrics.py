"""How SGLang's numbers are read. Names and labels: SGLang 0.5.12 to 0.5.23, observability/.

A server's gauges come from its schedulers, one series a rank; what a request went through comes
from the front end, one series for streamed and one for other requests. A series of the latter kind
is there from its first observation on, so a name that is missing beside the schedulers' is a zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from llmtop.engines.adapter import MetricText
from llmtop.engines.histograms import histogram, merge
from llmtop.engines.samples import BucketHistogram, Counter, Latency, Reading

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
ROUNDING = 0.011  # token_usage is told in steps of 0.01

Labels = Mapping[str, str]


def read(text: MetricText, time: float, elapsed: float) -> Reading:
    """One moment of the whole server: data-parallel ranks are laid together."""
    ranks = _Ranks(text)
    running = ranks.total(RUNNING)
    used, total = ranks.total("sglang:kv_used_tokens"), ranks.total("sglang:max_total_num_tokens")
    if used is None:
        used = ranks.total("sglang:num_used_tokens")
    acceptance, length = _speculation(ranks) if running else (None, None)
    return Reading(
        time=time,
        elapsed=elapsed,
        model=ranks.model,
        running=_whole(running),
        waiting=_whole(ranks.total("sglang:num_queue_reqs")),
        kv_usage=_kv_usage(ranks, used, total),
        kv_tokens_used=_whole(used),
        kv_tokens_evictable=_whole(ranks.total("sglang:kv_evictable_tokens")),
        kv_tokens_total=_whole(total),
        counters=_counters(text, ranks),
        histograms=_histograms(text, ranks),
        spec_acceptance=acceptance,
        spec_accepted_length=length,
    )


class _Ranks:
    """The schedulers that speak for the server: the first of each data-parallel rank.

    The others (with --enable-metrics-for-all-schedulers) tell the same of the same requests.
    """

    def __init__(self, text: MetricText) -> None:
        self._text = text
        first: dict[str, Labels] = {}
        self.model: str | None = None
        for labels, _ in text.series(RUNNING):
            self.model = self.model or labels.get("model_name")
            group = labels.get("dp_rank", "")
            if group not in first or _place(labels) < _place(first[group]):
                first[group] = labels
        self.all = [
            {rank: labels[rank] for rank in RANKS if rank in labels} for labels in first.values()
        ]

    def each(self, name: str, **more: str) -> list[float]:
        """A gauge or counter of each rank that tells it."""
        found = []
        for rank in self.all:
            wanted = {**rank, **more}.items()
            values = [
                value
                for labels, value in self._text.series(name)
                # With priority scheduling there is a series for each priority beside the whole.
                if wanted <= labels.items() and not labels.get("priority") and math.isfinite(value)
            ]
            if values:
                found.append(sum(values))
        return found

    def total(self, name: str, **more: str) -> float | None:
        """The sum over the ranks; None when no rank tells it."""
        found = self.each(name, **more)
        return sum(found) if found else None


def _place(labels: Labels) -> tuple[int, ...]:
    return tuple(_number(labels.get(rank, "0")) for rank in RANKS)


def _kv_usage(ranks: _Ranks, used: float | None, total: float | None) -> float | None:
    """Share in use; what is merely kept for reuse (evictable) does not count.

    token_usage is that of the fuller pool where there are several (sliding window, Mamba), and
    rounded; so tokens are divided wherever that comes to the same.
    """
    told = ranks.each("sglang:token_usage")
    usage = sum(told) / len(told) if told else None
    exact = used / total if used is not None and total else None
    if usage is None or (exact is not None and abs(exact - usage) <= ROUNDING):
        return exact
    return usage


def _counters(text: MetricText, ranks: _Ranks) -> dict[Counter, float]:
    """Totals. Those of tokens move with each logged batch, not when a request has ended."""
    if not ranks.all:
        return {}
    computed = ranks.total(TOKENS, mode="prefill_compute") or 0.0
    cached = ranks.total(TOKENS, mode="prefill_cache") or 0.0
    return {
        Counter.OUTPUT_TOKENS: ranks.total(TOKENS, mode="decode") or 0.0,
        Counter.PROMPT_TOKENS: computed + cached,
        Counter.PREFIX_QUERIES: computed + cached,
        Counter.PREFIX_HITS: cached,
        Counter.PREEMPTIONS: ranks.total("sglang:num_retracted_requests_total") or 0.0,
        # Those that were aborted while they ran are among the finished as well: SGLang tells no
        # reasons, and the difference of the two could go backwards.
        Counter.REQUESTS_OK: text.value("sglang:num_requests_total") or 0.0,
        Counter.REQUESTS_FAILED: text.value("sglang:num_aborted_requests_total") or 0.0,
    }


def _histograms(text: MetricText, ranks: _Ranks) -> dict[Latency, BucketHistogram]:
    found = {latency: histogram(text, name) for latency, name in FRONT_END.items()}
    parts = [histogram(text, QUEUE, **rank) for rank in ranks.all]
    found[Latency.QUEUE] = merge(part for part in parts if part is not None)
    return {latency: told for latency, told in found.items() if told is not None}


def _speculation(ranks: _Ranks) -> tuple[float | None, float | None]:
    """Accepted share of drafted tokens, and tokens a verification yields, in the last log interval.

    Gauges, since no counter tells the accepted tokens. Where nothing is drafted both stand at 0,
    which no verification yields: it always brings one token.
    """
    lengths = ranks.each("sglang:spec_accept_length")
    rates = ranks.each("sglang:spec_accept_rate")
    told = [pair for pair in zip(rates, lengths, strict=False) if pair[1] >= 1.0]
    if not told:
        return None, None
    return sum(rate for rate, _ in told) / len(told), sum(one for _, one in told) / len(told)


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)

"""The names of the series in ``EngineTrack.series``, which sources write and panels read."""

from __future__ import annotations

from enum import StrEnum


class SeriesName(StrEnum):
    """Names of series. Each engine has one series of each name.

    Latencies are in seconds, rates per second, shares 0..1. A quantile that the engine reports is a
    range with two series, LOW and HIGH. They are equal if it is exact. HIGH has a gap if the
    quantile is above the last bucket.
    """

    RUNNING = "running"
    WAITING = "waiting"
    CAP = "cap"  # max_num_seqs in force
    QUEUE_LIMIT = "queue_limit"  # max_queued_requests in force; a gap without a limit
    KV_USAGE = "kv_usage"  # 0..1
    OUTPUT_TOKENS = "output_tokens_per_s"
    PROMPT_TOKENS = "prompt_tokens_per_s"
    TTFT_P95_LOW = "ttft_p95_low"  # reported by the engine
    TTFT_P95_HIGH = "ttft_p95_high"
    TTFT_MEAN = "ttft_mean"  # exact, reported by the engine
    ITL_P95_LOW = "itl_p95_low"
    ITL_P95_HIGH = "itl_p95_high"
    ITL_MEAN = "itl_mean"
    CLIENT_TTFT_P50 = "client_ttft_p50"
    CLIENT_TTFT_P95 = "client_ttft_p95"
    CLIENT_TTFT_P99 = "client_ttft_p99"
    CLIENT_ITL_P95 = "client_itl_p95"
    OLDEST_WAIT = "oldest_wait"  # age of the client's oldest request without a first token
    ASKED = "asked"  # the level that the load's shape requires
    ACHIEVED = "achieved"  # streams that receive tokens, or finished requests per second
    SPEC_ACCEPTANCE = "spec_acceptance"  # accepted over drafted tokens, 0..1
    REQUESTS = "requests_per_s"

"""The names of the series in ``EngineTrack.series``: written by sources, read by panels."""

from __future__ import annotations

from enum import StrEnum


class SeriesName(StrEnum):
    """Each engine has one series of each name. Latencies in seconds, rates a second, shares 0..1.

    A quantile of the engine's own is a range: its two ends, equal where it is known. Its upper end
    is a gap beyond the last bucket.
    """

    RUNNING = "running"
    WAITING = "waiting"
    CAP = "cap"  # max_num_seqs in force
    QUEUE_LIMIT = "queue_limit"  # max_queued_requests in force; a gap where there is none
    KV_USAGE = "kv_usage"  # 0..1
    OUTPUT_TOKENS = "output_tokens_per_s"
    PROMPT_TOKENS = "prompt_tokens_per_s"
    TTFT_P95_LOW = "ttft_p95_low"  # the engine's own
    TTFT_P95_HIGH = "ttft_p95_high"
    TTFT_MEAN = "ttft_mean"  # exact, the engine's own
    ITL_P95_LOW = "itl_p95_low"
    ITL_P95_HIGH = "itl_p95_high"
    ITL_MEAN = "itl_mean"
    CLIENT_TTFT_P50 = "client_ttft_p50"
    CLIENT_TTFT_P95 = "client_ttft_p95"
    CLIENT_TTFT_P99 = "client_ttft_p99"
    CLIENT_ITL_P95 = "client_itl_p95"
    OLDEST_WAIT = "oldest_wait"  # age of the oldest request without a first token, the client's
    ASKED = "asked"  # the level that the load's shape calls for
    ACHIEVED = "achieved"  # streams that get tokens, or finished requests per second
    SPEC_ACCEPTANCE = "spec_acceptance"  # 0..1, of the tokens that were drafted
    REQUESTS = "requests_per_s"

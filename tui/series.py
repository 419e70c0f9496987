"""The names of the series in ``EngineTrack.series``: written by sources, read by panels."""

from __future__ import annotations

from enum import StrEnum


class SeriesName(StrEnum):
    """One series an engine. Latencies in seconds, rates a second, shares 0..1.

    A quantile that its buckets cannot resolve is stored as the bound that it lies below or above.
    """

    RUNNING = "running"
    WAITING = "waiting"
    CAP = "cap"  # max_num_seqs in force
    KV_USAGE = "kv_usage"  # 0..1
    OUTPUT_TOKENS = "output_tokens_per_s"
    PROMPT_TOKENS = "prompt_tokens_per_s"
    TTFT_P95 = "ttft_p95"  # the engine's own
    ITL_P95 = "itl_p95"  # the engine's own
    CLIENT_TTFT_P50 = "client_ttft_p50"
    CLIENT_TTFT_P95 = "client_ttft_p95"
    CLIENT_TTFT_P99 = "client_ttft_p99"
    CLIENT_ITL_P95 = "client_itl_p95"
    OLDEST_WAIT = "oldest_wait"  # age of the oldest request without a first token, the client's
    ASKED = "asked"  # the level that the load's shape calls for
    ACHIEVED = "achieved"  # what came of it: streams that get tokens, or requests a second
    SPEC_ACCEPTANCE = "spec_acceptance"  # 0..1, of the tokens that were drafted
    REQUESTS = "requests_per_s"

"""The series of an engine: their names, and their values in a sample.

Sources write them into ``EngineTrack.series``, charts read them.
"""

from __future__ import annotations

from enum import StrEnum

from llmtop.engines.core.samples import EngineSample, Latency, Quantiles


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


def engine_series(
    sample: EngineSample | None, cap: int | None = None, queue_limit: int | None = None
) -> tuple[tuple[SeriesName, float | None], ...]:
    """The engine's series and their values.

    sample: None: return the names with values that are to be ignored. cap: the batch limit in
    requests. queue_limit: the most waiting requests; None: unknown or no limit.
    """
    if sample is None:
        sample = EngineSample(time=0.0, window_s=0.0)
    return (
        (SeriesName.RUNNING, sample.running),
        (SeriesName.WAITING, sample.waiting),
        (SeriesName.CAP, cap),
        (SeriesName.QUEUE_LIMIT, queue_limit),
        (SeriesName.KV_USAGE, sample.kv_usage),
        (SeriesName.OUTPUT_TOKENS, sample.output_tokens_per_s),
        (SeriesName.PROMPT_TOKENS, sample.prompt_tokens_per_s),
        (SeriesName.REQUESTS, sample.requests_per_s),
        *_latency_series(
            sample.latencies.get(Latency.TTFT),
            (SeriesName.TTFT_P95_LOW, SeriesName.TTFT_P95_HIGH, SeriesName.TTFT_MEAN),
        ),
        *_latency_series(
            sample.latencies.get(Latency.ITL),
            (SeriesName.ITL_P95_LOW, SeriesName.ITL_P95_HIGH, SeriesName.ITL_MEAN),
        ),
        (SeriesName.SPEC_ACCEPTANCE, sample.spec_acceptance),
    )


def _latency_series(
    found: Quantiles | None, names: tuple[SeriesName, SeriesName, SeriesName]
) -> tuple[tuple[SeriesName, float | None], ...]:
    """Lower and upper bound of the 95th percentile, and the mean, in seconds; None: unknown."""
    low, high, mean = names
    p95 = found.p95 if found is not None else None
    return (
        (low, p95.at_least if p95 is not None else None),
        (high, p95.at_most if p95 is not None else None),
        (mean, found.mean if found is not None else None),
    )

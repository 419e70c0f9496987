"""Values read from an engine: immutable, with times, and None where a value is unknown.

A ``Reading`` is one moment as the engine reports it: gauges, counters and cumulative histograms. An
``EngineSample`` is computed from two readings and describes the window between them. Adapters make
readings, panels read samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal

from msgspec import Struct, field

from llmtop.engines.core.conditions import Condition


class Counter(StrEnum):
    """Totals since the engine started."""

    OUTPUT_TOKENS = "output_tokens"
    PROMPT_TOKENS = "prompt_tokens"
    PREFIX_QUERIES = "prefix_queries"  # tokens looked up in the prefix cache
    PREFIX_HITS = "prefix_hits"  # tokens found there
    PREEMPTIONS = "preemptions"
    DRAFTS = "drafts"  # speculative proposals made
    DRAFT_TOKENS = "draft_tokens"  # tokens proposed in them
    ACCEPTED_TOKENS = "accepted_tokens"  # of those, accepted by the model
    REQUESTS_OK = "requests_ok"  # finished by stop or length
    REQUESTS_FAILED = "requests_failed"  # finished by abort or error


class Latency(StrEnum):
    """Distributions that an engine measures, in seconds."""

    TTFT = "ttft"  # arrival to first token
    ITL = "itl"  # gap between two tokens of one stream
    TPOT = "tpot"  # (e2e - TTFT) / (tokens - 1), one value a request
    E2E = "e2e"
    QUEUE = "queue"  # arrival to first scheduled


class BucketHistogram(Struct, frozen=True):
    """A cumulative histogram as in exposition text.

    bounds: upper bounds in seconds, ascending, the last one infinity.
    counts: observations at or below each bound, so counts[-1] is all of them.
    total: sum of all observed values, seconds.
    """

    bounds: tuple[float, ...]
    counts: tuple[float, ...]
    total: float


class Reading(Struct, frozen=True):
    """One engine at one moment.

    time: unix seconds of the reading; elapsed: the monotonic clock at the same moment, for rates.
    kv_usage: share of the KV cache in use, 0..1. kv_tokens_total: its capacity in tokens.
    kv_tokens_used: if the engine counts them. kv_tokens_evictable: kept only for reuse, freed on
    demand, not counted as used.
    accepted_per_position: accepted draft tokens by position in the draft, first position first.
    spec_acceptance, spec_accepted_length: as in EngineSample, from engines that report them over a
    short window of their choice instead of counters.
    process_start: unix seconds at which the engine's process began.
    partial: one of the engine's pages could not be read, so a missing series may still exist.
    kv_usage_fullest: that of the fullest of several ranks, None with one rank.
    conditions: problems of the page itself.
    """

    time: float
    elapsed: float
    model: str | None = None
    running: int | None = None
    waiting: int | None = None
    kv_usage: float | None = None
    kv_tokens_used: int | None = None
    kv_tokens_evictable: int | None = None
    kv_tokens_total: int | None = None
    counters: Mapping[Counter, float] = field(default_factory=dict)
    histograms: Mapping[Latency, BucketHistogram] = field(default_factory=dict)
    accepted_per_position: tuple[float, ...] = ()
    spec_acceptance: float | None = None
    spec_accepted_length: float | None = None
    process_start: float | None = None
    partial: bool = False
    kv_usage_fullest: float | None = None
    conditions: tuple[Condition, ...] = ()


class Quantile(Struct, frozen=True):
    """One quantile, in seconds, as exact as its buckets allow.

    relation "=": known within 25 %. "-": a range, above ``seconds`` and at most ``to``.
    "<": in the first bucket, so at most ``seconds``. ">": beyond the last finite bound.
    """

    seconds: float
    relation: Literal["=", "-", "<", ">"] = "="
    to: float | None = None  # only of a range

    @property
    def value(self) -> float | None:
        """The quantile; None where only bounds are known."""
        return self.seconds if self.relation == "=" else None

    @property
    def at_least(self) -> float:
        """The lower bound."""
        return 0.0 if self.relation == "<" else self.seconds

    @property
    def at_most(self) -> float | None:
        """The upper bound; None: unknown."""
        if self.relation == ">":
            return None
        return self.to if self.relation == "-" else self.seconds


class Quantiles(Struct, frozen=True):
    """A distribution over a window: quantiles, number of observations, length of the window.

    A quantile is None with too few observations. mean: sum / count in the window, seconds; it is
    exact, while quantiles have the resolution of their buckets. exact: the largest relative error
    of a quantile (0.01); None: the resolution of the engine's buckets.
    """

    p50: Quantile | None
    p95: Quantile | None
    p99: Quantile | None
    mean: float | None
    n: int
    window_s: float
    exact: float | None = None


class EngineSample(Struct, frozen=True):
    """The numbers of an engine at one reading.

    Rates (``…_per_s``) cover the last ``rate_window_s`` seconds: short, so that a change shows at
    once. Shares and counts cover ``window_s``. Each distribution has its own window and n.
    Every field except the times may be None: unknown, which is not zero.

    unchanged_s: for how long no number has changed although the engine reports running or waiting
    requests (paused, hung, or one very long step); else None. still_s: the same without
    the condition that requests run or wait.
    conditions: problems that its numbers show (``conditions``).
    """

    time: float
    window_s: float
    model: str | None = None
    running: int | None = None
    waiting: int | None = None
    kv_usage: float | None = None
    kv_tokens_used: int | None = None
    kv_tokens_total: int | None = None
    output_tokens_per_s: float | None = None
    prompt_tokens_per_s: float | None = None
    requests_per_s: float | None = None  # finished without error
    prefix_hit_rate: float | None = None
    preemptions: int | None = None  # in the window
    spec_acceptance: float | None = None  # accepted / proposed draft tokens in the window
    spec_accepted_length: float | None = None  # tokens per step and request: 1 + accepted / drafts
    latencies: Mapping[Latency, Quantiles] = field(default_factory=dict)
    restarted: bool = False  # the counters were reset since the sample before
    rate_window_s: float | None = None
    spec_acceptance_by_position: tuple[float, ...] = ()  # share of drafts accepted up to there
    unchanged_s: float | None = None
    kv_tokens_evictable: int | None = None  # kept only for reuse, not counted as used
    conditions: tuple[Condition, ...] = ()
    still_s: float | None = None
    kv_usage_fullest: float | None = None  # that of the fullest of several ranks


class GpuProcess(Struct, frozen=True):
    """Memory of one process on one GPU. NVML reports the host's pid, also inside a container."""

    pid: int
    memory_bytes: int | None


class GpuSample(Struct, frozen=True):
    """One GPU at one moment. None: the driver does not report it.

    throttle: the reasons that reduce the clocks now, () for none.
    mig_of: the uuid of the GPU of this MIG instance, None for a whole GPU. Instances have the index
    of their GPU and follow it in the list. Their memory is part of its memory.
    unified: it uses the machine's memory, and the memory shown is the machine's.
    """

    time: float
    index: int
    name: str
    uuid: str
    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None
    utilisation: float | None = None  # 0..1
    power_w: float | None = None
    power_limit_w: float | None = None
    energy_j: float | None = None  # since the driver was loaded
    temperature_c: float | None = None
    sm_clock_mhz: int | None = None
    throttle: tuple[str, ...] | None = None
    processes: tuple[GpuProcess, ...] = ()
    mig_of: str | None = None
    unified: bool = False

"""What was read from an engine: frozen, timed, and None wherever something is not known.

A ``Reading`` is one moment as the engine told it: gauges, and counters and histograms that only
ever grow. An ``EngineSample`` is what two readings say about the window between them. Panels see
samples; adapters make readings; nothing else crosses this seam.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal

from msgspec import Struct, field

from llmtop.engines.core.conditions import Condition


class Counter(StrEnum):
    """Totals since the engine started, in the field's own words."""

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
    """Distributions that an engine measures itself, in seconds."""

    TTFT = "ttft"  # arrival to first token
    ITL = "itl"  # gap between two tokens of one stream
    TPOT = "tpot"  # (e2e - TTFT) / (tokens - 1), one value a request
    E2E = "e2e"
    QUEUE = "queue"  # arrival to first scheduled


class BucketHistogram(Struct, frozen=True):
    """A cumulative histogram as exposition text carries it.

    bounds: upper bounds in seconds, ascending, the last one infinity.
    counts: observations at or below each bound, so counts[-1] is all of them.
    total: sum of all observed values, seconds.
    """

    bounds: tuple[float, ...]
    counts: tuple[float, ...]
    total: float


class Reading(Struct, frozen=True):
    """One engine at one moment, before any window is laid over it.

    time: unix seconds of the reading; elapsed: the monotonic clock at the same moment, for rates.
    kv_usage: share of the KV cache in use, 0..1. kv_tokens_total: its capacity in tokens.
    kv_tokens_used: where the engine counts them itself. kv_tokens_evictable: held for reuse only,
    freed when there is need, and not among the used.
    accepted_per_position: accepted draft tokens by position in the draft, first position first.
    spec_acceptance, spec_accepted_length: as in EngineSample, from engines that tell these over a
    short time of their own choice instead of counters.
    process_start: unix seconds at which the engine's process began.
    partial: one of the engine's pages could not be read, so a missing series may still exist.
    kv_usage_fullest: that of the fullest of several ranks, None where there is one.
    conditions: what is wrong with the page itself.
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
    """One quantile as far as its buckets fix it. Seconds.

    relation "=": known to within a quarter. "-": a range, above ``seconds`` and at most ``to``.
    "<": in the first bucket, so at most ``seconds``. ">": beyond the last finite bound.
    """

    seconds: float
    relation: Literal["=", "-", "<", ">"] = "="
    to: float | None = None  # of a range alone

    @property
    def value(self) -> float | None:
        """The quantile itself; None where only bounds of it are known."""
        return self.seconds if self.relation == "=" else None

    @property
    def at_least(self) -> float:
        """It is not below this."""
        return 0.0 if self.relation == "<" else self.seconds

    @property
    def at_most(self) -> float | None:
        """It is not above this; None: no upper bound is known."""
        if self.relation == ">":
            return None
        return self.to if self.relation == "-" else self.seconds


class Quantiles(Struct, frozen=True):
    """A distribution over a window: the quantiles, how many observations, over how long.

    A quantile is None when nothing was observed, or too little for it. mean: sum over count in the
    window, seconds: exact, where quantiles are only as fine as their buckets. exact: each quantile
    is within this share of the true one (0.01); None: it is as fine as the engine's buckets.
    """

    p50: Quantile | None
    p95: Quantile | None
    p99: Quantile | None
    mean: float | None
    n: int
    window_s: float
    exact: float | None = None


class EngineSample(Struct, frozen=True):
    """What one beat says about an engine.

    Rates (``…_per_s``) are over the last ``rate_window_s`` seconds, short so that a change shows at
    once; shares and counts are over ``window_s``; each distribution carries its own window and n.
    Every field but the times may be None: not known, which is not the same as zero.

    unchanged_s: for how long nothing that the engine reports has changed although it says that
    requests run or wait (paused, hung, or one very long step); None otherwise. still_s: the same,
    whether or not requests run.
    conditions: what is wrong with it, as far as its numbers show (``conditions``).
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
    requests_per_s: float | None = None  # finished well
    prefix_hit_rate: float | None = None
    preemptions: int | None = None  # in the window
    spec_acceptance: float | None = None  # accepted / proposed draft tokens in the window
    spec_accepted_length: float | None = None  # tokens per step and request: 1 + accepted / drafts
    latencies: Mapping[Latency, Quantiles] = field(default_factory=dict)
    restarted: bool = False  # the counters began anew since the sample before
    rate_window_s: float | None = None
    spec_acceptance_by_position: tuple[float, ...] = ()  # share of drafts accepted that far
    unchanged_s: float | None = None
    kv_tokens_evictable: int | None = None  # held for reuse only, not among the used
    conditions: tuple[Condition, ...] = ()
    still_s: float | None = None
    kv_usage_fullest: float | None = None  # that of the fullest rank, where there are several


class GpuProcess(Struct, frozen=True):
    """One process's memory on one GPU. NVML gives the host's pid, also inside a container."""

    pid: int
    memory_bytes: int | None


class GpuSample(Struct, frozen=True):
    """One GPU at one moment. None: the driver does not report it.

    throttle: words for the reasons that hold the clocks down now, () when nothing does.
    mig_of: the uuid of the GPU that this is a MIG instance of, None for a whole GPU. Instances
    share their GPU's index and follow it; their memory is part of its memory.
    unified: it works in the machine's memory, and the memory shown is the machine's.
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

"""What came back: frozen facts about the load, live and at its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

TIME_OUT = "time-out after"  # how the error of a request that took too long begins


class Fate(StrEnum):
    """How a request ended."""

    OK = "ok"
    FAILED = "failed"  # refused, an error status, a broken or malformed stream, a time-out
    CUT = "cut"  # ended by us before it was done


MAX_GAPS = 4096  # of one request; 5 bytes each in a packet of wire.MAX_PACKET


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request, whole. All moments in seconds on the load's clock, None: did not happen.

    intended: when it was due. sent: when its last part was handed to the kernel. first: the first
    content token; first_reasoning: the first token of a model's thoughts. last: the last of either.
    tokens: from the server's usage; counted chunks when counted is True, because the server sent no
    usage. error: in a few words, "" when fate is ok. turn: of its conversation, counted from 1.
    cached_tokens: of the prompt, found in the prefix cache; None: the server does not tell.
    gaps_us: between one piece of the answer and the next, microseconds, the first ``MAX_GAPS`` of
    them; None where they were not to be kept. ended: when it was no longer counted as in flight,
    which is after ``last``: a stream ends with its usage and [DONE].
    """

    intended: float
    sent: float | None
    first_byte: float | None
    first: float | None
    last: float | None
    prompt_tokens: int | None
    tokens: int
    counted: bool
    fate: Fate
    error: str = ""
    first_reasoning: float | None = None
    turn: int = 1
    cached_tokens: int | None = None
    gaps_us: tuple[int, ...] | None = None
    ended: float | None = None

    @property
    def timed_out(self) -> bool:
        """Whether it was given up because it took too long."""
        return self.fate is Fate.FAILED and self.error.startswith(TIME_OUT)

    @property
    def ttft(self) -> float | None:
        """Seconds from the intended moment to the first token, reasoning or content."""
        firsts = [at for at in (self.first, self.first_reasoning) if at is not None]
        return min(firsts) - self.intended if firsts else None

    @property
    def service_ttft(self) -> float | None:
        """The same from the moment of sending, as a client reports that forgets its own delays."""
        ttft = self.ttft
        return None if ttft is None or self.sent is None else ttft - (self.sent - self.intended)

    @property
    def e2e(self) -> float | None:
        """Seconds from the intended moment to the last token."""
        return None if self.last is None else self.last - self.intended

    @property
    def service_e2e(self) -> float | None:
        """The same from the moment of sending."""
        return None if self.last is None or self.sent is None else self.last - self.sent

    @property
    def tpot(self) -> float | None:
        """(e2e - TTFT) / (tokens - 1); None for fewer than two tokens."""
        ttft, e2e = self.ttft, self.e2e
        if ttft is None or e2e is None or self.tokens < 2:
            return None
        return (e2e - ttft) / (self.tokens - 1)


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """Quantiles of one latency in seconds. n = 0: all None.

    resolution: relative width of the buckets they were read from; 0: exact, by nearest rank.
    """

    p50: float | None
    p95: float | None
    p99: float | None
    n: int
    window_s: float | None = None  # None: the whole run
    resolution: float = 0.0


NOTHING = LatencySummary(None, None, None, 0)


@dataclass(frozen=True, slots=True)
class ClientHealth:
    """Whether the generator itself could be trusted.

    verdict: "valid", or "client-bound, because …". lag: user clock minus kernel receive stamp;
    None when the transport has no kernel stamps. lateness: sent minus intended, open loop.
    cpu: share of one core that the busiest worker used, 0..1.
    """

    verdict: str
    clock: str  # "kernel" or "user space"
    lag: LatencySummary | None = None
    lateness: LatencySummary | None = None
    cpu: float | None = None
    run_delay: float | None = None  # share of wall time spent waiting for a core
    causes: tuple[str, ...] = ()  # of a verdict that is not "valid", each in a few words


@dataclass(frozen=True, slots=True)
class LoadSnapshot:
    """The load at one moment, for a screen. Latencies and rates over the window before it.

    time: unix seconds. asked: the level the shape calls for now (streams, or requests a second).
    oldest_wait_s: age of the oldest request that still waits for its first token; None when none
    does. oldest_s: of the oldest in flight. running: the shape has not ended. errors: counts by
    short reason since the start.
    """

    time: float
    loop: str
    shape: str
    running: bool
    held: bool
    asked: float
    in_flight: int
    waiting_first: int
    sent: int
    ok: int
    failed: int
    cut: int
    window_s: float
    requests_per_s: float | None
    output_tokens_per_s: float | None
    oldest_wait_s: float | None
    ttft: LatencySummary
    tpot: LatencySummary
    itl: LatencySummary
    e2e: LatencySummary
    health: ClientHealth
    errors: Mapping[str, int] = field(default_factory=dict)
    output_tokens: int = 0  # since the start, as far as seen
    late: int = 0  # sends that left more than 10 ms after their moment
    not_sent: int = 0  # requests that were due and never left; failed or cut, too
    thinking: int = 0  # conversations whose user thinks between two turns, now
    oldest_s: float | None = None

    @property
    def chunks_per_s(self) -> float | None:
        """Pieces of answers a second, which are what the client has to deal with; with speculation
        one holds several tokens."""
        return _chunks(self.itl, self.ttft, self.window_s)


@dataclass(frozen=True, slots=True)
class LoadResult:
    """A whole run. duration_s: first intended send to the last token.

    late: sends that left more than 10 ms after their moment. not_sent: requests that were due and
    never left, timed_out: that took too long; both are among the failed or cut. counted: requests
    whose tokens are chunks, because the server sent no usage. service_ttft, service_e2e: counted
    from the moment of sending. cached_tokens: None when no request was told about. unfinished:
    conversations that went well and ended before their last turn, as the load did.
    """

    ok: int
    failed: int
    cut: int
    duration_s: float
    output_tokens: int
    output_tokens_per_s: float | None
    requests_per_s: float | None
    ttft: LatencySummary
    tpot: LatencySummary
    itl: LatencySummary
    e2e: LatencySummary
    health: ClientHealth
    errors: Mapping[str, int] = field(default_factory=dict)
    late: int = 0
    not_sent: int = 0
    timed_out: int = 0
    unfinished: int = 0
    counted: int = 0
    prompt_tokens: int = 0
    cached_tokens: int | None = None
    service_ttft: LatencySummary = NOTHING
    service_e2e: LatencySummary = NOTHING

    @property
    def chunks_per_s(self) -> float | None:
        """The same over the whole run."""
        return _chunks(self.itl, self.ttft, self.duration_s)


def _chunks(itl: LatencySummary, ttft: LatencySummary, seconds: float) -> float | None:
    return (itl.n + ttft.n) / seconds if seconds else None

"""Results of a load, live and at its end: frozen values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING

from msgspec import Struct, field

if TYPE_CHECKING:
    from llmtop.loadgen.core.measures import Sources, Verdict

TIME_OUT = "time-out after"  # how the error of a request that took too long begins


class Fate(StrEnum):
    """How a request ended."""

    OK = "ok"
    REFUSED = "refused"  # by an engine whose queue is full, at once: status 503 or 429
    FAILED = "failed"  # an error status, a broken or malformed stream, a time-out
    CUT = "cut"  # ended by this client before it was complete


class Remark(StrEnum):
    """Deviations in an answer that are not failures."""

    CONTENT_LIST = "content comes as a list of parts"
    USAGE_FLOAT = "usage is not in whole numbers"
    USAGE_IMPOSSIBLE = "usage is no count of tokens"
    OUTPUT_ABOVE = "more output tokens told than asked for"
    OUTPUT_BELOW = "fewer output tokens than asked for"
    NOT_BELIEVED = "usage not believed: chunks counted"
    PROMPT_DIFFERS = "another number of prompt tokens told than sent"


MAX_GAPS = 4096  # of one request; 5 bytes each in a packet of wire.MAX_PACKET


class RequestRecord(Struct, frozen=True):
    """One complete request. All times are seconds on the load's clock; None: did not happen.

    intended: its due time. sent: when the kernel got its last part. first: the first content token;
    first_reasoning: the first reasoning token. last: the last token of either kind.
    tokens: from the server's usage; the number of chunks if counted is True, because the server
    sent no usage. error: in a few words, "" when fate is ok. turn: of its conversation, from 1.
    cached_tokens: prompt tokens found in the prefix cache; None: not reported.
    gaps_us: between consecutive pieces of the answer, microseconds, the first ``MAX_GAPS``; None if
    not recorded. ended: when it stopped counting as in flight. This is after ``last``: a stream
    ends with its usage and [DONE]. send_error: the part of the time from ``intended`` to the send
    that this client may have caused. first_error, last_error: how much earlier than their times the
    first and the last token may have arrived. chunks: pieces of text, each of one or more tokens.
    request_id: its id at the engine. remarks: deviations in the answer.
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
    send_error: float = 0.0
    first_error: float = 0.0
    last_error: float = 0.0
    chunks: int = 0
    request_id: str = ""
    remarks: tuple[Remark, ...] = ()

    @property
    def timed_out(self) -> bool:
        """Whether it was given up because it took too long."""
        return self.fate is Fate.FAILED and self.error.startswith(TIME_OUT)

    @property
    def ttft(self) -> float | None:
        """Seconds from the intended moment to the first token, reasoning or content."""
        first, reasoning = self.first, self.first_reasoning
        if first is None or (reasoning is not None and reasoning < first):
            first = reasoning
        return None if first is None else first - self.intended

    @property
    def service_ttft(self) -> float | None:
        """The same from the send, as clients report that ignore their own delays."""
        ttft = self.ttft
        return None if ttft is None or self.sent is None else ttft - (self.sent - self.intended)

    @property
    def e2e(self) -> float | None:
        """Seconds from the intended moment to the last token."""
        return None if self.last is None else self.last - self.intended

    @property
    def service_e2e(self) -> float | None:
        """The same from the send."""
        return None if self.last is None or self.sent is None else self.last - self.sent

    @property
    def ttft_low(self) -> float | None:
        """The lower bound of ``ttft`` without this client's error."""
        ttft = self.ttft
        return None if ttft is None else max(0.0, ttft - self.send_error - self.first_error)

    @property
    def e2e_low(self) -> float | None:
        """The lower bound of ``e2e``."""
        e2e = self.e2e
        return None if e2e is None else max(0.0, e2e - self.send_error - self.last_error)

    @property
    def tpot_low(self) -> float | None:
        """The lower bound of ``tpot``."""
        tpot = self.tpot
        return None if tpot is None else max(0.0, tpot - self.last_error / (self.tokens - 1))

    @property
    def tpot_high(self) -> float | None:
        """The upper bound of ``tpot``."""
        tpot = self.tpot
        return None if tpot is None else tpot + self.first_error / (self.tokens - 1)

    @property
    def tpot(self) -> float | None:
        """(e2e - TTFT) / (tokens - 1); None for fewer than two tokens, or if all arrived at one
        time: then the time of a token is unknown."""
        ttft, e2e = self.ttft, self.e2e
        if ttft is None or e2e is None or self.tokens < 2 or e2e <= ttft:
            return None
        return (e2e - ttft) / (self.tokens - 1)


class LatencySummary(Struct, frozen=True):
    """Quantiles of one latency in seconds. n = 0: all None.

    resolution: relative width of the buckets they were read from; 0: exact, by nearest rank.
    mean, minimum, maximum, std (of the whole population): of a whole run or level; None: not known.
    """

    p50: float | None
    p95: float | None
    p99: float | None
    n: int
    window_s: float | None = None  # None: the whole run
    resolution: float = 0.0
    mean: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    std: float | None = None


SEVERAL = 1.2  # tokens in a chunk: less are tokens without text, such as half a character

NOTHING = LatencySummary(None, None, None, 0)


class ClientHealth(Struct, frozen=True):
    """Whether the generator's measurements are valid.

    verdict: on the measures that were asked for: "valid"; "partly valid, because …" and "not valid,
    because …" if the client may have distorted some or all of them; "client-bound, because …" if
    the client limited the throughput or the load. measures: the verdict on each, with its error
    bound. lag: user clock minus kernel receive stamp; None when the transport has no kernel stamps.
    lateness: sent minus intended, open loop. cpu: share of one core that the busiest worker used,
    0..1.
    """

    verdict: str
    clock: str  # "kernel" or "user space"
    lag: LatencySummary | None = None
    lateness: LatencySummary | None = None
    cpu: float | None = None
    run_delay: float | None = None  # share of wall time spent waiting for a core
    causes: tuple[str, ...] = ()  # of a verdict that is not "valid", each in a few words
    measures: tuple[Verdict, ...] = ()
    strain: tuple[str, ...] = ()  # resources that the client lacked, with or without effect
    remedy: str = ""  # what helps if a measure is not valid
    sources: Sources | None = None  # inputs of the verdicts

    @property
    def word(self) -> str:
        """The verdict without its reason."""
        return self.verdict.partition(",")[0]


class LoadSnapshot(Struct, frozen=True):
    """The load at one moment, for a screen. Latencies and rates over the window before it.

    time: unix seconds. asked: the shape's present level (streams, or requests a second).
    oldest_wait_s: age of the oldest request that still waits for its first token; None when none
    does. oldest_s: of the oldest in flight. running: the shape has not ended. errors: counts by
    short reason since the start. tokens_per_chunk: of the answers that ended; above
    ``SEVERAL`` ITL is the gap between chunks. oversaturated: more is asked in the open loop than
    is served; None: not known, and in the closed loop. refused: by an engine whose queue was full.
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
    tokens_per_chunk: float | None = None
    oversaturated: bool | None = None
    refused: int = 0
    refused_per_s: float | None = None

    @property
    def chunks_per_s(self) -> float | None:
        """Pieces of answers a second, which are what the client has to deal with; with speculation
        one holds several tokens."""
        return _chunks(self.itl, self.ttft, self.window_s)


class LoadResult(Struct, frozen=True):
    """A whole run. duration_s: first intended send to the last token.

    late: sends that left more than 10 ms after their moment. not_sent: requests that were due and
    never left, timed_out: that took too long; both are among the failed or cut. counted: requests
    whose tokens are chunks, because the server sent no usage that can be believed. service_ttft,
    service_e2e: counted from the moment of sending. cached_tokens: None when no request reported
    it. unfinished:
    conversations that went well and ended before their last turn, as the load did.

    requests_per_s: in the open loop while requests were sent, over rate_window_s; None: over
    duration_s. concurrency: the mean number in flight from the first sending
    until the last request was over. tokens_per_chunk: of the
    answers with usage; above ``SEVERAL`` ITL is the gap between chunks. remarks: answers by what
    was odd about them. prompts: different ones in the dataset; None: they were made, each another.
    begun: requests that were not a later turn. oversaturated: as in a snapshot, for long enough;
    oversaturated_s: from when on, seconds after the start. held_to: requests that could be in
    flight at most, where that was less than asked for. refused: requests that the engine answered
    at once with 503 or 429 because its queue was full; each is a miss for every SLO.
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
    rate_window_s: float | None = None
    concurrency: float | None = None
    tokens_per_chunk: float | None = None
    remarks: Mapping[Remark, int] = field(default_factory=dict)
    prompts: int | None = None
    begun: int = 0
    oversaturated: bool | None = None
    oversaturated_s: float | None = None
    held_to: int | None = None
    refused: int = 0

    @property
    def chunks_per_s(self) -> float | None:
        """The same over the whole run."""
        return _chunks(self.itl, self.ttft, self.duration_s)


def _chunks(itl: LatencySummary, ttft: LatencySummary, seconds: float) -> float | None:
    return (itl.n + ttft.n) / seconds if seconds else None


def tokens_per_chunk(records: Iterable[RequestRecord]) -> float | None:
    """Tokens by usage over pieces of text, of the answers that ended well; None without any."""
    counted = [r for r in records if r.fate is Fate.OK and not r.counted and r.chunks]
    chunks = sum(record.chunks for record in counted)
    return sum(record.tokens for record in counted) / chunks if chunks else None

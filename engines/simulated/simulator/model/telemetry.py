"""The engine's own measurements, which /metrics and the live socket report."""

from __future__ import annotations

from msgspec import Struct, field

from llmtop.engines.simulated.simulator.model.exposition import Histogram
from llmtop.engines.simulated.simulator.model.request import Request
from llmtop.engines.tuning.inside.llmtop_live.latency_histogram import LatencyHistograms

# Bucket bounds of vLLM (the same in 0.20 to 0.32).
_LENGTHS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)
_STEP_TOKENS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
_TTFT = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560),
)
_TOKEN_GAP = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1, 2.5, 5, 7.5, 10, 20, 40, 80),
)
_REQUEST_TIME = (
    *(0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60),
    *(120, 240, 480, 960, 1920, 7680),
)
_PREEMPTIONS = (1, 2, 3, 4, 5, 10, 20)

EXACT = ("ttft", "queue", "prefill", "tpot", "e2e", "itl", "arrival_lag")
_SERVER = "arrival at the server"


class Track(Struct):
    """The times of one request, monotonic seconds; None: not yet.

    arrived: at the server. queued: at the scheduler. scheduled: in its first step. first, last: its
    first and its last token.
    """

    request: Request
    arrived: float
    max_tokens: int
    queued: float | None = None
    scheduled: float | None = None
    first: float | None = None
    last: float = 0.0


class Telemetry(Struct):
    """Counters and histograms since the start, with the definitions of vLLM's metrics.

    exact: the latencies in the fine buckets of the live socket. now in the methods: monotonic
    seconds.
    """

    prompt_tokens: int = 0
    prompt_tokens_cached: int = 0
    generation_tokens: int = 0
    finished: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("stop", "length", "abort", "error", "repetition"), 0)
    )
    time_to_first_token: Histogram = field(default_factory=lambda: Histogram(_TTFT))
    inter_token_latency: Histogram = field(default_factory=lambda: Histogram(_TOKEN_GAP))
    time_per_output_token: Histogram = field(default_factory=lambda: Histogram(_TOKEN_GAP))
    e2e_latency: Histogram = field(default_factory=lambda: Histogram(_REQUEST_TIME))
    queue_time: Histogram = field(default_factory=lambda: Histogram(_REQUEST_TIME))
    inference_time: Histogram = field(default_factory=lambda: Histogram(_REQUEST_TIME))
    prefill_time: Histogram = field(default_factory=lambda: Histogram(_REQUEST_TIME))
    decode_time: Histogram = field(default_factory=lambda: Histogram(_REQUEST_TIME))
    prompt_lengths: Histogram = field(default_factory=lambda: Histogram(_LENGTHS))
    generation_lengths: Histogram = field(default_factory=lambda: Histogram(_LENGTHS))
    max_tokens: Histogram = field(default_factory=lambda: Histogram(_LENGTHS))
    prefill_computed: Histogram = field(default_factory=lambda: Histogram(_LENGTHS))
    samples_asked: Histogram = field(default_factory=lambda: Histogram((1, 2, 5, 10, 20)))
    preemptions: Histogram = field(default_factory=lambda: Histogram(_PREEMPTIONS))
    step_tokens: Histogram = field(default_factory=lambda: Histogram(_STEP_TOKENS))
    exact: LatencyHistograms = field(
        default_factory=lambda: LatencyHistograms(
            EXACT, {"ttft": _SERVER, "queue": _SERVER, "e2e": _SERVER}
        )
    )

    def arrived(self, track: Track, now: float) -> None:
        """A request reached the scheduler."""
        track.queued = now
        self.exact["arrival_lag"].add(now - track.arrived)

    def admitted(self, track: Track, now: float) -> None:
        """A request left the queue. Only the first time counts."""
        if track.scheduled is None:
            track.scheduled = now
            self.exact["queue"].add(now - track.arrived)

    def emitted(self, track: Track, tokens: int, now: float) -> None:
        """A step produced tokens of a request.

        The inter-token latency is counted once per step, as in vLLM, even if speculation produced
        several tokens.
        """
        self.generation_tokens += tokens
        if track.first is None:
            track.first = now
            self.time_to_first_token.observe(now - track.arrived)
            self.exact["ttft"].add(now - track.arrived)
            if track.scheduled is not None:
                self.exact["prefill"].add(now - track.scheduled)
            self.prompt_tokens += len(track.request.prompt)
            self.prompt_tokens_cached += track.request.hits or 0
        else:
            self.inter_token_latency.observe(now - track.last)
            self.exact["itl"].add(now - track.last)
        track.last = now

    def ended(self, track: Track, reason: str) -> None:
        """A request has ended. Aborted requests are not in the histograms."""
        self.finished[reason] += 1
        if reason == "abort" or track.first is None or track.scheduled is None:
            return
        request = track.request
        decode = track.last - track.first
        self.e2e_latency.observe(track.last - track.arrived)
        self.exact["e2e"].add(track.last - track.arrived)
        self.queue_time.observe(track.scheduled - track.arrived)
        self.inference_time.observe(track.last - track.scheduled)
        self.prefill_time.observe(track.first - track.scheduled)
        self.decode_time.observe(decode)
        if request.generated > 1:
            per_token = decode / (request.generated - 1)
            self.time_per_output_token.observe(per_token)
            self.exact["tpot"].add(per_token)
        self.prompt_lengths.observe(len(request.prompt))
        self.generation_lengths.observe(request.generated)
        self.max_tokens.observe(track.max_tokens)
        self.prefill_computed.observe(len(request.prompt) - (request.hits or 0))
        self.samples_asked.observe(1)
        self.preemptions.observe(request.preemptions)

"""A closed loop over the bare scheduler in virtual time: what the calibration is computed with.

The same load as a recorded run (streams per step, lengths, how long), no sockets and no waiting.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Sequence

from msgspec import Struct, field

from llmtop.engines.simulated.simulator.model.request import Request
from llmtop.engines.simulated.simulator.model.roofline import FRONT_END_REQUEST_S, Roofline
from llmtop.engines.simulated.simulator.model.scheduler import Plan, Scheduler
from llmtop.engines.simulated.simulator.model.speculation import affinity
from llmtop.engines.simulated.simulator.model.tokens import GeneratedText, Token

FIRST_TOKEN, TOKENS = 1000, 99_000  # of prompts
TOKEN_BITS = TOKENS.bit_length()


class Lengths(Struct, frozen=True):
    """Tokens of prompts and answers, uniform between the bounds; temperatures, drawn evenly."""

    prompt: tuple[int, int] = (448, 576)
    output: tuple[int, int] = (112, 144)
    temperatures: tuple[float, ...] = (1.0,)


class Stream(Struct):
    """One request as its client saw it, virtual seconds. moments: when each of its tokens came."""

    sent: float
    moments: list[float] = field(default_factory=list)


class StepResult(Struct, frozen=True):
    """What a level of concurrency gave. Milliseconds; medians; n is how many requests it is on."""

    concurrency: int
    output_tokens_per_s: float
    ttft_ms: float
    itl_ms: float
    itl_p99_ms: float
    tpot_ms: float
    n: int


class ClosedLoop:
    """Clients that send a new request as soon as their last one is done."""

    def __init__(
        self, scheduler: Scheduler, roofline: Roofline, lengths: Lengths, rng: random.Random
    ) -> None:
        self.scheduler = scheduler
        self.roofline = roofline
        self.lengths = lengths
        self.now = 0.0
        self.streams: list[Stream] = []
        self._rng = rng
        self._serial = 0
        self._open: dict[int, Stream] = {}
        self._arrivals: list[tuple[float, int, Request]] = []

    def hold(self, concurrency: int, seconds: float) -> None:
        """Keep that many streams in flight for so long."""
        until = self.now + seconds
        while self.now < until:
            while len(self._open) < concurrency:
                self._send()
            while self._arrivals and self._arrivals[0][0] <= self.now:
                self.scheduler.add(heapq.heappop(self._arrivals)[2])
            plan = self.scheduler.schedule()
            if plan is None:
                self.now = self._arrivals[0][0]
                continue
            self._run(plan)

    def measure(self, concurrency: int, begin: float, end: float) -> StepResult:
        """What was seen between two moments: tokens and gaps by when they came, TTFT and TPOT of
        the requests that were sent in it."""
        tokens = 0
        gaps: list[float] = []
        ttft: list[float] = []
        tpot: list[float] = []
        for stream in self.streams:
            moments = stream.moments
            tokens += sum(1 for moment in moments if begin <= moment < end)
            gaps += [b - a for a, b in itertools.pairwise(moments) if begin <= b < end]
            if begin <= stream.sent < end and moments:
                ttft.append(moments[0] - stream.sent)
                if len(moments) > 1:
                    tpot.append((moments[-1] - moments[0]) / (len(moments) - 1))
        return StepResult(
            concurrency,
            tokens / (end - begin),
            1e3 * quantile(ttft, 0.5),
            1e3 * quantile(gaps, 0.5),
            1e3 * quantile(gaps, 0.99),
            1e3 * quantile(tpot, 0.5),
            len(ttft),
        )

    def _send(self) -> None:
        self._serial += 1
        prompt = self._tokens(self._rng.randint(*self.lengths.prompt))
        request = Request(
            self._serial,
            prompt,
            self._rng.randint(*self.lengths.output),
            GeneratedText(self._rng.randrange(1 << 16)),
            affinity=affinity(prompt, self._rng.choice(self.lengths.temperatures)),
        )
        stream = Stream(self.now)
        self.streams.append(stream)
        self._open[self._serial] = stream
        heapq.heappush(self._arrivals, (self.now + FRONT_END_REQUEST_S, self._serial, request))

    def _tokens(self, count: int) -> list[Token]:
        """Tokens from 1000 to 99,999, each as likely. Faster than ``randrange``, same numbers."""
        draw = self._rng.getrandbits
        tokens: list[Token] = []
        while len(tokens) < count:
            drawn = draw(TOKEN_BITS)
            if drawn < TOKENS:
                tokens.append(FIRST_TOKEN + drawn)
        return tokens

    def _run(self, plan: Plan) -> None:
        self.now += self.roofline.seconds(plan.load)
        for emission in self.scheduler.complete(plan):
            request = emission.request
            self._open[request.serial].moments += [self.now] * emission.tokens
            if request.generated >= request.target:
                del self._open[request.serial]


def run(loop: ClosedLoop, steps: Sequence[tuple[int, float]], warm_up_s: float) -> list[StepResult]:
    """Hold each (concurrency, seconds) in turn; the first seconds of each are left out."""
    bounds: list[tuple[int, float, float]] = []
    begin = 0.0
    for concurrency, seconds in steps:
        loop.hold(concurrency, begin + seconds - loop.now)
        bounds.append((concurrency, begin + warm_up_s, begin + seconds))
        begin += seconds
    return [loop.measure(*bound) for bound in bounds]


def quantile(values: Sequence[float], share: float) -> float:
    """The nearest-rank quantile; nan of nothing."""
    if not values:
        return float("nan")
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]

"""Simulates an engine in virtual time: scheduler, step times, and the HTTP front end."""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable

from msgspec import Struct

from llmtop.forecast.load import FrontEnd, Load, Present, PresentRequest, Settings
from llmtop.forecast.scheduler import Plan, VirtualRequest, VirtualScheduler
from llmtop.forecast.step_model import StepModel

RETRY_S = 0.5
"""Seconds after which a refused stream of a closed loop sends again, as in llmtop's load."""
MOST_DRAIN = 4.0  # times the horizon, to finish the requests in flight at its end
LAUNCHES_PER_DRAW = 20  # mean length of a sequence of correlated launches (vLLM 0.26, H200)


class Noise(Struct, frozen=True):
    """Measured over modelled times of steps, from which factors are drawn.

    holds: of launches, in order of time. They are correlated, so sequences of them are drawn.
    """

    decode: tuple[float, ...] = (1.0,)
    prefill: tuple[float, ...] = (1.0,)
    holds: tuple[float, ...] = (1.0,)


class Engine(Struct, frozen=True):
    """The simulated engine. emitted: output tokens per request and step.

    drafted: draft tokens per request and step. lag: a request that arrives during a step misses the
    next one, which is already planned.
    """

    model: StepModel
    front_end: FrontEnd
    noise: Noise
    emitted: float = 1.0
    lag: bool = True
    drafted: float = 0.0


class Run(Struct, frozen=True):
    """The result of a run. Times are virtual seconds; ``begin`` to ``horizon`` is measured.

    gaps: (seconds between two tokens of a stream, number of such gaps). tokens: output tokens.
    closed: a closed loop. waiting: queue length at the horizon. peak_*: largest values of a step.
    """

    requests: list[VirtualRequest]
    gaps: list[tuple[float, int]]
    tokens: float
    begin: float
    horizon: float
    closed: bool
    waiting: int
    peak_requests: int
    peak_tokens: int
    peak_context: int
    preempted: int
    steps: int


class Twin:
    """One run; see ``simulate``. The settings of its scheduler may be replaced during the run."""

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        present: Present,
        load: Load,
        seed: int,
        noise: int | None = None,
    ) -> None:
        self._engine, self.load = engine, load
        self.level = load.level  # of an open loop; may be changed during the run
        # A generator of its own for arrivals and lengths: they must not depend on step times, so
        # that settings are compared under equal arrivals.
        self._demand = random.Random(seed)
        self._noise = random.Random(seed + 1 if noise is None else noise)
        late = engine.model.overlapped
        self.scheduler = VirtualScheduler(
            settings, engine.emitted, late_slots=late, drafted=engine.drafted
        )
        self._sends: list[tuple[float, int, VirtualRequest]] = []
        self._arrivals: deque[tuple[float, VirtualRequest]] = deque()
        self.requests: list[VirtualRequest] = []
        self._busy = 0.0
        self.now = self._end = self._admit_until = 0.0
        self._before: Plan | None = None
        self._token_at = 0.0
        self._hold_place = len(engine.noise.holds)
        self.on_step: Callable[[float, Plan], None] | None = None
        self.gaps: list[tuple[float, int]] = []
        self.tokens = 0.0
        self.refused = self.steps = 0
        self.measure_from, self.measure_until = 0.0, math.inf
        self.stop_sending = math.inf
        self._next_arrival = math.inf
        if load.loop == "open" and load.level > 0:
            self._next_arrival = self._demand.expovariate(load.level)
        self._add_present(present)

    def _add_present(self, present: Present) -> None:
        running = [(self._virtual(-one.waited_s, one), one) for one in present.running]
        self.scheduler.begin(running)
        for one in present.waiting:
            self.scheduler.waiting.append(self._virtual(-one.waited_s, one))
        if self.load.loop == "closed":
            missing = round(self.load.level) - len(running) - len(present.waiting)
            for _ in range(max(0, missing)):
                self._send(0.0)

    def _virtual(self, arrived: float, present: PresentRequest) -> VirtualRequest:
        request = VirtualRequest(len(self.requests), arrived, present.prompt, present.target)
        self.requests.append(request)
        return request

    def _send(self, at: float) -> None:
        load = self.load
        prompt, target = load.prompt.draw(self._demand), load.output.draw(self._demand)
        request = VirtualRequest(len(self.requests), at, prompt, target)
        request.prefilled = min(prompt - 1, int(load.cached * prompt))
        self.requests.append(request)
        heapq.heappush(self._sends, (at, request.serial, request))

    def _receive(self, until: float) -> None:
        """Let the front end process the requests that were sent until a time."""
        while self._next_arrival <= min(until, self.stop_sending):
            self._send(self._next_arrival)
            self._next_arrival += self._demand.expovariate(max(self.level, 1e-9))
        sends, front_end = self._sends, self._engine.front_end
        limit = self.scheduler.settings.queue_limit
        while sends and sends[0][0] <= until:
            at, _, request = heapq.heappop(sends)
            if limit and self._queue_is_full(limit):
                request.refused = True
                self.refused += 1
                if self.load.loop == "closed" and at < self.stop_sending:
                    self._send(at + RETRY_S)
                continue
            self._busy = max(self._busy, at) + front_end.request_s
            self._arrivals.append((self._busy + front_end.latency_s, request))

    def _queue_is_full(self, limit: int) -> bool:
        """Whether the queue limit is reached. Requests for free places in the batch do not wait."""
        scheduler = self.scheduler
        free = max(0, scheduler.settings.batch_limit - scheduler.places)
        return len(scheduler.waiting) + len(self._arrivals) >= limit + free

    def _deliver(self, at: float, plan: Plan) -> None:
        """Let the front end send the tokens of a step, one after the other."""
        self._receive(at)
        if self.on_step is not None:
            self.on_step(at, plan)
        token_s = self._engine.front_end.token_s
        begin = max(self._busy, at)
        decoding = plan.decoding * self._engine.emitted
        middle = begin + 0.5 * decoding * token_s  # the mean time of its tokens
        if plan.decoding and self.measure_from <= at <= self.measure_until:
            self.gaps.append((middle - self._token_at, plan.decoding))
            self.tokens += decoding + len(plan.firsts)
        self._token_at = middle
        after = begin + decoding * token_s
        for place, request in enumerate(plan.firsts):
            if request.first < 0:
                request.first = after + (place + 1) * token_s
        for request in plan.ended:
            request.last = max(middle, request.first)
            if self.load.loop == "closed" and request.last < self.stop_sending:
                self._send(request.last)
        self._busy = after + len(plan.firsts) * token_s

    def advance(self, until: float) -> bool:
        """Simulate up to a time; False if there is nothing left to do."""
        while self.now < until:
            if not self._step():
                return False
        return True

    def _step(self) -> bool:
        self._receive(self.now)
        late = self._engine.lag and self._before is not None and not self._engine.model.overlapped
        admit = self._admit_until if late else self.now
        arrivals, scheduler = self._arrivals, self.scheduler
        while arrivals and arrivals[0][0] <= admit:
            scheduler.waiting.append(arrivals.popleft()[1])
        plan = scheduler.plan()
        if plan is None:
            return self._idle()
        self.steps += 1
        if self._engine.model.overlapped:
            self._overlapped(plan)
        else:
            self._sequential(plan)
        return True

    def _idle(self) -> bool:
        if self._before is not None and self._engine.model.overlapped:
            self.now = max(self.now, self._end)
            self._deliver(self.now, self._before)
            self._before = None
            return True
        self._before = None
        coming = [self._next_arrival] if self._next_arrival <= self.stop_sending else []
        coming += [self._sends[0][0]] if self._sends else []
        coming += [self._arrivals[0][0]] if self._arrivals else []
        if not coming:
            return False
        self.now = max(self.now + 1e-4, min(coming))
        return True

    def _overlapped(self, plan: Plan) -> None:
        model = self._engine.model
        hold = model.hold(plan.requests, plan.tokens, plan.prefill_tokens)
        if plan.prefill_tokens:
            hold *= self._launch_factor()
        planned = self.now
        end = model.end(self._seconds(plan), self._end, planned, hold, plan.prefill_tokens)
        if self._before is not None:
            self.now = max(self._end, planned + hold)
            self._deliver(self.now, self._before)
        self._end, self._before = end, plan

    def _launch_factor(self) -> float:
        holds = self._engine.noise.holds
        self._hold_place += 1
        if self._hold_place >= len(holds) or self._noise.random() < 1.0 / LAUNCHES_PER_DRAW:
            self._hold_place = int(self._noise.random() * len(holds))
        return holds[self._hold_place]

    def _sequential(self, plan: Plan) -> None:
        self._admit_until = self.now
        self.now += self._seconds(plan)
        self._before = plan
        self._deliver(self.now, plan)

    def _seconds(self, plan: Plan) -> float:
        model, noise = self._engine.model, self._engine.noise
        factors = noise.prefill if plan.prefill_tokens else noise.decode
        seconds = model.gpu(plan.requests, plan.tokens, plan.context)
        return seconds * factors[int(self._noise.random() * len(factors))]


def simulate(
    engine: Engine,
    settings: Settings,
    load: Load,
    present: Present,
    seed: int,
    *,
    horizon: float = 20.0,
    warm: float = 0.25,
    noise: int | None = None,
) -> Run:
    """Simulate an engine for ``horizon`` seconds.

    warm: the first share of that time, which is not measured. seed: of arrivals and lengths. noise:
    seed of the step times; None: derived from ``seed``. In an open loop, requests in flight at the
    end still finish, and count.
    """
    twin = Twin(engine, settings, present, load, seed, noise)
    twin.measure_from, twin.measure_until = warm * horizon, horizon
    twin.stop_sending = horizon
    twin.advance(horizon)
    waiting = len(twin.scheduler.waiting)
    if load.loop == "open":
        twin.advance(MOST_DRAIN * horizon)
    scheduler = twin.scheduler
    return Run(
        requests=twin.requests,
        gaps=twin.gaps,
        tokens=twin.tokens,
        begin=twin.measure_from,
        horizon=horizon,
        closed=load.loop == "closed",
        waiting=waiting,
        peak_requests=scheduler.peak_requests,
        peak_tokens=scheduler.peak_tokens,
        peak_context=scheduler.peak_context,
        preempted=scheduler.preempted,
        steps=twin.steps,
    )

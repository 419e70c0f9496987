"""The engine: runs the scheduler in real time and delivers the results of its steps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from llmtop.engines.simulated.simulator.model.live_options import LiveOptions
from llmtop.engines.simulated.simulator.model.log import log
from llmtop.engines.simulated.simulator.model.pacing import Pacer
from llmtop.engines.simulated.simulator.model.request import Request, Stage
from llmtop.engines.simulated.simulator.model.roofline import FRONT_END_REQUEST_S, Roofline
from llmtop.engines.simulated.simulator.model.scheduler import Emission, Plan, Scheduler
from llmtop.engines.simulated.simulator.model.telemetry import Telemetry, Track

REPORT_EVERY_S = 10.0


class Sink(Protocol):
    """Receives the tokens of one request."""

    def take(self, tokens: int, finished: bool) -> None:
        """A step produced this number of tokens. finished: these were the last."""

    def abort(self) -> None:
        """An operator aborted the request; there are no more tokens."""


class StepObserver(Protocol):
    """Is called at each step. now: monotonic seconds."""

    def between_steps(self) -> None:
        """The engine is between two steps. ``Engine.wake_up`` makes an idle engine call this."""

    def resumed(self, now: float) -> None:
        """There is work again after an idle time."""

    def planned(self, plan: Plan) -> None:
        """A step begins."""

    def completed(
        self, plan: Plan, emissions: Sequence[Emission], now: float, taken: tuple[float, ...]
    ) -> None:
        """A step has ended. taken: seconds of schedule, of update, and of the host gap."""


class Slowness(NamedTuple):
    """Additional delays in seconds: host_s in each step (GPU idle), front_s in each request."""

    host_s: float = 0.0
    front_s: float = 0.0


NOT_SLOW = Slowness()


class Engine:
    """Runs steps in sequence while there is work.

    speed: virtual seconds per real second. clock: monotonic seconds. observer: None for none.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        roofline: Roofline,
        live: LiveOptions,
        telemetry: Telemetry,
        speed: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        slowness: Slowness = NOT_SLOW,
    ) -> None:
        self.scheduler = scheduler
        self.roofline = roofline
        self.live = live
        self.telemetry = telemetry
        self.speed = speed
        self.pacer = Pacer(clock, asyncio.sleep, lambda text: log(text, "WARNING"))
        self.observer: StepObserver | None = None
        self.now = clock
        self._slowness = slowness
        self._by_ident: dict[str, Request] = {}
        self._tracks: dict[int, tuple[Track, Sink]] = {}
        self._work = asyncio.Event()
        live.wake = self.wake_up
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reported = (clock(), 0, 0)
        self._arriving = 0  # requests in the front end

    @property
    def open(self) -> int:
        """The number of unfinished requests."""
        return len(self._tracks)

    @property
    def has_room(self) -> bool:
        """Whether one more request is admitted, by the same rule as in llmtop's gate for vLLM.

        Requests in the front end count as waiting. Free slots of the batch add to the limit.
        """
        limits, scheduler = self.scheduler.limits, self.scheduler
        most = limits.max_queued_requests
        room = max(0, limits.max_num_seqs - len(scheduler.running))
        return not most or scheduler.queued + self._arriving < most + room

    def submit(self, request: Request, max_tokens: int, sink: Sink) -> None:
        """Accept a request. The scheduler receives it after the front end's delay."""
        self._arriving += 1
        track = Track(request, self.now(), max_tokens)
        self._tracks[request.serial] = (track, sink)
        self._by_ident[request.ident] = request
        loop = asyncio.get_running_loop()
        front_s = FRONT_END_REQUEST_S / self.speed + self._slowness.front_s
        loop.call_later(front_s, self._arrive, request)

    def cancel(self, request: Request) -> None:
        """Remove a request and free its blocks. Does nothing for a finished request."""
        entry = self._forget(request)
        if entry is None:
            return
        if request.stage is Stage.ARRIVING:  # ``_arrive`` decreases the count later
            request.stage = Stage.FINISHED
        else:
            self.scheduler.abort(request)
        self.telemetry.ended(entry[0], "abort")

    def abort(self, request: Request) -> None:
        """Remove a request between two steps, and report this to its sink."""
        entry = self._tracks.get(request.serial)
        self.cancel(request)
        if entry is not None:
            entry[1].abort()

    def find(self, ident: str) -> Request | None:
        """The unfinished request with this client id, else None."""
        return self._by_ident.get(ident)

    def track(self, request: Request) -> Track:
        """The times of an unfinished request."""
        return self._tracks[request.serial][0]

    def wake_up(self) -> None:
        """Make an idle engine reach its step boundary. Thread-safe."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._work.set)

    async def run(self) -> None:
        """Run steps until cancelled."""
        self._loop = asyncio.get_running_loop()
        self.pacer.restart()
        idle = True
        while True:
            self._work.clear()
            self.live.apply()
            if self.observer is not None:
                self.observer.between_steps()
            begun = time.perf_counter()
            plan = self.scheduler.schedule()
            if plan is None:
                idle = True
                await self._work.wait()
                continue
            schedule_s = time.perf_counter() - begun
            if idle:
                self.pacer.restart()
                if self.observer is not None:
                    self.observer.resumed(self.now())
            idle = False
            await self._step(plan, schedule_s)

    def report(self, rank: int = 0) -> None:
        """Log a line like vLLM's about the last interval, if there was activity."""
        now, telemetry = self.now(), self.telemetry
        then, prompt, generated = self._reported
        seconds = max(now - then, 1e-9)
        self._reported = (now, telemetry.prompt_tokens, telemetry.generation_tokens)
        if not (self._tracks or telemetry.generation_tokens > generated):
            return
        pool = self.scheduler.pool
        totals = self.scheduler.totals
        hits = 100 * totals.prefix_hits / max(1, totals.prefix_queries)
        log(
            f"Engine {rank:03}: "
            f"Avg prompt throughput: {(telemetry.prompt_tokens - prompt) / seconds:.1f} tokens/s, "
            f"Avg generation throughput: "
            f"{(telemetry.generation_tokens - generated) / seconds:.1f} tokens/s, "
            f"Running: {len(self.scheduler.running)} reqs, "
            f"Waiting: {self.scheduler.queued} reqs, "
            f"GPU KV cache usage: {100 * pool.used / pool.total:.1f}%, "
            f"Prefix cache hit rate: {hits:.1f}% (simulated)"
        )

    def _arrive(self, request: Request) -> None:
        self._arriving -= 1
        entry = self._tracks.get(request.serial)
        if request.stage is Stage.ARRIVING and entry is not None:
            self.telemetry.arrived(entry[0], self.now())
            self.scheduler.add(request)
            self._work.set()

    def _forget(self, request: Request) -> tuple[Track, Sink] | None:
        if self._by_ident.get(request.ident) is request:  # clients can use an id twice
            del self._by_ident[request.ident]
        return self._tracks.pop(request.serial, None)

    async def _step(self, plan: Plan, schedule_s: float) -> None:
        tracks, host_s = self._tracks, self._slowness.host_s
        now = self.now()
        for request in plan.admitted:
            self.telemetry.admitted(tracks[request.serial][0], now)
        if self.observer is not None:
            self.observer.planned(plan)
        await self.pacer.step(self.roofline.seconds(plan.load) / self.speed + host_s)
        now = self.now()
        telemetry = self.telemetry
        telemetry.step_tokens.observe(plan.load.tokens)
        begun = time.perf_counter()
        emissions = self.scheduler.complete(plan)
        taken = (schedule_s, time.perf_counter() - begun, host_s)
        if self.observer is not None:
            self.observer.completed(plan, emissions, now, taken)
        for request, tokens, _, _ in emissions:
            entry = tracks.get(request.serial)
            if entry is None:
                continue
            track, sink = entry
            telemetry.emitted(track, tokens, now)
            finished = request.stage is Stage.FINISHED
            if finished:
                self._forget(request)
                telemetry.ended(track, request.reason)
            sink.take(tokens, finished)

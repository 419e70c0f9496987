"""The engine: the scheduler in real time, and what comes out of its steps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from llmtop.engines.simulator.live_options import LiveOptions
from llmtop.engines.simulator.log import log
from llmtop.engines.simulator.pacing import Pacer
from llmtop.engines.simulator.request import Request, Stage
from llmtop.engines.simulator.roofline import FRONT_END_REQUEST_S, Roofline
from llmtop.engines.simulator.scheduler import Plan, Scheduler
from llmtop.engines.simulator.telemetry import Telemetry, Track

REPORT_EVERY_S = 10.0


class Sink(Protocol):
    """Where a request's tokens go."""

    def take(self, tokens: int, finished: bool) -> None:
        """So many more tokens, at the end of a step; finished: these were the last."""


class Engine:
    """Runs steps one after the other for as long as there is work.

    speed: virtual seconds in a second. clock: monotonic seconds.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        roofline: Roofline,
        live: LiveOptions,
        telemetry: Telemetry,
        speed: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.scheduler = scheduler
        self.roofline = roofline
        self.live = live
        self.telemetry = telemetry
        self.speed = speed
        self.pacer = Pacer(clock, asyncio.sleep, lambda text: log(text, "WARNING"))
        self._clock = clock
        self._tracks: dict[int, tuple[Track, Sink]] = {}
        self._work = asyncio.Event()
        live.wake = self._work.set
        self._reported = (clock(), 0, 0)

    def submit(self, request: Request, max_tokens: int, sink: Sink) -> None:
        """Take a request in. The scheduler sees it after what the front end takes for it."""
        track = Track(request, self._clock(), max_tokens)
        self._tracks[request.serial] = (track, sink)
        loop = asyncio.get_running_loop()
        loop.call_later(FRONT_END_REQUEST_S / self.speed, self._arrive, request)

    def cancel(self, request: Request) -> None:
        """Drop a request and free its blocks; nothing happens when it is finished."""
        entry = self._tracks.pop(request.serial, None)
        if entry is None:
            return
        if request.stage is Stage.ARRIVING:
            request.stage = Stage.FINISHED
        else:
            self.scheduler.abort(request)
        self.telemetry.ended(entry[0], "abort")

    async def run(self) -> None:
        """Step until cancelled."""
        self.pacer.restart()
        while True:
            self.live.apply()
            plan = self.scheduler.schedule()
            if plan is None:
                self._work.clear()
                await self._work.wait()
                self.pacer.restart()
                continue
            await self._step(plan)

    def report(self) -> None:
        """A line like vLLM's about the last interval, when there was anything to tell."""
        now, telemetry = self._clock(), self.telemetry
        then, prompt, generated = self._reported
        seconds = max(now - then, 1e-9)
        self._reported = (now, telemetry.prompt_tokens, telemetry.generation_tokens)
        if not (self._tracks or telemetry.generation_tokens > generated):
            return
        pool = self.scheduler.pool
        totals = self.scheduler.totals
        hits = 100 * totals.prefix_hits / max(1, totals.prefix_queries)
        log(
            f"Engine 000: "
            f"Avg prompt throughput: {(telemetry.prompt_tokens - prompt) / seconds:.1f} tokens/s, "
            f"Avg generation throughput: "
            f"{(telemetry.generation_tokens - generated) / seconds:.1f} tokens/s, "
            f"Running: {len(self.scheduler.running)} reqs, "
            f"Waiting: {self.scheduler.queued} reqs, "
            f"GPU KV cache usage: {100 * pool.used / pool.total:.1f}%, "
            f"Prefix cache hit rate: {hits:.1f}% (simulated)"
        )

    def _arrive(self, request: Request) -> None:
        if request.stage is Stage.ARRIVING:
            self.scheduler.add(request)
            self._work.set()

    async def _step(self, plan: Plan) -> None:
        tracks = self._tracks
        now = self._clock()
        for request in plan.admitted:
            self.telemetry.admitted(tracks[request.serial][0], now)
        await self.pacer.step(self.roofline.seconds(plan.load) / self.speed)
        now = self._clock()
        telemetry = self.telemetry
        telemetry.step_tokens.observe(plan.load.tokens)
        for request, tokens, _, _ in self.scheduler.complete(plan):
            entry = tracks.get(request.serial)
            if entry is None:
                continue
            track, sink = entry
            telemetry.emitted(track, tokens, now)
            finished = request.stage is Stage.FINISHED
            if finished:
                del tracks[request.serial]
                telemetry.ended(track, request.reason)
            sink.take(tokens, finished)

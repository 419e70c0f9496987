"""Measures a candidate of ``tune`` under the traffic that is there, and gives it up when it breaks
the SLO."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from llmtop.engines.core.latencies import Latencies
from llmtop.engines.core.steps import Steps
from llmtop.operations.slo.outcomes import LatencyWatch
from llmtop.operations.slo.tune_candidates import warm_of
from llmtop.slo_control.limits import Goal
from llmtop.slo_control.pressure import SHORT_S, PressureGauge
from llmtop.slo_control.search import Measured
from llmtop.slo_control.slo_guard import SloGuard

BEAT_S = 0.4
RECENT_S = 2.0  # requests that ended so long ago say how slow it is now
LEAST_STEPS = 8  # of the slowest that keep the limit, in the window of what is seen at once
KEPT = 0.9  # of the requests in time: so many are enough to say that own settings keep the SLO


class Inside(Protocol):
    """What is read of an engine."""

    async def steps(self) -> Steps:
        """The new steps."""

    async def latencies(self) -> Latencies:
        """Cumulative latencies."""


class WatchMeter:
    """One run under real traffic, by the engine's own exact latencies.

    A candidate is given up when it breaks limits that the operator's own settings keep. Where those
    break them too, nothing is lost, and the queue that they left is no fault of the candidate.
    """

    def __init__(
        self,
        inside: Inside,
        goal: Goal,
        seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._inside, self._goal, self._seconds = inside, goal, seconds
        self._clock, self._wall, self._sleep = clock, wall, sleep
        self._own_keeps = False

    async def measure(self, *, own: bool) -> Measured | None:
        """One run; None: the candidate was given up. See ``tuner.Meter``."""
        goal = self._goal
        recent, counted = LatencyWatch(goal, RECENT_S), LatencyWatch(goal)
        guard = SloGuard(goal)
        gauge = PressureGauge(max(SHORT_S, LEAST_STEPS * (goal.tpot_s or 0.0)))
        began = self._clock()
        since = began + warm_of(self._seconds)
        refused, broke = 0, False
        await self._inside.steps()
        while (now := self._clock()) - began < self._seconds:
            latencies = await self._inside.latencies()
            steps = (await self._inside.steps()).steps
            recent.add(latencies)
            gauge.add(steps)
            if now >= since:
                counted.add(latencies)
                refused += sum(step.refused or 0 for step in steps)
            seen = gauge.read(self._wall(), recent.ttft_p95())
            broken = guard.broken(now, seen, recent.slow_share())
            if broken and not own and self._own_keeps:
                return None
            broke = broke or broken
            await self._sleep(BEAT_S)
        found = counted.outcomes()
        good = max(0, found.ended - found.late)
        asked = found.accepted + refused
        share = min(1.0, good / asked) if asked else 1.0
        if own:
            self._own_keeps = share >= KEPT and not broke
        return Measured(good / max(self._clock() - since, BEAT_S), share, asked)

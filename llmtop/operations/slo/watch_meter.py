"""Measures a candidate of ``tune`` under the real traffic, and drops it when it breaks the SLO."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from msgspec import Struct

from llmtop.engines.core.latencies import Latencies
from llmtop.engines.core.steps import Steps
from llmtop.operations.slo.outcomes import LatencyWatch
from llmtop.operations.slo.tune_candidates import warm_of
from llmtop.slo_control.limits import Goal
from llmtop.slo_control.pressure import SHORT_S, Pressure, PressureGauge
from llmtop.slo_control.search import Measured
from llmtop.slo_control.slo_guard import SloGuard

BEAT_S = 0.4
RECENT_S = 2.0  # requests that ended so long ago say how slow it is now
LEAST_STEPS = 8  # of the slowest that keep the limit, in the window of what is seen at once
MAY_MISS = 0.1  # of the requests: own settings keep a limit that no more of them break
MOST_RECOVERY_S = 30.0


class Inside(Protocol):
    """What is read of an engine."""

    async def steps(self) -> Steps:
        """The new steps."""

    async def latencies(self) -> Latencies:
        """Cumulative latencies."""


class WatchMeter:
    """One run under real traffic, by the engine's own exact latencies.

    A candidate is given up when it breaks a limit that the operator's own settings keep. Where
    those break it too, the queue that they left is no fault of the candidate.
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
        self._kept = Goal(None, None)  # the limits that own settings keep

    async def measure(self, *, own: bool) -> Measured | None:
        """One run; None: the candidate was given up. See ``tuner.Meter``."""
        goal = self._goal
        eyes, counted = Eyes(self._inside, goal, self._wall), LatencyWatch(goal)
        guard = SloGuard(self._kept)
        alone = [SloGuard(Goal(goal.ttft_s, None)), SloGuard(Goal(None, goal.tpot_s))]
        broke = [False, False]
        began = self._clock()
        since = began + warm_of(self._seconds)
        refused = 0
        await eyes.open()
        while (now := self._clock()) - began < self._seconds:
            seen = await eyes.read()
            if now >= since:
                counted.add(seen.latencies)
                refused += seen.refused
            if not own and guard.broken(now, seen.ranks, seen.slow_share):
                return None
            for place, one in enumerate(alone):
                broke[place] |= one.broken(now, seen.ranks, seen.slow_share)
            await self._sleep(BEAT_S)
        found = counted.outcomes()
        good = max(0, found.ended - found.late)
        asked = found.accepted + refused
        share = min(1.0, good / asked) if asked else 1.0
        if own:
            ttft = not broke[0] and found.late_ttft <= MAY_MISS * max(1, found.accepted)
            tpot = not broke[1] and found.late_tpot <= MAY_MISS * max(1, found.ended)
            self._kept = Goal(goal.ttft_s if ttft else None, goal.tpot_s if tpot else None)
        return Measured(good / max(self._clock() - since, BEAT_S), share, asked)

    async def recover(self) -> None:
        """Wait until own settings, which are in force, keep again what they kept."""
        eyes, guard = Eyes(self._inside, self._goal, self._wall), SloGuard(self._kept)
        began = quiet = self._clock()
        await eyes.open()
        while (now := self._clock()) - quiet < RECENT_S and now - began < MOST_RECOVERY_S:
            await self._sleep(BEAT_S)
            seen = await eyes.read()
            if guard.breaks(seen.ranks, seen.slow_share):
                quiet = self._clock()


class Seen(Struct, frozen=True):
    """One look. refused: since the look before. slow_share: see ``SloGuard``."""

    latencies: Latencies
    ranks: list[Pressure]
    slow_share: float | None
    refused: int


class Eyes:
    """Looks at an engine; what came before ``open`` does not count."""

    def __init__(self, inside: Inside, goal: Goal, wall: Callable[[], float]) -> None:
        self._inside, self._wall = inside, wall
        self._recent = LatencyWatch(goal, RECENT_S)
        self._gauge = PressureGauge(max(SHORT_S, LEAST_STEPS * (goal.tpot_s or 0.0)))

    async def open(self) -> None:
        """Forget the steps so far."""
        await self._inside.steps()

    async def read(self) -> Seen:
        """What is there now."""
        latencies = await self._inside.latencies()
        steps = (await self._inside.steps()).steps
        self._recent.add(latencies)
        self._gauge.add(steps)
        ranks = self._gauge.read(self._wall(), self._recent.ttft_p95())
        refused = sum(step.refused or 0 for step in steps)
        return Seen(latencies, ranks, self._recent.slow_share(), refused)

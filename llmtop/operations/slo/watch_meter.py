"""Measures a candidate of ``tune`` under real traffic, and stops it when it breaks the SLO."""

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
RECENT_S = 2.0  # window of requests that show how slow the engine is now
LEAST_STEPS = 8  # the gauge's window has room for this many steps at the TPOT limit
MAY_MISS = 0.1  # share of requests above a limit up to which own settings count as keeping it
MOST_RECOVERY_S = 30.0


class Inside(Protocol):
    """The part of ``introspection.EngineInside`` that is used here."""

    async def steps(self) -> Steps:
        """The steps since the last call."""

    async def latencies(self) -> Latencies:
        """Cumulative latencies."""


class WatchMeter:
    """Measures runs under real traffic, by the engine's own exact latencies.

    A candidate is stopped when it breaks a limit that the operator's own settings keep. If those
    break the limit too, their queue would make any candidate break it. seconds: length of a run.
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
        """Run once; None if the candidate was stopped. See ``tuner.Meter``."""
        goal = self._goal
        reader, counted = EngineReader(self._inside, goal, self._wall), LatencyWatch(goal)
        guard = SloGuard(self._kept)
        guards = [SloGuard(Goal(goal.ttft_s, None)), SloGuard(Goal(None, goal.tpot_s))]
        broke = [False, False]
        began = self._clock()
        since = began + warm_of(self._seconds)
        refused = 0
        await reader.open()
        while (now := self._clock()) - began < self._seconds:
            seen = await reader.read()
            if now >= since:
                counted.add(seen.latencies)
                refused += seen.refused
            if not own and guard.broken(now, seen.ranks, seen.slow_share):
                return None
            for index, one in enumerate(guards):
                broke[index] |= one.broken(now, seen.ranks, seen.slow_share)
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
        """Wait until the own settings, which are in force, keep their limits again.

        It waits at most MOST_RECOVERY_S.
        """
        reader, guard = EngineReader(self._inside, self._goal, self._wall), SloGuard(self._kept)
        began = quiet = self._clock()
        await reader.open()
        while (now := self._clock()) - quiet < RECENT_S and now - began < MOST_RECOVERY_S:
            await self._sleep(BEAT_S)
            seen = await reader.read()
            if guard.breaks(seen.ranks, seen.slow_share):
                quiet = self._clock()


class Reading(Struct, frozen=True):
    """One reading. refused: requests since the last reading. slow_share: see ``SloGuard``."""

    latencies: Latencies
    ranks: list[Pressure]
    slow_share: float | None
    refused: int


class EngineReader:
    """Reads the pressure and the latencies of an engine since ``open``."""

    def __init__(self, inside: Inside, goal: Goal, wall: Callable[[], float]) -> None:
        self._inside, self._wall = inside, wall
        self._recent = LatencyWatch(goal, RECENT_S)
        self._gauge = PressureGauge(max(SHORT_S, LEAST_STEPS * (goal.tpot_s or 0.0)))

    async def open(self) -> None:
        """Skip the steps so far."""
        await self._inside.steps()

    async def read(self) -> Reading:
        """Read the current state."""
        latencies = await self._inside.latencies()
        steps = (await self._inside.steps()).steps
        self._recent.add(latencies)
        self._gauge.add(steps)
        ranks = self._gauge.read(self._wall(), self._recent.ttft_p95())
        refused = sum(step.refused or 0 for step in steps)
        return Reading(latencies, ranks, self._recent.slow_share(), refused)

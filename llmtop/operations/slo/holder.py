"""Holds one engine: reads its load, applies the controller's limits, and restores the operator's
values in every case."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Protocol

from msgspec import Struct, field
from msgspec.structs import asdict

from llmtop import LlmtopError
from llmtop.engines.core.latencies import Latencies
from llmtop.engines.core.steps import Steps
from llmtop.engines.tuning.rank_merge import rank_words
from llmtop.operations.slo.holders import Action
from llmtop.operations.slo.limits import Names
from llmtop.operations.slo.outcomes import LatencyWatch, Outcomes
from llmtop.operations.slo.rank_limits import Changer, RankLimits
from llmtop.slo_control.controller import Controller, Decision
from llmtop.slo_control.limits import Goal, LimitValues, Range
from llmtop.slo_control.pressure import PressureGauge

BEAT_S = 0.4
SILENT_S = 3.0  # without an answer: the operator's values return as soon as there is one
CLOCK_S = 2.0  # by which the wall clock may move beside the monotonic one between two beats
LOOK_EVERY = 5  # beats between two checks for changes by others
CANNOT_S = 5.0
RESTORE_TRIES, RESTORE_S = 10, 10.0
RECOVERED, RESTARTED = "the engine answers again", "the engine was restarted"


class Inside(Protocol):
    """The part of ``introspection.EngineInside`` that is asked here."""

    async def steps(self, newest: int = ...) -> Steps:
        """The steps since the call before."""

    async def latencies(self) -> Latencies:
        """Cumulative latencies."""


class HoldReport(Struct, frozen=True):
    """What a hold did. refused: at the queue limit. restored: every option is the operator's
    again. ended: why it ended, "" when its time was over or it was asked to. own: the operator's
    values by name."""

    seconds: float
    outcomes: Outcomes
    refused: int
    actions: tuple[Action, ...]
    restored: bool
    ended: str = ""
    not_restored: Mapping[str, int] = field(default_factory=dict)
    own: Mapping[str, int] = field(default_factory=dict)

    @property
    def goodput_per_s(self) -> float | None:
        """Requests that ended in time, a second, at least."""
        if self.seconds <= 0:
            return None
        return max(0, self.outcomes.ended - self.outcomes.late) / self.seconds


class Ended(Exception):
    """The hold ends; its text says why."""


class Holder:
    """One hold. own: the operator's values by name. on_action: called with each action.
    on_beat: after each beat, with the limits in force and how it stands."""

    def __init__(
        self,
        inside: Inside,
        changer: Changer,
        names: Names,
        goal: Goal,
        own: LimitValues,
        allowed: Range,
        *,
        on_action: Callable[[Action], None] = lambda action: None,
        on_beat: Callable[[Mapping[str, int], bool, str, int], None] = lambda *told: None,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        beat_s: float = BEAT_S,
    ) -> None:
        self._inside, self._names = inside, names
        self._own = own
        self._limits = RankLimits(changer, self._named(own), self._changed, self._note)
        self._controller = Controller(goal, own, allowed)
        self._gauge, self._watch = PressureGauge(goal.time_scale_s), LatencyWatch(goal)
        self._on_action, self._on_beat = on_action, on_beat
        self._wall, self._clock, self._beat_s = wall, clock, beat_s
        self._actions: list[Action] = []
        self._refused = 0
        self._ranks = 0
        self._answered = clock()
        self._silent = False
        self._unheard = False  # on the beat before
        self._failing = False
        self._beats = 0
        self._primed = False
        self._drift: float | None = None
        self._owed = ""  # why the operator's values must return, until they are asked for

    def _named(self, held: LimitValues) -> dict[str, int]:
        return self._names.of(asdict(held))

    async def run(self, stop: asyncio.Event, seconds: float | None = None) -> HoldReport:
        """Hold until ``stop`` is set or the time is over. The operator's values are restored
        however it ends, a cancellation included."""
        began = self._clock()
        ended = ""
        try:
            while not stop.is_set() and (seconds is None or self._clock() - began < seconds):
                await self._beat()
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), self._beat_s)
        except Ended as reason:
            ended = str(reason)
        finally:
            restoring = asyncio.create_task(self._restore_all("the hold ends"))
            try:
                await asyncio.shield(restoring)
            except asyncio.CancelledError:
                await restoring
                raise
        return self.report(self._clock() - began, ended)

    def report(self, seconds: float, ended: str = "") -> HoldReport:
        """What it did so far."""
        left = self._limits.left
        return HoldReport(
            seconds,
            self._watch.outcomes(),
            self._refused,
            tuple(self._actions),
            not left,
            ended,
            left,
            dict(self._limits.own),
        )

    async def _beat(self) -> None:
        self._beats += 1
        try:
            found = await self._inside.steps()
            with suppress(LlmtopError):
                self._watch.add(await self._inside.latencies())
        except LlmtopError as error:
            self._unanswered(error)
            return
        self._answered = self._clock()
        silent, self._silent = self._silent, False
        disturbance = self._disturbance(found)
        self._unheard = False
        if disturbance:
            await self._give_up(disturbance)
            return
        if silent or self._owed:
            self._forget()
            await self._restore(self._owed or RECOVERED)  # the cause is an event already
            return
        if self._primed:  # the first answer holds steps of before
            self._refused += sum(step.refused or 0 for step in found.steps)
        self._primed = True
        self._gauge.add(found.steps)
        if self._beats % LOOK_EVERY == 0:
            await self._read_limits()
        seen = self._gauge.read(self._wall(), self._watch.ttft_p95())
        if not seen:
            return
        decision = self._controller.decide(seen)
        if decision is not None:
            await self._carry_out(decision)
        self._say_whether_it_holds(seen[0].time)
        self._on_beat(self._limits.held, self._controller.engaged, self._words, len(self._actions))

    def _disturbance(self, found: Steps) -> str:
        """Why what was seen before says nothing of now; "" when it does."""
        drift, before = self._wall() - self._clock(), self._ranks
        moved = self._drift is not None and abs(drift - self._drift) > CLOCK_S
        self._drift, self._ranks = drift, found.ranks
        new = found.restarted_ranks
        if new and len(new) == found.ranks and (len(new) >= before or self._unheard):
            return RESTARTED
        if found.ranks < before:
            return f"a rank is gone: {found.ranks} answer"
        if found.ranks > before > 0:
            return f"a rank is back: {found.ranks} answer"
        if new:
            return f"{rank_words(new)} {'was' if len(new) == 1 else 'were'} restarted"
        return "the clock of this machine was set" if moved else ""

    def _unanswered(self, error: LlmtopError) -> None:
        self._unheard = True
        if not self._silent and self._clock() - self._answered > SILENT_S:
            self._silent = True
            self._note(f"the engine does not answer: {error.message}")

    async def _give_up(self, why: str) -> None:
        """Begin again from the operator's values."""
        if why == RESTARTED:
            with suppress(LlmtopError):
                await self._limits.adopt()
            self._own = self._names.held(self._limits.own, self._own)
        self._limits.doubt()
        self._forget()
        before = len(self._actions)
        await self._restore(why)
        if not any(action.why == why for action in self._actions[before:]):
            self._note(why)

    def _forget(self) -> None:
        """What was seen before says nothing of now."""
        self._gauge.clear()
        self._watch.forget()
        self._controller.forget(self._own)

    async def _carry_out(self, decision: Decision) -> None:
        # Do not overwrite a value that another user or program has just set.
        await self._read_limits()
        try:
            await self._limits.set(self._named(decision.held), decision.why)
        except LlmtopError as error:
            self._unanswered(error)
        # What the engine did not take, or rounded, is not what the controller wanted.
        self._controller.held = self._names.held(self._limits.held, decision.held)

    async def _restore(self, why: str) -> bool:
        """Put the operator's values back, or do it on the next beat; whether they are in force."""
        self._owed = why
        try:
            done = await self._limits.set(self._limits.own, why)
        except LlmtopError:
            return False
        self._owed = ""  # a rank that is silent gets them when it is back
        return done

    async def _restore_all(self, why: str) -> None:
        """Put the operator's values back on all ranks, as far as these answer."""
        until = self._clock() + RESTORE_S
        for _ in range(RESTORE_TRIES):
            if await self._restore(why) or self._clock() > until:
                return
            await asyncio.sleep(self._beat_s)

    async def _read_limits(self) -> None:
        """End when another user or program has changed an option: that value stays."""
        with suppress(LlmtopError):
            found = await self._limits.read()
            if found:
                raise Ended(found)

    def _say_whether_it_holds(self, now: float) -> None:
        failing = self._controller.failing_for(now) > CANNOT_S
        if failing and not self._failing:
            self._note("cannot hold: no setting keeps the latency limits")
        self._failing = failing

    @property
    def _words(self) -> str:
        if self._silent:
            return "the engine does not answer"
        return "cannot hold" if self._failing else ""

    def _changed(self, option: str, before: int, after: int, why: str) -> None:
        self._add(Action(self._wall(), option, before, after, why))

    def _note(self, why: str) -> None:
        self._add(Action(self._wall(), "", None, None, why))

    def _add(self, action: Action) -> None:
        self._actions.append(action)
        self._on_action(action)

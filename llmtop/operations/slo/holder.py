"""Holds one engine: reads its load, applies the controller's limits, and always restores the
operator's values at the end."""

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

BEAT_S = 0.4  # control interval
SILENT_S = 3.0  # after this time without an answer, the next answer restores the operator's values
CLOCK_S = 2.0  # a larger change of wall clock minus monotonic clock means that the clock was set
CHECK_EVERY = 5  # intervals between two checks for changes by others
CANNOT_S = 5.0  # time above the limits after which the hold reports that it cannot keep them
RESTORE_TRIES, RESTORE_S = 10, 10.0
RECOVERED, RESTARTED = "the engine answers again", "the engine was restarted"


class Inside(Protocol):
    """The part of ``introspection.EngineInside`` that is used here."""

    async def steps(self, newest: int = ...) -> Steps:
        """The steps since the last call."""

    async def latencies(self) -> Latencies:
        """Cumulative latencies."""


class HoldReport(Struct, frozen=True):
    """The result of a hold. refused: requests refused at the queue limit. restored: all options
    have the operator's values again. ended: why it ended early, "" if it did not. not_restored:
    values that are still different, by option name. own: the operator's values by option name."""

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
        """A lower bound of the requests within the limits, per second."""
        if self.seconds <= 0:
            return None
        return max(0, self.outcomes.ended - self.outcomes.late) / self.seconds


class Ended(Exception):
    """The hold must end. The text is the reason."""


class Holder:
    """One hold. own: the operator's values. allowed: bounds for the limits.

    on_action: receives each action. on_beat: called after each interval with the limits by option
    name, whether they differ from the operator's, a problem in words, and the number of actions.
    wall: unix seconds. clock: monotonic seconds. beat_s: control interval, in seconds.
    """

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
        on_beat: Callable[[Mapping[str, int], bool, str, int], None] = lambda *args: None,
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
        self._missed = False  # no answer in the last interval
        self._failing = False
        self._beats = 0
        self._primed = False
        self._drift: float | None = None
        self._restore_reason = ""  # why the operator's values must return; "" after the request

    def _named(self, held: LimitValues) -> dict[str, int]:
        return self._names.of(asdict(held))

    async def run(self, stop: asyncio.Event, seconds: float | None = None) -> HoldReport:
        """Hold until ``stop`` is set or ``seconds`` are over.

        The operator's values are restored at the end, also after an error or a cancellation.
        """
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
        """The result so far."""
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
        self._missed = False
        if disturbance:
            await self._reset(disturbance)
            return
        if silent or self._restore_reason:
            self._forget()
            await self._restore(self._restore_reason or RECOVERED)  # the cause was reported before
            return
        if self._primed:  # the first answer contains steps from before the hold
            self._refused += sum(step.refused or 0 for step in found.steps)
        self._primed = True
        self._gauge.add(found.steps)
        if self._beats % CHECK_EVERY == 0:
            await self._check_limits()
        seen = self._gauge.read(self._wall(), self._watch.ttft_p95())
        if not seen:
            return
        decision = self._controller.decide(seen)
        if decision is not None:
            await self._apply(decision)
        self._report_failing(seen[0].time)
        self._on_beat(self._limits.held, self._controller.engaged, self._words, len(self._actions))

    def _disturbance(self, found: Steps) -> str:
        """Why earlier observations are no longer valid; "" when they are."""
        drift, before = self._wall() - self._clock(), self._ranks
        moved = self._drift is not None and abs(drift - self._drift) > CLOCK_S
        self._drift, self._ranks = drift, found.ranks
        new = found.restarted_ranks
        if new and len(new) == found.ranks and (len(new) >= before or self._missed):
            return RESTARTED
        if found.ranks < before:
            return f"a rank is gone: {found.ranks} answer"
        if found.ranks > before > 0:
            return f"a rank is back: {found.ranks} answer"
        if new:
            return f"{rank_words(new)} {'was' if len(new) == 1 else 'were'} restarted"
        return "the clock of this machine was set" if moved else ""

    def _unanswered(self, error: LlmtopError) -> None:
        self._missed = True
        if not self._silent and self._clock() - self._answered > SILENT_S:
            self._silent = True
            self._note(f"the engine does not answer: {error.message}")

    async def _reset(self, why: str) -> None:
        """Start again from the operator's values."""
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
        """Drop all earlier observations."""
        self._gauge.clear()
        self._watch.forget()
        self._controller.forget(self._own)

    async def _apply(self, decision: Decision) -> None:
        # First check, so that a value that another user or program has just set is kept.
        await self._check_limits()
        try:
            await self._limits.set(self._named(decision.held), decision.why)
        except LlmtopError as error:
            self._unanswered(error)
        # The engine may have refused or rounded a value. The controller must know the real one.
        self._controller.held = self._names.held(self._limits.held, decision.held)

    async def _restore(self, why: str) -> bool:
        """Restore the operator's values, else again at the next interval. True: all in force."""
        self._restore_reason = why
        try:
            done = await self._limits.set(self._limits.own, why)
        except LlmtopError:
            return False
        self._restore_reason = ""  # a silent rank gets them when it answers again
        return done

    async def _restore_all(self, why: str) -> None:
        """Restore the operator's values on all ranks that answer."""
        until = self._clock() + RESTORE_S
        for _ in range(RESTORE_TRIES):
            if await self._restore(why) or self._clock() > until:
                return
            await asyncio.sleep(self._beat_s)

    async def _check_limits(self) -> None:
        """Raise Ended when another user or program has changed an option. That value is kept."""
        with suppress(LlmtopError):
            found = await self._limits.read()
            if found:
                raise Ended(found)

    def _report_failing(self, now: float) -> None:
        """Record one event when the limits have been broken for CANNOT_S."""
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

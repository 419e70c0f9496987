"""Runs a tune in the background: measures candidates one by one under a load of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llmtop import LlmtopError
from llmtop.analysis.marks import Mark
from llmtop.forecast.figures import Limits
from llmtop.forecast.load import Load as Assumed
from llmtop.forecast.twin import Run, simulate
from llmtop.loadgen.core.results import RequestRecord
from llmtop.loadgen.experiments.level import LoadClock
from llmtop.loadgen.workload.plan import Loop, Plan
from llmtop.operations.slo.ask import assumed
from llmtop.operations.slo.limits import Names
from llmtop.operations.slo.tune_candidates import Chosen, choose, warm_of
from llmtop.operations.slo.tune_runs import (
    InForce,
    TimeLimit,
    drain_s,
    in_time,
    launch_line,
    most_of,
    next_length,
    own_settings,
)
from llmtop.operations.slo.tuner import TRIES, Tried, TuneReport
from llmtop.operations.slo.words import tune_sentence
from llmtop.printable import clean
from llmtop.slo_control.search import Measured, Search
from llmtop.tui.commands.control import refusal
from llmtop.tui.commands.experiment_requests import TunePlan, TuneState
from llmtop.tui.slo.forecast_facts import ForecastFacts
from llmtop.tui.slo.worker import Draw, on_thread
from llmtop.tui.sources.experiment import BEAT_S, Experiment, Parts
from llmtop.values import replace
from llmtop.wording.findings import limits

if TYPE_CHECKING:
    from llmtop.loadgen.workers.load import Load
    from llmtop.operations.session import EngineSession
    from llmtop.tui.sources.engine import EngineSource

CUT_S = 5.0
NO_LIMIT = "no limit of this engine can be changed while it runs"


class TuneRun(Experiment):
    """Runs one tune and updates ``Store.tune``. ``Search`` makes the decisions."""

    screen = "tune"

    def __init__(
        self, parts: Parts, source: EngineSource, plan: TunePlan, facts: ForecastFacts
    ) -> None:
        super().__init__(parts)
        self._source, self._plan, self._facts = source, plan, facts
        self._clock = LoadClock()
        self._records: list[RequestRecord] = []
        self._names = Names()
        self._own: dict[str, int] = {}
        self._most: dict[str, int] = {}
        self._in_force = InForce({})
        self._search: Search | None = None
        self._expected: Mapping[int, float] = {}
        self._runs, self._arrivals = 0, parts.seed()
        self._limit, self._time_up = TimeLimit(plan.most_s), False
        self._publish(TuneState(plan, parts.now()))

    async def measure(self) -> None:
        """Measure the operator's settings, forecast others, then measure the best candidates."""
        own = await self._read_options()
        load = await self.begin_load(
            self._source,
            self._plan.prompts,
            clock=self._clock,
            window_s=self._plan.seconds,
            on_record=self._records.append,
        )
        self.show_load(load, self._source)
        self._source.track.marks.append(Mark(self.parts.now(), "tune"))
        self._show(now=self._own, phase="your settings", left=0)
        first = await self._run(load, 0)
        while not self.stopping and (seconds := next_length(first, self._plan.seconds)):
            if not self._limit.has(self._spent, seconds):
                break
            self._plan = replace(self._plan, seconds=seconds)
            self._show(now=self._own, phase=f"once more, {seconds:g} s a run", left=0)
            first = await self._run(load, 0)
        if self.stopping:
            return
        self._show(now=None, phase="a forecast chooses candidates")
        chosen = await self._candidates(own)
        self._expected = chosen.expected
        search = self._search = Search(own, chosen.settings)
        search.next()
        search.take(first)
        while not self.stopping and (index := search.next()) is not None:
            begun = self._spent
            if not self._limit.fits(index, begun, self._runs):
                self._time_up = True
                search.finish()
                return
            wanted = self._names.of(search.candidates[index])
            self._show(now=wanted, phase="")
            await self._apply(self._source.session, wanted)
            self._source.refresh_options()
            found = await self._run(load, search.round)
            if self.stopping:
                return
            self._limit.took(index, self._spent - begun)
            search.take(found)
            self.parts.repaint()

    async def restore(self) -> None:
        """Restore the operator's settings, also after an error."""
        trouble = ""
        for _ in range(TRIES):
            try:
                await self._apply(self._source.session, self._own)
            except Exception as error:
                trouble = clean(refusal(error))
            else:
                break
        self._source.refresh_options()
        if not self._in_force.restored:
            self.report("error", f"your settings could not be restored: {trouble}")

    def release(self) -> None:
        """Also restore the options, if the event loop ended before that."""
        super().release()
        if not self._in_force.restored:
            with suppress(Exception):  # the engine and the screen may have ended
                asyncio.run(self._restore_in_new_session())

    async def report_result(self, trouble: str) -> None:
        """Publish the report, and its verdict as an event."""
        plan, result = self._plan, self._search.result if self._search is not None else None
        settings = self._names.of(result.settings) if result is not None else {}
        report = TuneReport(
            self._own,
            result,
            self._tried(),
            self._spent,
            self._in_force.restored,
            self._runs,
            self.stopping,
            settings,
            self._time_up,
        )
        back = "your settings are in force again" if self._in_force.restored else "NOT restored"
        line = launch_line(self._source.session.endpoint, settings)
        self._publish(
            replace(
                self._state, report=report, launch_line=line, tried=self._tried(), now=None,
                phase="", left=0, left_s=None, over=True, trouble=trouble, back=back,
            )
        )  # fmt: skip
        if trouble:
            self.report("error", f"the tune of {plan.engine} ended early: {trouble}; {back}")
        elif result is None:
            self.report("info", f"the tune of {plan.engine} was stopped; {back}")
        else:
            self.report("info", f"{tune_sentence(plan.engine, limits(plan.slo), report)}; {back}")

    async def _read_options(self) -> dict[str, int]:
        """The operator's settings by role. Raises LlmtopError if none can be changed."""
        options, why_not = await self._source.session.options()
        own, self._names = own_settings(options, self._plan.roles)
        self._most = most_of(options, self._names)
        if not own:
            raise LlmtopError(f"{NO_LIMIT}: {why_not}" if why_not else NO_LIMIT)
        self._own = self._names.of(own)
        self._in_force = InForce(self._own)
        return own

    async def _candidates(self, own: dict[str, int]) -> Chosen:
        plan, slo = self._plan, self._plan.slo
        known = None
        with suppress(LlmtopError):  # without a model, points of a grid are measured
            known = await self._facts.known(plan.engine)
        prompt, output = assumed(plan.prompts.prompt_tokens), assumed(plan.prompts.output_tokens)
        load = Assumed("open" if plan.is_open else "closed", plan.level, prompt, output)
        goal = Limits(slo.ttft, slo.tpot, slo.e2e)

        def draw(*args: Any, **kwargs: Any) -> Run:
            if self.stopping:
                raise LlmtopError("stopped")
            return simulate(*args, **kwargs)

        def work(run: Draw) -> Chosen:
            return choose(own, self._most, known, goal, load, plan.seconds, run)

        try:
            return await on_thread(work, draw)
        except LlmtopError:
            if self.stopping:
                return Chosen([], {}, 0)
            raise

    async def _run(self, load: Load, number: int) -> Measured:
        """Measure one run, from an idle engine to an idle engine.

        number: of the round. All runs of a round have the same arrival times, with new prompts.
        """
        plan, clock = self._plan, self._clock
        self._records.clear()
        begun, end = clock.seconds(), clock.seconds() + plan.seconds
        shape = f"hold {plan.level:g} for {plan.seconds:g}s"
        loop = Loop.OPEN if plan.is_open else Loop.CLOSED
        plan_of_run = Plan(loop, shape, self.parts.seed(), arrivals=self._arrivals + number)
        await asyncio.to_thread(load.start, plan_of_run)
        await self._wait(load, lambda: clock.seconds() >= end)
        late = clock.seconds() + drain_s(plan.slo, plan.prompts)
        await self._wait(load, lambda: load.finished or clock.seconds() >= late)
        load.stop(drain=False)
        late = clock.seconds() + CUT_S
        await self._wait(load, lambda: load.finished or clock.seconds() >= late, cut=True)
        self._runs += 1
        return in_time(
            self._records, plan.slo, begun + warm_of(plan.seconds), end, is_open=plan.is_open
        )

    async def _wait(self, load: Load, over: Callable[[], bool], *, cut: bool = False) -> None:
        while not over() and (cut or not self.stopping):
            await self.parts.sleep(BEAT_S)
            load.poll()
            self.check(load, self._source)

    async def _apply(self, session: EngineSession, settings: Mapping[str, int]) -> None:
        if changes := self._in_force.ask(settings):
            purpose = self._in_force.purpose
            self._in_force.answered(changes, await session.change(changes, purpose=purpose))

    async def _restore_in_new_session(self) -> None:
        session = self.parts.reopen(self._source)
        try:
            await self._apply(session, self._own)
        finally:
            await session.close()

    def _show(self, *, now: Mapping[str, int] | None, phase: str, left: int | None = None) -> None:
        """Publish the current work and the estimated time left. left: runs; None: estimate."""
        if left is None:
            left = self._search.left if self._search is not None else 0
        spent, left_s = self._spent, None
        if self._runs and left:
            left_s = self._limit.left(spent, spent / self._runs * left)
        self._publish(
            replace(
                self._state, own=self._own, tried=self._tried(), now=now, phase=phase,
                runs=self._runs, left=left, left_s=left_s,
            )
        )  # fmt: skip

    @property
    def _spent(self) -> float:
        """Seconds since the start of the tune."""
        return self.parts.now() - self._state.began

    def _tried(self) -> tuple[Tried, ...]:
        search = self._search
        if search is None:
            return ()
        return tuple(
            Tried(
                self._names.of(settings),
                self._expected.get(index),
                tuple(search.runs[index]),
            )
            for index, settings in enumerate(search.candidates)
        )

    def _publish(self, state: TuneState) -> None:
        self._state = self.parts.store.tune = state

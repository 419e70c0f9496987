"""Runs a comparison: changes the option before each run, and restores it at the end."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from llmtop import LlmtopError
from llmtop.engines.core.options import OptionValue
from llmtop.engines.state.temporary_changes import Purpose
from llmtop.engines.tuning import resolution
from llmtop.loadgen.experiments.comparison import CompareResult, Comparison, PairResult, Turn
from llmtop.loadgen.experiments.level import LoadClock
from llmtop.loadgen.workers.load import Load
from llmtop.operations.session import EngineSession
from llmtop.printable import clean
from llmtop.tui.commands.control import refusal
from llmtop.tui.commands.experiment_requests import ComparisonPlan, ComparisonState
from llmtop.tui.sources.engine import EngineSource
from llmtop.tui.sources.experiment import BEAT_S, Experiment, Parts
from llmtop.values import replace
from llmtop.wording.findings import comparison_sentence, early_end_reason
from llmtop.wording.sentences import value_words

DRAIN_S = 30.0  # time limit for one engine to finish before the other one's run


class ComparisonRun(Experiment):
    """Runs one comparison and updates ``Store.comparison``.

    source: the engine of A. other: the engine of B; None if A and B are values of one option.
    """

    screen = "compare"

    def __init__(
        self, parts: Parts, source: EngineSource, other: EngineSource | None, plan: ComparisonPlan
    ) -> None:
        super().__init__(parts)
        self._plan = plan
        self._sources = {"A": source, "B": other or source}
        self._clocks = {arm: LoadClock() for arm in self._sources}
        self._current = "A"
        self._changed = False  # the option may differ from its original value
        self._before: OptionValue = None
        self._in_force: OptionValue = None
        self._back = ""
        self._comparison = Comparison(
            lambda: self._clocks[self._current].seconds(),
            level=plan.level,
            pairs=plan.pairs,
            seconds=plan.seconds,
            seed=parts.seed(),
            keep_records=False,
        )
        self._publish(ComparisonState(plan, parts.now(), self._comparison.result()))

    async def measure(self) -> None:
        """Compare A with itself, then A and B in turn, until all pairs are complete."""
        if self._plan.other is None:
            await self._read_option()
        loads = {"A": await self._begin("A")}
        loads["B"] = await self._begin("B") if self._plan.other is not None else loads["A"]
        self.show_load(loads["A"], self._sources["A"])
        while not self.stopping:
            self.check(loads[self._current], self._sources[self._current])
            fact = self._comparison.poll()
            standing = self._comparison.standing
            state = replace(self._state, standing=standing)
            if isinstance(fact, PairResult | CompareResult):
                state = replace(state, result=self._comparison.result())
            self._publish(state)
            match fact:
                case CompareResult():
                    return
                case PairResult():
                    self.parts.repaint()
                case Turn(arm):
                    self._comparison.placed(await self._switch_to(arm, loads))
                case None if self._comparison.running:
                    await self.parts.sleep(BEAT_S)

    async def restore(self) -> None:
        """Restore the option, also after an error."""
        if not self._changed:
            return
        name, source = self._plan.option, self._sources["A"]
        value = value_words(name, self._before)
        try:
            await self._set(source.session, self._before)
        except Exception as error:
            self._back = f"{name} could not be restored to {value}: {clean(refusal(error))}"
            self.report("error", self._back)
            return
        self._changed = False
        self._back = f"{name} is {value} again"
        source.refresh_options()

    def release(self) -> None:
        """Also restore the option, if the event loop ended before that."""
        super().release()
        if self._changed:
            self._changed = False
            with suppress(Exception):  # the engine and the screen may have ended
                asyncio.run(self._restore_in_new_session())

    async def report_result(self, trouble: str) -> None:
        """Publish the result, and its summary as an event."""
        result, plan = self._comparison.result(), self._plan
        counted = any(finding.n for finding in result.findings)
        trouble = trouble or early_end_reason(result)
        if result.complete and not trouble and not counted:
            trouble = "no pair could be counted: the client could not keep up, or no request ended"
        self._publish(
            replace(
                self._state,
                result=result,
                standing=None,
                over=True,
                trouble=trouble,
                back=self._back,
            )
        )
        back = f"; {self._back}" if self._back else ""
        if trouble:
            self.report("error", f"the comparison ended early: {trouble}{back}")
            return
        words = comparison_sentence(result, *plan.labels) if counted else ""
        stopped = "" if result.complete else "the comparison was stopped. "
        self.report("info", f"{stopped}{words}{back}")

    async def _begin(self, arm: str) -> Load:
        return await self.begin_load(
            self._sources[arm],
            self._plan.prompts,
            clock=self._clocks[arm],
            window_s=self._plan.seconds,
            on_record=self._comparison.take,
        )

    async def _read_option(self) -> None:
        """Read the value in force. Raises LlmtopError if a value of the plan is not possible."""
        plan = self._plan
        options, _ = await self._sources["A"].session.options()
        option = resolution.find(options, plan.option)
        for value in (plan.a, plan.b):
            reason = resolution.refusal(option, value)
            if reason:
                raise LlmtopError(reason)
        self._before = self._in_force = option.value

    async def _switch_to(self, arm: str, loads: dict[str, Load]) -> Load:
        """Make A or B the tested variant; return its load."""
        source = self._sources[arm]
        if self._plan.other is None:
            wanted = self._plan.a if arm == "A" else self._plan.b
            if wanted != self._in_force:
                self._changed = True
                await self._set(source.session, wanted)
                self._in_force = wanted
                source.refresh_options()
        elif arm != self._current:
            # Requests in flight end first, because both engines may share a GPU.
            await self.drain(loads[self._current], DRAIN_S)
        self._current = arm
        self.show_load(loads[arm], source)
        return loads[arm]

    async def _set(self, session: EngineSession, value: OptionValue) -> None:
        name = self._plan.option
        purpose = Purpose("compare", {name: self._before})
        for change in await session.change({name: value}, purpose=purpose):
            if change.failed:
                raise LlmtopError(f"{name} could not be set to {change.after}: {change.reason}")

    async def _restore_in_new_session(self) -> None:
        session = self.parts.reopen(self._sources["A"])
        try:
            await self._set(session, self._before)
        finally:
            await session.close()

    def _publish(self, state: ComparisonState) -> None:
        self._state = self.parts.store.comparison = state

"""A control that remembers what it was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from llmtop import LlmtopError
from llmtop.engines.core.options import Change, OptionValue, Outcome
from llmtop.engines.core.records import EngineRecord, LaunchSpec
from llmtop.engines.core.requests import Aborted, RequestSort, RequestTable
from llmtop.engines.supervision.restart import Restarted
from llmtop.tui.commands.control import Control, EngineLog

if TYPE_CHECKING:
    from llmtop.engines.state.temporary_changes import Purpose
    from llmtop.loadgen.workload.plan import Plan, Prompts
    from llmtop.tui.commands.experiment_requests import ComparisonPlan, SearchPlan, TunePlan
    from llmtop.tui.commands.forecast_requests import CurveQuestion, EffectQuestion


class FakeControl(Control):
    """Remembers each call as a tuple; raises ``error`` instead when one is set."""

    def __init__(self, log: list[str] | None = None) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.log = log if log is not None else []
        self.error: Exception | None = None
        self.outcome = Outcome.APPLIED
        self.reason: str | None = None
        self.failure = ""
        self.table: RequestTable | None = None
        self.sorts: list[str] = []
        self.expected: list[EffectQuestion | None] = []
        self.curves: list[CurveQuestion] = []
        self.advised: list[str] = []

    def _note(self, *call: object) -> None:
        self.calls.append(call)
        if self.error is not None:
            raise self.error

    async def more(self) -> None:
        self._note("more")

    async def less(self) -> None:
        self._note("less")

    async def hold(self) -> None:
        self._note("hold")

    async def burst(self) -> None:
        self._note("burst")

    async def stop_load(self) -> None:
        self._note("stop_load")

    async def start_again(self) -> None:
        self._note("start_again")

    async def cut_load(self) -> None:
        self._note("cut_load")

    async def switch_loop(self) -> None:
        self._note("switch_loop")

    async def freeze(self) -> None:
        self._note("freeze")

    async def load(self, plan: Plan, prompts: Prompts | None = None) -> None:
        self._note("load", plan, prompts)

    async def stop_engine(self, engine: str) -> None:
        self._note("stop_engine", engine)

    async def start_hold(self, engine: str, slo: str) -> None:
        self._note("start_hold", engine, slo)

    async def end_hold(self, engine: str) -> None:
        self._note("end_hold", engine)

    async def set_option(
        self,
        engine: str,
        option: str,
        value: OptionValue,
        *,
        evict: bool = False,
        purpose: Purpose | None = None,
    ) -> Change:
        """Note the call and answer with the outcome that was set."""
        self._note("set_option", engine, option, value, evict)
        return Change(option, None, value, self.outcome, self.reason, ack_ms=12.0)

    async def restart(
        self,
        engine: str,
        changes: Mapping[str, OptionValue],
        *,
        flags: tuple[str, ...] = (),
        rolling: bool = False,
    ) -> Restarted:
        """Note the call; rolled back when a ``failure`` was set."""
        self._note("restart", engine, dict(changes), *([flags] if flags else []), rolling)
        spec = LaunchSpec("fake", engine, "model", "127.0.0.1", 8000)
        url = "http://127.0.0.1:8000"
        record = EngineRecord(spec, (), (), 1, 1, "", url, "", None, 0.0)
        return Restarted(record, url, took_s=38.0, down_s=38.0, failure=self.failure)

    async def start_search(self, plan: SearchPlan) -> None:
        self._note("start_search", plan)

    async def start_comparison(self, plan: ComparisonPlan) -> None:
        self._note("start_comparison", plan)

    async def start_tune(self, plan: TunePlan) -> None:
        """Note the call."""
        self._note("start_tune", plan)

    async def stop_experiment(self) -> None:
        self._note("stop_experiment")

    async def recall_curves(self, engine: str) -> None:
        """Not noted: a screen asks for it by itself."""

    def expect(self, question: EffectQuestion | None) -> None:
        """Kept apart: the panel asks by itself."""
        self.expected.append(question)

    def expect_curve(self, question: CurveQuestion) -> None:
        """Kept apart, each once: the screen asks by itself, at each beat."""
        if question not in self.curves:
            self.curves.append(question)

    def expect_advised(self, engine: str) -> None:
        """Kept apart, each once: the screen asks by itself, at each beat."""
        if engine not in self.advised:
            self.advised.append(engine)

    def open_log(self, engine: str, count: int) -> EngineLog:
        """The log that was given; lines appended to it come later."""
        return FakeLog(self, count)

    async def record(self) -> None:
        self._note("record")

    async def requests(self, engine: str, sort: RequestSort, limit: int) -> RequestTable:
        """The table that was set, as it is; not noted: a screen asks once a second."""
        if self.error is not None:
            raise self.error
        self.sorts.append(sort)
        if self.table is None:
            raise LlmtopError("requests are shown only for engines started by llmtop")
        return self.table

    async def abort(self, engine: str, ids: Sequence[str]) -> Aborted:
        """Note the call; all of them were there."""
        self._note("abort", engine, tuple(ids))
        return Aborted(tuple(ids), (), ())

    async def select(self, engine: str) -> None:
        self._note("select", engine)

    async def quit(self, stop_engines: bool) -> None:
        self._note("quit", stop_engines)


class FakeLog:
    """The lines of a ``FakeControl``, each once."""

    def __init__(self, control: FakeControl, count: int) -> None:
        self._control = control
        self._at = max(0, len(control.log) - count)

    async def more(self) -> list[str]:
        """What was appended since."""
        if self._control.error is not None:
            raise self._control.error
        found = self._control.log[self._at :]
        self._at = len(self._control.log)
        return found

"""The control of a live dashboard: executes commands on the load, options and engines."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llmtop import LlmtopError
from llmtop.engines.core.options import Change, OptionValue, Outcome
from llmtop.engines.host.log_reader import LogFeed
from llmtop.engines.host.safe_text import clean
from llmtop.tui.dashboard.load_control import LoadControl
from llmtop.tui.dashboard.load_handover import wait_until_counted
from llmtop.wording.sentences import change_words, why_silent

if TYPE_CHECKING:
    from llmtop.engines.core.requests import Aborted, RequestSort, RequestTable
    from llmtop.engines.introspection.engine_inside import EngineInside
    from llmtop.engines.state.temporary_changes import Purpose
    from llmtop.engines.supervision.restart import Restarted
    from llmtop.tui.commands.control import EngineLog
    from llmtop.tui.commands.experiment_requests import ComparisonPlan, SearchPlan, TunePlan
    from llmtop.tui.commands.forecast_requests import CurveQuestion, EffectQuestion
    from llmtop.tui.slo.holds import Holds


class DashboardController(LoadControl):
    """Executes the commands of the keys. Their results appear in the store."""

    async def set_option(
        self,
        engine: str,
        option: str,
        value: OptionValue,
        *,
        evict: bool = False,
        purpose: Purpose | None = None,
    ) -> Change:
        """Change an option, then read the engine at once, so that the screen shows the change."""
        self._experiments.guard()
        source = self._source(engine)
        changes = await source.session.change(
            {option: value}, evict=evict, purpose=purpose, trouble=why_silent(source.track.status)
        )
        if not changes:
            raise LlmtopError(f"{engine} did not answer the change of {option}")
        change = changes[0]
        unsent = change.outcome is Outcome.REFUSED and change.ack_ms is None
        if unsent or change.outcome is Outcome.PARTIAL:
            # The engine's history lacks changes that were refused here, and those of silent ranks.
            self._engines.report("warning", change_words(change))
        if self.slo is not None and not change.failed:
            self.slo.effects.applied(engine, option)
        source.refresh_options()
        self._sampling.sample(source, again=True)
        return change

    async def restart(
        self,
        engine: str,
        changes: Mapping[str, OptionValue],
        *,
        flags: tuple[str, ...] = (),
        rolling: bool = False,
    ) -> Restarted:
        """Restart an engine with new values; its load stops cleanly before and resumes after."""
        source = self._source(engine)
        record = source.session.endpoint.record
        if record is None:
            raise LlmtopError(f"llmtop did not start {engine}, so it cannot restart it")
        if engine in self._restarts.names:
            raise LlmtopError(f"{engine} is restarting already")
        self._experiments.guard()
        from llmtop.engines.supervision.restart import Wanted  # imported late, for a fast start

        wanted = Wanted(changes, flags)
        return await self._restarts.carry_out(source, record, wanted, rolling=rolling)

    async def stop_engine(self, engine: str) -> None:
        """End an engine that llmtop started: first its load, then its processes."""
        source = self._source(engine)
        record = source.session.endpoint.record
        if record is None:
            raise LlmtopError(f"llmtop did not start {engine}, so it does not stop it")
        if engine in self._restarts.names:
            raise LlmtopError(f"{engine} is restarting", "stop it when it is ready")
        load = self._load_source.load
        if load is not None and not load.finished and self._store.load_target == engine:
            load.stop(drain=False)
            await wait_until_counted(load)
        self._engines.report("change", f"{engine} is being stopped")
        await asyncio.to_thread(self._stop_engine, record)
        await self._sampling.sample(source, again=True)

    async def requests(self, engine: str, sort: RequestSort, limit: int) -> RequestTable:
        """The requests inside an engine. Raises LlmtopError if it does not show them."""
        inside = self._inside(engine)
        try:
            return await inside.requests(sort, limit)
        finally:
            inside.close()

    async def abort(self, engine: str, ids: Sequence[str]) -> Aborted:
        """Abort requests by their ids, in the name of this screen's operator."""
        inside, source = self._inside(engine), self._source(engine)
        try:
            done = await inside.abort(ids, source.session.who, "from the screen")
        finally:
            inside.close()
        for ident in done.aborted:
            self._engines.report("change", clean(f"{engine}: request {ident} aborted"))
        return done

    def _inside(self, engine: str) -> EngineInside:
        from llmtop.operations.inside import require_inside

        return require_inside(self._source(engine).session.endpoint)

    async def start_hold(self, engine: str, slo: str) -> None:
        """Hold an engine within latency limits. The hold continues after the screen is closed."""
        self._experiments.guard()
        await self._holds_of(engine).start(engine, slo)

    async def end_hold(self, engine: str) -> None:
        """End the hold; the operator's values are restored."""
        await self._holds_of(engine).end(engine)

    def _holds_of(self, engine: str) -> Holds:
        if self.slo is None or not self._source(engine).track.owned:
            raise LlmtopError(f"llmtop did not start {engine}, so it cannot hold it")
        return self.slo.holds

    def expect(self, question: EffectQuestion | None) -> None:
        """Forecast the effect of a value in the background; None withdraws the request."""
        if self.slo is None:
            return
        if question is None:
            self.slo.effects.forget()
        else:
            self.slo.effects.ask(question)

    def expect_curve(self, question: CurveQuestion) -> None:
        """Forecast the throughput by number of streams in the background."""
        if self.slo is not None:
            self.slo.curves.ask(question)

    def expect_advised(self, engine: str) -> None:
        """Forecast the effect of the advised changes in the background."""
        if self.slo is not None:
            self.slo.whys.ask(engine)

    async def start_search(self, plan: SearchPlan) -> None:
        """Begin a search on an engine; it replaces the running load."""
        source = self._source(plan.engine)
        await self._end_running_load()
        self._experiments.start_search(source, plan)

    async def start_comparison(self, plan: ComparisonPlan) -> None:
        """Begin a comparison; it replaces the running load."""
        source = self._source(plan.engine)
        other = self._source(plan.other) if plan.other is not None else None
        await self._end_running_load()
        self._experiments.start_comparison(source, other, plan)

    async def start_tune(self, plan: TunePlan) -> None:
        """Begin a tune; it replaces the running load."""
        source = self._source(plan.engine)
        if self.slo is None:
            raise LlmtopError("this screen cannot tune")
        self.slo.may_tune(source)
        await self._end_running_load()
        self.slo.tune(self._experiments, source, plan)

    async def stop_experiment(self) -> None:
        """End the search, comparison or tune; the results so far are kept."""
        self._experiments.stop()

    async def recall_curves(self, engine: str) -> None:
        """Load the curves of earlier searches on this kind of engine and model into the store."""
        await self._experiments.recall(self._source(engine))

    async def _end_running_load(self) -> None:
        load = self._running()
        if self._restarts.names:
            raise LlmtopError(f"{', '.join(self._restarts.names)} is restarting")
        if load is not None:
            load.stop(drain=False)
            self._engines.report("info", "load stopped: a measurement uses its own load")
        if (load := self._load_source.load) is not None:
            self._load_source.detach()
            await asyncio.to_thread(load.close)

    async def record(self) -> None:
        """Start a recording into a file, or end the running one."""
        if self.recordings is None:
            raise LlmtopError("this screen cannot record")
        self.recordings.toggle()

    def open_log(self, engine: str, count: int) -> EngineLog:
        """An engine's log, starting with its last ``count`` lines; it continues after a restart."""

        def path() -> Path:
            record = self._source(engine).session.endpoint.record
            if record is None:
                raise LlmtopError(
                    f"llmtop did not start {engine}, so it does not have its log",
                    "read the log where the engine was started",
                )
            return Path(record.log_path)

        return _Log(LogFeed(path, count))

    async def select(self, engine: str) -> None:
        """Select an engine for the screen and the load keys."""
        self._source(engine)
        self._store.selected = engine

    async def quit(self, stop_engines: bool) -> None:
        """End the load and, if ``stop_engines``, the engines that llmtop started."""
        if stop_engines and self._restarts.names:
            raise LlmtopError(
                f"{', '.join(self._restarts.names)} is restarting", "stop it when it is ready"
            )
        self._restarts.interrupted = None
        await self._experiments.close()
        load = self._load_source.load
        if load is not None and not load.finished:
            load.stop(drain=False)
        await self._load_source.close()
        if not stop_engines:
            return
        records = [
            source.session.endpoint.record
            for source in self._engines
            if source.session.endpoint.record is not None
        ]
        await asyncio.gather(*(asyncio.to_thread(self._stop_engine, record) for record in records))


class _Log:
    """A log feed that is read on a thread."""

    def __init__(self, feed: LogFeed) -> None:
        self._feed = feed

    async def more(self) -> list[str]:
        """The new lines."""
        return await asyncio.to_thread(self._feed.read)

"""The commands of the load: start, change, stop, repeat. Most add a mark to the charts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from llmtop import LlmtopError
from llmtop.analysis.marks import Mark
from llmtop.config.keymap import DEFAULT, Keymap
from llmtop.loadgen.workload.plan import Loop, Plan, Prompts
from llmtop.tui.commands.control import Control
from llmtop.tui.dashboard.load_handover import LoadHandover, wait_until_counted
from llmtop.tui.sources.engine import EngineSource
from llmtop.tui.sources.experiments import Experiments
from llmtop.tui.sources.load import LoadSource
from llmtop.values import replace
from llmtop.wording.format import count, rate

if TYPE_CHECKING:
    from llmtop.engines.core.records import EngineRecord
    from llmtop.loadgen.workers.load import Load
    from llmtop.tui.dashboard.load_handover import RestartEngine
    from llmtop.tui.dashboard.observed_engines import ObservedEngines
    from llmtop.tui.dashboard.recordings import Recordings
    from llmtop.tui.slo.services import SloServices

BURST_FACTOR = 2.0
BURST_S = 5.0
ONE_MARK_S = 2.0  # load marks that are closer than this become one mark


class LoadControl(Control):
    """The part of ``DashboardController`` that controls the load.

    new_load: makes the load for an engine; blocks. stop_engine: ends an engine; blocks. seed: a new
    seed at each call. restart_engine: restarts an engine with new option values; blocks.
    experiments: searches, comparisons and tunes, which have a load of their own.
    """

    def __init__(
        self,
        engines: ObservedEngines,
        load_source: LoadSource,
        new_load: Callable[[EngineSource], Load],
        stop_engine: Callable[[EngineRecord], object],
        seed: Callable[[], int],
        restart_engine: RestartEngine,
        experiments: Experiments,
    ) -> None:
        self._engines = engines
        self._store = engines.store
        self._sampling = engines.sampling
        self._load_source = load_source
        self._new_load = new_load
        self._stop_engine = stop_engine
        self._seed = seed
        self._restarts = LoadHandover(engines, load_source, restart_engine)
        self._now = engines.timeline.now
        self._experiments = experiments
        self._last: Plan | None = None  # `start_again` repeats it
        self._start_lock = asyncio.Lock()  # held while a load's workers start
        self.recordings: Recordings | None = None
        self.slo: SloServices | None = None
        self.keys: Keymap = DEFAULT  # for hints that name a key

    async def start(self, plan: Plan) -> None:
        """Start the load on the selected engine, or give a running load a new plan."""
        async with self._start_lock:
            await self._start(plan)

    async def _start(self, plan: Plan) -> None:
        self._running()  # raises during a restart
        load = self._load_source.load
        self._last = plan
        if load is not None and not load.finished:
            load.set_plan(plan)
        else:
            source = self._selected()
            if load is not None:
                await asyncio.to_thread(load.close)
            new_load = await asyncio.to_thread(self._new_load, source)
            # If the screen quits now, ``DashboardRuntime.release`` ends these workers.
            self._load_source.starting = new_load
            await asyncio.to_thread(new_load.start, plan)
            self._load_source.load, self._load_source.starting = new_load, None
            self._store.load_target = source.track.name
        self._engines.report("info", f"load: {plan.shape}")
        self._refresh_load()

    async def more(self) -> None:
        """Raise the load by one level; without a load, start one at the lowest level."""
        async with self._start_lock:  # a second press during the start raises the level
            load = self._running()
            if load is None:
                await self._start(Plan(loop=Loop.CLOSED, shape="hold 1", seed=self._seed()))
                return
        load.more()
        self._mark_level(load)
        self._refresh_load()

    async def less(self) -> None:
        """Lower the load by one level."""
        load = self._require_running()
        load.less()
        self._mark_level(load)
        self._refresh_load()

    async def hold(self) -> None:
        """Hold the load at its level; if it is held already, continue its shape."""
        load = self._require_running()
        held = self._store.load is not None and self._store.load.held
        if held:
            load.resume()
        else:
            load.hold()
        self._refresh_load()

    async def burst(self) -> None:
        """Twice the present level for a few seconds, then back."""
        load = self._require_running()
        level = load.snapshot().asked
        load.burst(max(1.0, round(level * BURST_FACTOR)), BURST_S)
        burst = load.snapshot()  # the level in force: it has an upper limit
        unit = "req/s" if burst.loop == Loop.OPEN else "streams"
        self._mark(f"burst {burst.asked:g}")
        self._engines.report("info", f"load: burst of {burst.asked:,g} {unit} for {BURST_S:g} s")
        self._refresh_load()

    async def stop_load(self) -> None:
        """Send nothing more; requests in flight finish."""
        self._end_load(drain=True)

    async def cut_load(self) -> None:
        """Cancel the requests in flight and send nothing more."""
        self._end_load(drain=False)

    def _end_load(self, drain: bool) -> None:
        if self._restarts.interrupted is not None:
            self._restarts.interrupted = None
            self._engines.report("info", "the load stays stopped")
            return
        load = self._require_running()
        now = load.snapshot()
        if now.held and self._last is not None:  # repeat the operator's level, not the shape
            self._last = replace(self._last, loop=Loop(now.loop), shape=f"hold {now.asked:g}")
        load.stop(drain=drain)
        self._mark("load stopped")
        left = load.snapshot().in_flight
        ends = "finish" if drain else "are cut"
        self._engines.report(
            "info", f"load stopped; {left:,} requests {ends}" if left else "load stopped"
        )
        self._refresh_load()

    async def start_again(self) -> None:
        """Repeat the last load: its shape from the beginning, or the level it was held at."""
        async with self._start_lock:
            if self._running() is not None:
                raise LlmtopError(
                    "the load runs already", f"{self.keys.label('load.stop')} stops it"
                )
            if self._last is None:
                more = self.keys.label("load.more")
                raise LlmtopError("no load was started yet", f"{more} starts one")
            await self._start(replace(self._last, seed=self._seed()))
        self._mark("load again")

    async def switch_loop(self) -> None:
        """Switch between streams and requests a second, and hold the achieved level."""
        load = self._require_running()
        load.switch_loop()
        now = load.snapshot()
        level = (
            f"{rate(now.asked)} requests a second"
            if now.loop == Loop.OPEN
            else f"{count(now.asked)} streams"
        )
        self._engines.report("info", f"load: {level} ({now.loop} loop), held")
        self._refresh_load()

    async def freeze(self) -> None:
        """Hold the load at its present level; no effect without a load, or if it is held."""
        load = self._load_source.load
        if self._restarts.interrupted is None and load is not None and not load.finished:
            if load.snapshot().running:
                load.hold()
            self._refresh_load()

    async def load(self, plan: Plan, prompts: Prompts | None = None) -> None:
        """Load the selected engine with a plan; new prompts end the running load first."""
        async with self._start_lock:
            if prompts is not None:
                self._store.prompts = prompts
                load = self._running()
                if load is not None:
                    load.stop(drain=False)
                    await wait_until_counted(load)
                    await asyncio.to_thread(load.close)
            await self._start(replace(plan, seed=self._seed()))

    def _source(self, engine: str) -> EngineSource:
        source = self._engines.named(engine)
        if source is None:
            raise LlmtopError(f"there is no engine {engine!r} on this screen")
        return source

    def _selected(self) -> EngineSource:
        if self._store.selected is None:
            raise LlmtopError("there is no engine to load", "start one: llmtop run sim")
        return self._source(self._store.selected)

    def _running(self) -> Load | None:
        self._experiments.guard()
        if self._restarts.interrupted is not None:
            raise LlmtopError(
                f"{self._store.load_target} is restarting; the load resumes when it is ready",
                f"{self.keys.label('load.stop')} keeps the load stopped",
            )
        load = self._load_source.load
        return load if load is not None and not load.finished else None

    def _require_running(self) -> Load:
        load = self._running()
        if load is None:
            raise LlmtopError("no load is running", f"{self.keys.label('load.more')} starts one")
        return load

    def _refresh_load(self) -> None:
        self._sampling.sample(self._load_source, again=True)

    def _mark(self, label: str) -> None:
        """Add a load mark. Marks within ``ONE_MARK_S`` of the last one replace it."""
        track = self._store.engines.get(self._store.load_target or "")
        if track is None:
            return
        now, last = self._now(), track.marks[-1] if track.marks else None
        if last is not None and last.load and now - last.time < ONE_MARK_S:
            track.marks.pop()
        track.marks.append(Mark(now, label, load=True))

    def _mark_level(self, load: Load) -> None:
        level = load.snapshot()
        self._mark(f"load {level.asked:,g}{' req/s' if level.loop == Loop.OPEN else ''}")

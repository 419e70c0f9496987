"""The real control: what the keys ask for, done to the load, to options and to engines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from llmtop import LlmtopError
from llmtop.engines.logs import LogFeed
from llmtop.engines.options import Change, OptionValue, Outcome
from llmtop.loadgen.plan import Loop, Plan, Prompts
from llmtop.tui.format import count, rate
from llmtop.tui.keymap import DEFAULT, Keymap
from llmtop.tui.marks import Mark
from llmtop.tui.restarts import Restarts, counted
from llmtop.tui.sources import EngineSource, Experiments, LoadSource, Sampling
from llmtop.tui.store import Event, Store
from llmtop.tui.words import change_words
from llmtop.values import replace

if TYPE_CHECKING:
    from llmtop.engines.loans import Purpose
    from llmtop.engines.records import EngineRecord
    from llmtop.engines.restart import Restarted
    from llmtop.loadgen.pool import Load
    from llmtop.tui.control import EngineLog
    from llmtop.tui.experiments import ComparisonPlan, SearchPlan
    from llmtop.tui.restarts import RestartEngine

BURST_FACTOR = 2.0
BURST_S = 5.0


class Conductor:
    """Turns keys into commands. What comes of them returns through the store.

    new_load: makes the load for an engine. stop_engine: ends one, blocking. seed: a new one each
    time. restart_engine: restarts one with new option values, blocking. now: the screen's clock,
    for marks and events. experiments: searches and comparisons, which have a load of their own.
    """

    def __init__(
        self,
        store: Store,
        sampling: Sampling,
        load_source: LoadSource,
        new_load: Callable[[EngineSource], Load],
        stop_engine: Callable[[EngineRecord], object],
        seed: Callable[[], int],
        restart_engine: RestartEngine,
        now: Callable[[], float],
        experiments: Experiments,
    ) -> None:
        self._store = store
        self._sampling = sampling
        self._load_source = load_source
        self._new_load = new_load
        self._stop_engine = stop_engine
        self._seed = seed
        self._restarts = Restarts(store, sampling, load_source, restart_engine, now)
        self._now = now
        self._experiments = experiments
        self._begins = asyncio.Lock()  # held while a load's workers start
        self.keys: Keymap = DEFAULT  # for the ways out that name one

    async def start(self, plan: Plan) -> None:
        """Start the load on the selected engine, or give a running load a new plan."""
        async with self._begins:
            await self._start(plan)

    async def _start(self, plan: Plan) -> None:
        self._running()  # refuses in the midst of a restart
        load = self._load_source.load
        if load is not None and not load.finished:
            load.set_plan(plan)
        else:
            source = self._selected()
            if load is not None:
                await asyncio.to_thread(load.close)
            fresh = await asyncio.to_thread(self._new_load, source)
            await asyncio.to_thread(fresh.start, plan)
            self._load_source.load = fresh
            self._store.load_target = source.track.name
        self._say("info", f"load: {plan.shape}")
        self._look()

    async def more(self) -> None:
        """One level more; without a load, start one at its lowest level."""
        async with self._begins:  # a second press while it starts is one level more, not a start
            load = self._running()
            if load is None:
                await self._start(Plan(loop=Loop.CLOSED, shape="hold 1", seed=self._seed()))
                return
        load.more()
        self._look()

    async def less(self) -> None:
        """One level less."""
        self._need().less()
        self._look()

    async def hold(self) -> None:
        """Freeze the load where its shape is now; again: let the shape go on."""
        load = self._need()
        held = self._store.load is not None and self._store.load.held
        if held:
            load.resume()
        else:
            load.hold()
        self._look()

    async def burst(self) -> None:
        """Twice the present level for a few seconds, then back."""
        load = self._need()
        level = load.snapshot().asked
        load.burst(max(1.0, round(level * BURST_FACTOR)), BURST_S)
        burst = load.snapshot()  # as it is now: there is a limit to the level
        unit = "req/s" if burst.loop == Loop.OPEN else "streams"
        self._mark(f"burst {burst.asked:g}")
        self._say("info", f"load: burst of {burst.asked:,g} {unit} for {BURST_S:g} s")
        self._look()

    async def stop_load(self) -> None:
        """Send nothing more; what is in flight finishes."""
        self._end_load(drain=True)

    async def cut_load(self) -> None:
        """Cut what is in flight and send nothing more."""
        self._end_load(drain=False)

    def _end_load(self, drain: bool) -> None:
        if self._restarts.interrupted is not None:
            self._restarts.interrupted = None
            self._say("info", "the load stays stopped")
            return
        load = self._need()
        load.stop(drain=drain)
        left = load.snapshot().in_flight
        ends = "finish" if drain else "are cut"
        self._say("info", f"load stopped; {left:,} requests {ends}" if left else "load stopped")
        self._look()

    async def switch_loop(self) -> None:
        """From streams to requests a second or back, holding what is achieved now."""
        load = self._need()
        load.switch_loop()
        now = load.snapshot()
        level = (
            f"{rate(now.asked)} requests a second"
            if now.loop == Loop.OPEN
            else f"{count(now.asked)} streams"
        )
        self._say("info", f"load: {level} ({now.loop} loop), held")
        self._look()

    async def freeze(self) -> None:
        """Hold the load where it is; nothing where none runs, or it is held already."""
        load = self._load_source.load
        if self._restarts.interrupted is None and load is not None and not load.finished:
            if load.snapshot().running:
                load.hold()
            self._look()

    async def load(self, plan: Plan, prompts: Prompts | None = None) -> None:
        """Load the selected engine so; other prompts begin a load of their own."""
        async with self._begins:
            if prompts is not None:
                self._store.prompts = prompts
                load = self._running()
                if load is not None:
                    load.stop(drain=False)
                    await counted(load)
                    await asyncio.to_thread(load.close)
            await self._start(replace(plan, seed=self._seed()))

    async def set_option(
        self,
        engine: str,
        option: str,
        value: OptionValue,
        *,
        evict: bool = False,
        purpose: Purpose | None = None,
    ) -> Change:
        """Change an option; look at the engine again at once, so that the screen shows it."""
        self._experiments.guard()
        source = self._source(engine)
        changes = await source.session.change({option: value}, evict=evict, purpose=purpose)
        if not changes:
            raise LlmtopError(f"{engine} did not answer the change of {option}")
        change = changes[0]
        if change.outcome is Outcome.REFUSED and change.ack_ms is None:
            # Refused before it was sent, so the engine's own history will not tell of it.
            self._say("warning", change_words(change))
        source.look_again()
        self._sampling.beat(source, again=True)
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
        from llmtop.engines.restart import Wanted  # not before the screen is there

        wanted = Wanted(changes, flags)
        return await self._restarts.carry_out(source, record, wanted, rolling=rolling)

    async def stop_engine(self, engine: str) -> None:
        """End an engine that llmtop started: its load first, then its processes."""
        source = self._source(engine)
        record = source.session.endpoint.record
        if record is None:
            raise LlmtopError(f"llmtop did not start {engine}, so it does not stop it")
        if engine in self._restarts.names:
            raise LlmtopError(f"{engine} is restarting", "stop it when it is ready")
        load = self._load_source.load
        if load is not None and not load.finished and self._store.load_target == engine:
            load.stop(drain=False)
            await counted(load)
        self._say("change", f"{engine} is being stopped")
        await asyncio.to_thread(self._stop_engine, record)
        await self._sampling.beat(source, again=True)

    async def start_search(self, plan: SearchPlan) -> None:
        """Begin a search on an engine, in place of the load that runs."""
        source = self._source(plan.engine)
        await self._make_room()
        self._experiments.start_search(source, plan)

    async def start_comparison(self, plan: ComparisonPlan) -> None:
        """Begin a comparison, in place of the load that runs."""
        source = self._source(plan.engine)
        other = self._source(plan.other) if plan.other is not None else None
        await self._make_room()
        self._experiments.start_comparison(source, other, plan)

    async def stop_experiment(self) -> None:
        """End the search or the comparison; what is known by then is kept."""
        self._experiments.stop()

    async def recall_curves(self, engine: str) -> None:
        """Bring the curves of earlier searches on this kind of engine and model into the store."""
        await self._experiments.recall(self._source(engine))

    async def _make_room(self) -> None:
        load = self._running()
        if self._restarts.names:
            raise LlmtopError(f"{', '.join(self._restarts.names)} is restarting")
        if load is not None:
            load.stop(drain=False)
            self._say("info", "load stopped: a measurement has a load of its own")
        if (load := self._load_source.load) is not None:
            self._load_source.let_go()
            await asyncio.to_thread(load.close)

    def open_log(self, engine: str, count: int) -> EngineLog:
        """An engine's log from its last ``count`` lines on; also of the process after a restart."""

        def path() -> Path:
            record = self._source(engine).session.endpoint.record
            if record is None:
                raise LlmtopError(
                    f"llmtop did not start {engine}, so it does not have its log",
                    "look where it was started",
                )
            return Path(record.log_path)

        return _Log(LogFeed(path, count))

    async def select(self, engine: str) -> None:
        """Make an engine the one that the screen and the load keys are about."""
        self._source(engine)
        self._store.selected = engine

    async def quit(self, stop_engines: bool) -> None:
        """End the load and, if asked to, the engines that llmtop started."""
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
            for source in self._sampling.sources
            if isinstance(source, EngineSource) and source.session.endpoint.record is not None
        ]
        await asyncio.gather(*(asyncio.to_thread(self._stop_engine, record) for record in records))

    def _source(self, engine: str) -> EngineSource:
        for source in self._sampling.sources:
            if isinstance(source, EngineSource) and source.track.name == engine:
                return source
        raise LlmtopError(f"there is no engine {engine!r} on this screen")

    def _selected(self) -> EngineSource:
        if self._store.selected is None:
            raise LlmtopError("there is no engine to load", "start one: llmtop run sim")
        return self._source(self._store.selected)

    def _running(self) -> Load | None:
        self._experiments.guard()
        if self._restarts.interrupted is not None:
            raise LlmtopError(
                f"{self._store.load_target} restarts, and the load comes back with it",
                f"{self.keys.label('load.stop')} leaves it stopped",
            )
        load = self._load_source.load
        return load if load is not None and not load.finished else None

    def _need(self) -> Load:
        load = self._running()
        if load is None:
            raise LlmtopError("no load is running", f"{self.keys.label('load.more')} starts one")
        return load

    def _look(self) -> None:
        self._sampling.beat(self._load_source, again=True)

    def _say(self, level: str, text: str) -> None:
        self._store.events.append(Event(self._now(), level, text))

    def _mark(self, label: str) -> None:
        track = self._store.engines.get(self._store.load_target or "")
        if track is not None:
            track.marks.append(Mark(self._now(), label))


class _Log:
    """A feed, read beside the screen."""

    def __init__(self, feed: LogFeed) -> None:
        self._feed = feed

    async def more(self) -> list[str]:
        """The new lines."""
        return await asyncio.to_thread(self._feed.read)

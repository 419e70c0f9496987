"""The real control: what the keys ask for, done to the load, to options and to engines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from llmtop import LlmtopError
from llmtop.engines.logs import tail
from llmtop.engines.options import Change, OptionValue, Outcome
from llmtop.engines.records import EngineRecord
from llmtop.loadgen.plan import Loop, Plan
from llmtop.loadgen.pool import Load
from llmtop.tui.sources import EngineSource, LoadSource, Sampling
from llmtop.tui.store import Event, Mark, Store
from llmtop.tui.words import change_words

BURST_FACTOR = 2.0
BURST_S = 5.0


class Conductor:
    """Turns keys into commands. What comes of them returns through the store.

    new_load: makes the load for an engine. stop_engine: ends one, blocking. seed: a new one each
    time.
    """

    def __init__(
        self,
        store: Store,
        sampling: Sampling,
        load_source: LoadSource,
        new_load: Callable[[EngineSource], Load],
        stop_engine: Callable[[EngineRecord], object],
        seed: Callable[[], int],
    ) -> None:
        self._store = store
        self._sampling = sampling
        self._load_source = load_source
        self._new_load = new_load
        self._stop_engine = stop_engine
        self._seed = seed

    async def start(self, plan: Plan) -> None:
        """Start the load on the selected engine, or give a running load a new plan."""
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
        load = self._running()
        if load is None:
            await self.start(Plan(loop=Loop.CLOSED, shape="hold 1", seed=self._seed()))
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
        self._mark(f"burst {level * BURST_FACTOR:g}")
        self._look()

    async def stop_load(self) -> None:
        """Cut what is in flight and send nothing more."""
        self._need().stop(drain=False)
        self._say("info", "load stopped")
        self._look()

    async def set_option(
        self, engine: str, option: str, value: OptionValue, *, evict: bool = False
    ) -> Change:
        """Change an option; look at the engine again at once, so that the screen shows it."""
        source = self._source(engine)
        changes = await source.session.change({option: value}, evict=evict)
        if not changes:
            raise LlmtopError(f"{engine} did not answer the change of {option}")
        change = changes[0]
        if change.outcome is Outcome.REFUSED and change.ack_ms is None:
            # Refused before it was sent, so the engine's own history will not tell of it.
            self._say("warning", change_words(change))
        source.look_again()
        self._sampling.beat(source)
        return change

    async def log_lines(self, engine: str, count: int) -> list[str]:
        """The end of an engine's log."""
        record = self._source(engine).session.endpoint.record
        if record is None:
            raise LlmtopError(f"llmtop did not start {engine}, so it does not have its log")
        return await asyncio.to_thread(tail, Path(record.log_path), count)

    async def select(self, engine: str) -> None:
        """Make an engine the one that the screen and the load keys are about."""
        self._source(engine)
        self._store.selected = engine

    async def quit(self, stop_engines: bool) -> None:
        """End the load and, if asked to, the engines that llmtop started."""
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
        load = self._load_source.load
        return load if load is not None and not load.finished else None

    def _need(self) -> Load:
        load = self._running()
        if load is None:
            raise LlmtopError("no load is running", "+ starts one")
        return load

    def _look(self) -> None:
        self._sampling.beat(self._load_source)

    def _say(self, level: str, text: str) -> None:
        self._store.events.append(Event(time.time(), level, text))

    def _mark(self, label: str) -> None:
        track = self._store.engines.get(self._store.load_target or "")
        if track is not None:
            track.marks.append(Mark(time.time(), label))

"""The dashboard's real parts, put together: store, sources, control, and what they run on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llmtop import LlmtopError
from llmtop.engines.gpu import Gpus
from llmtop.engines.logs import clean
from llmtop.engines.records import EngineRecord, State
from llmtop.engines.watch import identity
from llmtop.loadgen.plan import Plan, Prompts, Target
from llmtop.tui.conductor import Conductor
from llmtop.tui.curves import CurveShelf
from llmtop.tui.sources import (
    CostSource,
    EffectSource,
    EngineSource,
    Experiments,
    GpuSource,
    LoadSource,
    Parts,
    Sampling,
    Source,
    Timeline,
)
from llmtop.tui.store import EngineTrack, Event, Store
from llmtop.tui.wiring import Wiring, fresh_seed

if TYPE_CHECKING:
    from llmtop.engines.endpoint import Endpoint
    from llmtop.engines.energy import EngineEnergy
    from llmtop.engines.options import Option
    from llmtop.engines.restart import HandOver, Restarted, Wanted
    from llmtop.loadgen.calibration import Calibration
    from llmtop.loadgen.level import LoadClock
    from llmtop.loadgen.pool import Load
    from llmtop.loadgen.results import RequestRecord
    from llmtop.tui.session import EngineSession
    from llmtop.tui.tour import Tour

RESCAN_S = 5.0
MEASURING_TIMEOUT_S = 120.0  # of a request in a search or a comparison, as `llmtop saturate` has it


class NewEngines:
    """Adds engines that another llmtop started while this screen is open.

    Those too that had failed before they were looked for: one that is started again and again, and
    dies at once each time, is the very one that somebody has to see.
    """

    def __init__(
        self,
        wiring: Wiring,
        add: Callable[[Endpoint], None],
        known: set[str],
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wiring, self._add, self._known, self._steady = wiring, add, known, steady
        self._opened = steady()
        self._due = self._opened + RESCAN_S

    async def beat(self) -> None:
        """Look through the records, every few seconds."""
        if self._steady() < self._due:
            return
        self._due = self._steady() + RESCAN_S
        records: list[EngineRecord] = await asyncio.to_thread(self._wiring.supervisor.records)
        for record in records:
            # One that takes over a name will be seen under that name.
            known = record.name in self._known or record.replaces in self._known
            if not known and (record.ended_at is None or self._failed_here(record)):
                self._add(self._wiring.of(record))

    def _failed_here(self, record: EngineRecord) -> bool:
        if record.stop_requested_at is not None or record.boot_id != self._wiring.processes.boot_id:
            return False
        # Not by the record's times: the wall clock may have been stepped since.
        age_s = self._wiring.processes.age_s(identity(record))
        return age_s < self._steady() - self._opened

    async def close(self) -> None:
        """Nothing is held."""


class MissingEngines:
    """Adds engines that were asked for by URL and did not answer when the screen was opened.

    add: gets each that answers. missing: the store's, by URL why it is not there.
    """

    def __init__(
        self,
        wiring: Wiring,
        add: Callable[[Endpoint], None],
        missing: dict[str, str],
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wiring, self._add, self._missing, self._steady = wiring, add, missing, steady
        self._due = steady() + RESCAN_S

    async def beat(self) -> None:
        """Ask again, every few seconds."""
        if not self._missing or self._steady() < self._due:
            return
        await asyncio.gather(*map(self._ask, list(self._missing)))
        self._due = self._steady() + RESCAN_S

    async def _ask(self, url: str) -> None:
        try:
            endpoint = await self._wiring.endpoint(url)
        except LlmtopError as error:
            self._missing[url] = error.message
            return
        del self._missing[url]
        self._add(endpoint)

    async def close(self) -> None:
        """Nothing is held."""


class Stage:
    """Builds everything that the app shows, and runs it while the app does.

    news: called when something should be seen before the screen's next beat. The app is built on
    the stage, so it puts its own here once it is there; until then nobody looks.
    """

    def __init__(
        self,
        wiring: Wiring,
        endpoints: Sequence[Endpoint],
        *,
        select: str | None = None,
        prompts: Prompts | None = None,
        interval: float = 1.0,
        follow_new: bool = False,
        missing: Mapping[str, str] | None = None,
    ) -> None:
        self.store = Store()
        self.news: Callable[[], None] = lambda: None
        self._wiring = wiring
        self.timeline = Timeline()
        self._known: set[str] = set()
        self.load_source = LoadSource(self.store, self.timeline.now)
        self.store.prompts = prompts or Prompts()
        self.experiments = Experiments(
            Parts(
                self.store,
                self.load_source,
                self._measuring_load,
                self._energy,
                lambda source: wiring.session(source.session.endpoint),
                CurveShelf(wiring.state.root / "curves"),
                fresh_seed,
                self.timeline.now,
                lambda: self.news(),
            )
        )
        sources: list[Source] = [
            self.experiments,  # first: what it still has to put back needs the engines' sources
            GpuSource(Gpus(rare_energy=True), self.store),
            self.load_source,
            EffectSource(self.store, self.timeline.now),
            CostSource(self.store, self.timeline.now),
        ]
        self.sampling = Sampling(sources, interval, on_fault=self._fault)
        for endpoint in endpoints:
            self.add(endpoint)
        if follow_new:
            self.sampling.sources.append(NewEngines(wiring, self.add, self._known))
        if missing:
            self.store.missing.update(missing)
            for url, why in missing.items():
                self._say("error", clean(f"{url} is not shown yet: {why}"))
            late = MissingEngines(wiring, self._join, self.store.missing)
            self.sampling.sources.append(late)
        if select is not None:
            self.store.selected = select
        self.conductor = Conductor(
            self.store,
            self.sampling,
            self.load_source,
            self._new_load,
            self._stop,
            fresh_seed,
            self._restart,
            self.timeline.now,
            self.experiments,
        )

    def add(self, endpoint: Endpoint) -> None:
        """Put one more engine on the screen."""
        record = endpoint.record
        track = EngineTrack(
            name=endpoint.name,
            kind=endpoint.adapter.kind,
            title=endpoint.adapter.title,
            url=endpoint.url,
            owned=endpoint.owned,
            simulated=endpoint.adapter.simulated,
            version=endpoint.version,
            model=endpoint.model,
        )
        session = self._wiring.session(endpoint)
        supervisor = self._wiring.supervisor
        status = self._wiring.status if record is not None else None
        self.store.engines[endpoint.name] = track
        self._known.add(endpoint.name)
        self.sampling.sources.append(
            EngineSource(
                session,
                track,
                self.store,
                status,
                self.timeline.now,
                supervisor.learn,
                lambda: self.news(),
                supervisor.anatomy,
                self._reopen,
            )
        )
        if self.store.selected is None:
            self.store.selected = endpoint.name

    def _join(self, endpoint: Endpoint) -> None:
        if endpoint.name not in self._known:
            self.add(endpoint)
            self._say("info", clean(f"{endpoint.name} answers now"))

    def perform(self, plan: Plan | None) -> Callable[[], Coroutine[Any, Any, None]]:
        """What runs beside the app: sampling, and a first load once the engine is ready."""

        async def run() -> None:
            beats = asyncio.create_task(self.sampling.run())
            try:
                if plan is not None:
                    await self._open_with(plan)
                await beats
            finally:
                beats.cancel()
                await self.sampling.close()
                await self._wiring.fetch.close()

        return run

    def tour(self, speed: float) -> Tour:
        """A tour on the selected engine; it begins once the engine is ready."""

        async def ready() -> Sequence[Option]:
            while (source := self._selected()) is not None and not source.settled.is_set():
                await source.settled.wait()
            if source is None or source.track.sample is None:
                raise LlmtopError("no tour: the engine does not run")
            return source.track.options

        track = self.store.engine
        if track is None:
            raise LlmtopError("no tour: there is no engine")
        from llmtop.tui.tour import Tour

        def ended() -> bool:
            return track.status is not None and not track.runs

        return Tour(track.name, self.conductor, ready, self._say, ended, speed)

    async def _open_with(self, plan: Plan) -> None:
        while (source := self._selected()) is not None and not source.settled.is_set():
            await source.settled.wait()
        if source is not None and source.track.sample is None:
            return  # it has ended, and says so itself
        try:
            await self.conductor.start(plan)
        except LlmtopError as error:
            self._say("error", f"no load: {error.message}")

    def release(self) -> None:
        """End the load's workers, however the screen ended. May be called twice."""
        self.experiments.release()
        if self.load_source.load is not None:
            self.load_source.load.close()

    def farewell(self) -> list[str]:
        """What to tell the person after the screen is gone: the engines that go on running."""
        lines = []
        for track in self.store.engines.values():
            if not track.owned:
                continue
            status = self._wiring.supervisor.status(self._wiring.supervisor.find(track.name))
            if status.state in (State.STARTING, State.READY, State.UNRESPONSIVE):
                lines.append(
                    f"{track.name} goes on running at {track.url}; "
                    f"`llmtop` shows it again, `llmtop stop {track.name}` ends it"
                )
        return lines

    def _selected(self) -> EngineSource | None:
        for source in self.sampling.sources:
            if isinstance(source, EngineSource) and source.track.name == self.store.selected:
                return source
        return None

    def _new_load(self, source: EngineSource) -> Load:
        from llmtop.loadgen.pool import Load  # not before the screen is there: 50 ms

        return Load(self._target(source), self.store.prompts, calibration=self._remembered())

    def _measuring_load(
        self,
        source: EngineSource,
        prompts: Prompts,
        *,
        clock: LoadClock,
        window_s: float,
        on_record: Callable[[RequestRecord], None],
    ) -> Load:
        from llmtop.loadgen.pool import Load

        return Load(
            self._target(source),
            prompts,
            timeout_s=MEASURING_TIMEOUT_S,
            window_s=window_s,
            on_record=on_record,
            calibration=self._remembered(),
            monotonic=clock.ns,
        )

    def _remembered(self) -> Calibration | None:
        """What this client was found to carry before; nothing is tried out beside a screen."""
        from llmtop.tui.calibrated import remembered  # the load's modules, as above

        wiring = self._wiring
        return remembered(wiring.state.root, wiring.processes.boot_id)

    def _target(self, source: EngineSource) -> Target:
        from llmtop.tui.served import served_model

        endpoint = source.session.endpoint
        key = self._wiring.key_for(endpoint)
        return Target(url=endpoint.url, model=served_model(endpoint.url, key), api_key=key)

    def _energy(self, source: EngineSource) -> EngineEnergy | None:
        record = source.session.endpoint.record
        if record is None or record.simulated:
            return None
        from llmtop.engines.energy import EngineEnergy

        return EngineEnergy(record, Gpus(), self._wiring.processes)

    def _reopen(self, record: EngineRecord) -> EngineSession:
        return self._wiring.session(self._wiring.of(record))

    def _restart(
        self, record: EngineRecord, wanted: Wanted, hand_over: HandOver | None
    ) -> Restarted:
        from llmtop.engines.restart import room_beside

        room = room_beside(record, self.store.gpus) if hand_over is not None else ()
        wanted = replace(wanted, gpus=room or ())
        return self._wiring.restart(record, wanted, hand_over)

    def _stop(self, record: EngineRecord) -> object:
        return self._wiring.supervisor.stop(record)

    def _fault(self, source: Source, error: Exception) -> None:
        text = f"a fault in {type(source).__name__}: {type(error).__name__}: {error}"
        self._say("error", clean(text))

    def _say(self, level: str, text: str) -> None:
        self.store.events.append(Event(self.timeline.now(), level, text))

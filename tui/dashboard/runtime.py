"""Builds the dashboard's parts: store, sources, control and their dependencies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llmtop import LlmtopError
from llmtop.engines.core.records import State
from llmtop.engines.host.safe_text import clean
from llmtop.engines.state.attached_engines import AttachedEngines
from llmtop.loadgen.workload.plan import Plan, Prompts
from llmtop.operations.curves import CurveArchive
from llmtop.operations.recorder_process import is_wanted
from llmtop.operations.wiring import Wiring, fresh_seed
from llmtop.tui.dashboard.controller import DashboardController
from llmtop.tui.dashboard.engine_discovery import MissingEngines, NewEngines
from llmtop.tui.dashboard.loads import Loads
from llmtop.tui.dashboard.observed_engines import ObservedEngines
from llmtop.tui.dashboard.recordings import Recordings
from llmtop.tui.history.past import PastSource
from llmtop.tui.history.recorder import RecorderSource
from llmtop.tui.slo.services import SloServices
from llmtop.tui.sources.cost import CostSource
from llmtop.tui.sources.effects import EffectSource
from llmtop.tui.sources.engine import EngineSource
from llmtop.tui.sources.experiment import Parts
from llmtop.tui.sources.experiments import Experiments
from llmtop.tui.sources.gpu import GpuSource
from llmtop.tui.sources.history import PostedEvents
from llmtop.tui.sources.load import LoadSource
from llmtop.tui.sources.sampling import Source
from llmtop.tui.sources.shared_load import SharedLoadSource

if TYPE_CHECKING:
    from llmtop.engines.core.endpoint import Endpoint
    from llmtop.engines.core.options import Option
    from llmtop.tui.dashboard.tour import Tour
    from llmtop.tui.store.store import EngineTrack


class DashboardRuntime:
    """Builds store, sources and controller of one screen, and runs the sources.

    select: the engine to select. prompts: of the screen's load. interval: seconds between samples.
    follow_new: also show engines that are started later. missing: engines that do not answer yet,
    the reason by URL. repaint: called for changes that should appear before the screen's next beat.
    steps_read: called with the name of an engine whose steps were read. The app is built later and
    sets its own callbacks here.
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
        self.repaint: Callable[[], None] = lambda: None
        self.steps_read: Callable[[str], None] = lambda name: None
        self._wiring = wiring
        self._engines = engines = ObservedEngines(wiring, interval, repaint=self._request_repaint)
        self.store, self.timeline = engines.store, engines.timeline
        self.sampling, self.insights = engines.sampling, engines.insights
        self.insights.judge = self._judge
        self._loads = Loads(self.store, wiring)
        self.load_source = LoadSource(self.store, self.timeline.now)
        self.store.prompts = prompts or Prompts()
        self.experiments = Experiments(
            Parts(
                self.store,
                self.load_source,
                self._loads.measuring,
                self._loads.energy,
                lambda source: wiring.session(source.session.endpoint),
                CurveArchive(wiring.state.root / "curves"),
                fresh_seed,
                self.timeline.now,
                self._request_repaint,
            )
        )
        self._slo = SloServices(
            self.store,
            wiring,
            engines.named,
            self.insights.of,
            self.timeline.now,
            self._request_repaint,
        )
        self.sampling.sources += self._sources()
        for endpoint in endpoints:
            self.add(endpoint)
        if follow_new:
            found = NewEngines(wiring, self.add, engines.known)
            self.sampling.sources.append(found)
        if missing:
            self.store.missing.update(missing)
            for url, why in missing.items():
                engines.report("error", clean(f"{url} is not shown yet: {why}"))
            late = MissingEngines(wiring, self._add_late, self.store.missing)
            self.sampling.sources.append(late)
        if select is not None:
            self.store.selected = select
        self.controller = DashboardController(
            engines,
            self.load_source,
            self._loads.on_screen,
            wiring.supervisor.stop,
            fresh_seed,
            wiring.restart,
            self.experiments,
        )
        self.recordings = Recordings(self.store, self.sampling, self.timeline.now, wiring)
        self.controller.recordings, self.controller.slo = self.recordings, self._slo

    def _judge(self, track: EngineTrack) -> None:
        self._engines.states.explain(track)
        self.steps_read(track.name)

    def _sources(self) -> list[Source]:
        store, now, wiring = self.store, self.timeline.now, self._wiring
        shared: list[Source] = [
            EffectSource(store, now),
            SharedLoadSource(store, now, wiring.state.folder),
            PostedEvents(store, now, wiring.state.folder),
        ]
        history: list[Source] = []
        if is_wanted(wiring.environ):
            history = [
                PastSource(store, wiring.history, now),
                RecorderSource(
                    store,
                    wiring.recorder.ensure_running,
                    now,
                    AttachedEngines(wiring.state.root).note if wiring.reaches_engines else None,
                ),
            ]
        return [
            self.experiments,  # closed first: it restores options through the engines' sources
            *history,
            GpuSource(self._wiring.screen_gpus(), store),
            self.load_source,
            self.insights,
            CostSource(store, now),
            *self._slo.sources,
            *shared,
        ]

    def add(self, endpoint: Endpoint) -> None:
        """Add an engine to the screen."""
        self._engines.add(endpoint)
        self.store.selected = self.store.selected or endpoint.name

    def _add_late(self, endpoint: Endpoint) -> None:
        if endpoint.name not in self._engines.known:
            self.add(endpoint)
            self._engines.report("info", clean(f"{endpoint.name} answers now"))

    def perform(self, plan: Plan | None) -> Callable[[], Coroutine[Any, Any, None]]:
        """The background task of the app: sampling, and a first load once the engine is ready.

        plan: of the first load; None for no load.
        """

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
        """A tour on the selected engine; it begins once the engine is ready. Raises LlmtopError."""

        async def ready() -> Sequence[Option]:
            while (source := self._selected()) is not None and not source.settled.is_set():
                await source.settled.wait()
            if source is None or source.track.sample is None:
                raise LlmtopError("no tour: the engine does not run")
            return source.track.options

        track = self.store.engine
        if track is None:
            raise LlmtopError("no tour: there is no engine")
        from llmtop.tui.dashboard.tour import Tour

        def ended() -> bool:
            return track.status is not None and not track.runs

        tour = Tour(track.name, self.controller, ready, self._engines.report, ended, speed)
        tour.owned = track.owned
        return tour

    async def _open_with(self, plan: Plan) -> None:
        while (source := self._selected()) is not None and not source.settled.is_set():
            await source.settled.wait()
        if source is not None and source.track.sample is None:
            return  # it has ended, which its own event reports
        try:
            await self.controller.start(plan)
        except LlmtopError as error:
            self._engines.report("error", f"no load: {error.message}")

    def release(self) -> None:
        """End the load's workers, also after a failure of the screen. May be called twice."""
        self.experiments.release()
        for load in (self.load_source.starting, self.load_source.load):
            if load is not None:
                load.close()

    def running_engine_lines(self) -> list[str]:
        """The lines to print after the screen is closed: the engines that still run."""
        lines = []
        for track in self.store.engines.values():
            if not track.owned:
                continue
            status = self._wiring.supervisor.status(self._wiring.supervisor.find(track.name))
            if status.state in (State.STARTING, State.READY, State.UNRESPONSIVE):
                lines.append(
                    f"{track.name} keeps running at {track.url}; "
                    f"`llmtop` shows it again, `llmtop stop {track.name}` ends it"
                )
        return lines

    def _selected(self) -> EngineSource | None:
        return self._engines.named(self.store.selected)

    def _request_repaint(self) -> None:
        self.repaint()

"""What the recorder looks at: engines, their state, and the loads that other llmtops send."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import TYPE_CHECKING

from llmtop.engines.host.safe_text import clean
from llmtop.operations.wiring import Wiring
from llmtop.tui.dashboard.engine_discovery import NewEngines
from llmtop.tui.dashboard.engine_sources import open_source
from llmtop.tui.sources.effects import EffectSource
from llmtop.tui.sources.engine import EngineSource
from llmtop.tui.sources.load_state import EngineStates
from llmtop.tui.sources.sampling import Sampling, Source
from llmtop.tui.sources.shared_load import SharedLoadSource
from llmtop.tui.store.store import Event, Store
from llmtop.tui.store.timeline import Timeline

if TYPE_CHECKING:
    from llmtop.engines.core.endpoint import Endpoint
    from llmtop.operations.insight.engine_insight import EngineInsight
    from llmtop.operations.monitoring.recorder_export import RecorderExport
    from llmtop.tui.sources.insight import InsightSource

SCAN_S = 0.9  # no second of a new engine is lost


class RecordedEngines:
    """The recorder's part of a dashboard: no load, no experiment, no GPU. ``sampling`` is beaten
    and closed by its owner."""

    def __init__(self, wiring: Wiring, interval: float = 1.0) -> None:
        self._wiring = wiring
        self.store, self.timeline = Store(), Timeline()
        self._known: set[str] = set()
        self._insights: InsightSource | None = None
        now = self.timeline.now
        self._states = EngineStates(self.store, now, self._insight)
        loads = SharedLoadSource(self.store, now, wiring.state.folder)
        self.sampling = Sampling(
            [EffectSource(self.store, now), loads], interval, on_fault=self._fault
        )
        for record in wiring.supervisor.records():
            if record.ended_at is None:
                self.add(wiring.of(record))
        found = NewEngines(wiring, self.add, self._known, every_s=SCAN_S)
        self.sampling.sources.append(found)

    def add(self, endpoint: Endpoint) -> None:
        """Look at one more engine."""
        self._known.add(endpoint.name)
        source = open_source(
            self._wiring,
            endpoint,
            self.store,
            self.timeline.now,
            judge=self._states.observe,
            recorder=True,
        )
        self.sampling.sources.append(source)

    def drop_ended(self, living: Collection[str]) -> None:
        """Look no longer at engines of llmtop that have ended: it may run for weeks."""
        for track in list(self.store.engines.values()):
            if track.name not in living and not track.runs and track.status is not None:
                self.drop(track.name)

    def drop(self, name: str) -> None:
        """Look no longer at an engine."""
        source = self._named(name)
        if source is None:
            return
        self.sampling.sources.remove(source)
        self.store.engines.pop(name, None)
        self._known.discard(name)
        asyncio.get_running_loop().create_task(source.close())

    def serve(self, export: RecorderExport) -> None:
        """Serve metrics too: GPUs, steps and causes are then read as well."""
        from llmtop.tui.monitoring.export_source import ExportSource
        from llmtop.tui.monitoring.watches import Watches
        from llmtop.tui.sources.cost import CostSource
        from llmtop.tui.sources.gpu import GpuSource
        from llmtop.tui.sources.insight import InsightSource

        store, now = self.store, self.timeline.now
        self._insights = InsightSource(store, self._named)
        self._insights.judge = self._states.explain
        watches = Watches(store, self._insights, self._wiring, count_orphans=True)
        self.sampling.sources += [
            GpuSource(self._wiring.screen_gpus(), store),
            self._insights,
            CostSource(store, now),
            ExportSource(store, watches, export, now),
        ]

    def _named(self, name: str | None) -> EngineSource | None:
        sources = (one for one in self.sampling.sources if isinstance(one, EngineSource))
        return next((one for one in sources if one.track.name == name), None)

    def _insight(self, name: str) -> EngineInsight | None:
        return None if self._insights is None else self._insights.of(name)

    def _fault(self, source: Source, error: Exception) -> None:
        text = f"a fault in {type(source).__name__}: {type(error).__name__}: {error}"
        self.store.events.append(Event(self.timeline.now(), "error", clean(text)))

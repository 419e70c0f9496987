"""What the recorder samples: engines, their state, and the loads that other llmtops send."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import TYPE_CHECKING

from llmtop.operations.wiring import Wiring
from llmtop.tui.dashboard.engine_discovery import NewEngines
from llmtop.tui.dashboard.observed_engines import ObservedEngines
from llmtop.tui.sources.effects import EffectSource
from llmtop.tui.sources.history import PostedEvents
from llmtop.tui.sources.shared_load import SharedLoadSource

if TYPE_CHECKING:
    from llmtop.operations.monitoring.recorder_export import RecorderExport

SCAN_S = 0.9  # interval of the search for new engines: below 1 s, so that no second is lost


class RecordedEngines(ObservedEngines):
    """The engines that the recorder samples. It sends no load and runs no experiment.

    GPUs and steps are read only after ``serve``.
    """

    def __init__(self, wiring: Wiring) -> None:
        super().__init__(wiring, recorder=True)
        store, now = self.store, self.timeline.now
        self.sampling.sources += [
            EffectSource(store, now),
            SharedLoadSource(store, now, wiring.state.folder),
            PostedEvents(store, now, wiring.state.folder),
        ]
        for record in wiring.supervisor.records():
            if record.ended_at is None:
                self.add(wiring.of(record))
        found = NewEngines(wiring, self.add, self.known, every_s=SCAN_S)
        self.sampling.sources.append(found)

    def drop_ended(self, living: Collection[str]) -> None:
        """Stop sampling engines of llmtop that have ended. living: the names of those that run.

        A recorder can run for weeks, so ended engines would use more and more memory.
        """
        for track in list(self.store.engines.values()):
            if track.name not in living and not track.runs and track.status is not None:
                self.drop(track.name)

    def drop(self, name: str) -> None:
        """Stop sampling an engine. An unknown name is ignored."""
        source = self.named(name)
        if source is None:
            return
        self.sampling.sources.remove(source)
        self.store.engines.pop(name, None)
        self.known.discard(name)
        asyncio.get_running_loop().create_task(source.close())

    def serve(self, export: RecorderExport) -> None:
        """Also export metrics. GPUs, scheduler steps and causes are then read as well."""
        from llmtop.tui.monitoring.export_source import ExportSource
        from llmtop.tui.monitoring.watches import Watches
        from llmtop.tui.sources.cost import CostSource
        from llmtop.tui.sources.gpu import GpuSource

        store, now = self.store, self.timeline.now
        watches = Watches(store, self.insights, self._wiring, count_orphans=True)
        self.sampling.sources += [
            GpuSource(self._wiring.screen_gpus(), store),
            self.insights,
            CostSource(store, now),
            ExportSource(store, watches, export, now),
        ]

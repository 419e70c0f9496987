"""A source that follows every engine of the store, for the exporter and for alert rules."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from llmtop.engines.host.orphans import find_orphans
from llmtop.operations.slo.holders import FILE, holder_of
from llmtop.tui.monitoring.engine_facts import facts
from llmtop.tui.monitoring.engine_watch import EngineWatch

if TYPE_CHECKING:
    from llmtop.engines.core.steps import Steps
    from llmtop.exporter.facts import EngineFacts
    from llmtop.operations.slo.holders import HolderState
    from llmtop.operations.wiring import Wiring
    from llmtop.tui.sources.insight import InsightSource
    from llmtop.tui.store.store import EngineTrack, Store

ORPHANS_EVERY_S = 30.0


class Watches:
    """An ``EngineWatch`` for each engine.

    count_orphans: also count processes that ended engines left behind, every 30 s, because it reads
    all processes. steady: monotonic seconds. orphans: their number; None: not counted.
    """

    def __init__(
        self,
        store: Store,
        insights: InsightSource,
        wiring: Wiring,
        *,
        count_orphans: bool = False,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._insights, self._wiring = store, insights, wiring
        self._insights.on_steps = self._count_steps
        self._steady = steady
        self._orphans_due = 0.0 if count_orphans else float("inf")
        self.engines: dict[str, EngineWatch] = {}
        self.orphans: int | None = None

    async def sample(self) -> None:
        """Read every engine once, concurrently."""
        store = self._store
        for name in [name for name in self.engines if name not in store.engines]:
            del self.engines[name]
        for name in store.engines:
            self._watch(name)
        await asyncio.gather(*(self._observe(track, watch) for track, watch in self.tracks()))
        await self._count_orphans()

    async def close(self) -> None:
        """Do nothing: no resource is held."""

    def tracks(self) -> list[tuple[EngineTrack, EngineWatch]]:
        """Every engine of the store with its watch."""
        found = self._store.engines
        return [(found[name], one) for name, one in self.engines.items() if name in found]

    def facts(self, gpu_hour: float | None = None) -> list[EngineFacts]:
        """The facts to export, of each engine. gpu_hour: price of one GPU hour; None: no price."""
        return [facts(track, watch, gpu_hour) for track, watch in self.tracks()]

    async def _observe(self, track: EngineTrack, watch: EngineWatch) -> None:
        await watch.observe(track, await self._hold(track))

    def _watch(self, name: str) -> EngineWatch:
        if name not in self.engines:
            self.engines[name] = EngineWatch(lambda: self._insights.of(name))
        return self.engines[name]

    def _count_steps(self, name: str, steps: Steps) -> None:
        self._watch(name).totals.add(steps)

    async def _hold(self, track: EngineTrack) -> HolderState | None:
        folder = self._wiring.state.folder(track.name) if track.owned else None
        # Usually there is no holder: this check needs no thread.
        if folder is None or not (folder / FILE).exists():
            return None
        return await asyncio.to_thread(holder_of, folder)

    async def _count_orphans(self) -> None:
        if self._steady() < self._orphans_due:
            return
        self._orphans_due = self._steady() + ORPHANS_EVERY_S
        pids = {one.pid for one in self._wiring.state.scan()[0] if one.ended_at is None}
        self.orphans = len(await asyncio.to_thread(find_orphans, self._wiring.processes, pids))

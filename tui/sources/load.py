"""The source that writes the load's figures into the store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from llmtop.analysis.series import SeriesName
from llmtop.engines.core.records import State
from llmtop.loadgen.workload.plan import Loop
from llmtop.tui.store.store import EngineTrack, Event, Store

if TYPE_CHECKING:
    from llmtop.loadgen.core.results import LoadSnapshot
    from llmtop.loadgen.workers.load import Load

STAYS_STOPPED_S = 5.0  # a restart by another process is "stopped" for a much shorter time

CLIENT = (
    SeriesName.CLIENT_TTFT_P50,
    SeriesName.CLIENT_TTFT_P95,
    SeriesName.CLIENT_TTFT_P99,
    SeriesName.CLIENT_ITL_P95,
    SeriesName.OLDEST_WAIT,
    SeriesName.ASKED,
    SeriesName.ACHIEVED,
)


class LoadSource:
    """Updates ``Store.load``, and the client's series on the track of the loaded engine.

    load: the load on the screen; None: none. starting: a load whose workers are starting.
    """

    def __init__(self, store: Store, now: Callable[[], float]) -> None:
        self.load: Load | None = None
        self.starting: Load | None = None
        self._store = store
        self._now = now
        self._stopped_since: float | None = None

    async def sample(self) -> None:
        """Take a snapshot, if there is a load."""
        if self.load is None:
            return
        snapshot = self.load.snapshot()
        self._store.load = snapshot
        track = self._store.engines.get(self._store.load_target or "")
        if track is None:
            return
        now = self._now()
        idle = not snapshot.running and snapshot.in_flight == 0
        closed = snapshot.loop == Loop.CLOSED
        served = float(max(0, snapshot.in_flight - snapshot.waiting_first))
        achieved = served if closed else snapshot.requests_per_s
        values = (
            snapshot.ttft.p50,
            snapshot.ttft.p95,
            snapshot.ttft.p99,
            snapshot.itl.p95,
            snapshot.oldest_wait_s,
            None if idle else snapshot.asked,
            None if idle else achieved,
        )
        for name, value in zip(CLIENT, values, strict=True):
            track.record(name, now, value)
        self._stop_with_engine(self.load, snapshot, track)

    def _stop_with_engine(self, load: Load, snapshot: LoadSnapshot, track: EngineTrack) -> None:
        """Stop the load if another process stopped the engine, whose port may soon be reused.

        The load on an engine that failed continues, because the engine may be restarted.
        """
        state = track.status.state if track.status is not None else None
        if state is not State.STOPPED or not snapshot.running:
            self._stopped_since = None
            return
        now = self._now()
        if self._stopped_since is None:
            self._stopped_since = now
        elif now - self._stopped_since >= STAYS_STOPPED_S:
            load.stop(drain=False)
            words = f"load stopped: {track.name} was stopped"
            self._store.events.append(Event(now, "info", words))

    def detach(self) -> None:
        """Forget the load, which its owner closes; keep the last figures, followed by a gap."""
        load, self.load = self.load, None
        if load is None:
            return
        self._store.load = load.snapshot()
        track = self._store.engines.get(self._store.load_target or "")
        if track is not None:
            for name in CLIENT:
                track.record(name, self._now(), None)

    async def close(self) -> None:
        """End the load's workers."""
        if self.load is not None:
            await asyncio.to_thread(self.load.close)
            self.load = None

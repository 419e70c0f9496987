"""Computes the cost of each engine's tokens."""

from __future__ import annotations

from collections.abc import Callable

from llmtop.analysis.cost import CostMeter
from llmtop.analysis.series import SeriesName
from llmtop.tui.store.store import EngineTrack, Store


class CostSource:
    """Updates ``EngineTrack.cost`` from an engine's rates and its GPUs, at each sample."""

    def __init__(self, store: Store, now: Callable[[], float]) -> None:
        self._store, self._now = store, now
        self._meters: dict[str, CostMeter] = {}
        self._pids: dict[str, int] = {}

    async def sample(self) -> None:
        """Update the cost of every engine from the newest samples."""
        for removed in self._meters.keys() - self._store.engines.keys():
            del self._meters[removed]
            self._pids.pop(removed, None)
        for name, track in self._store.engines.items():
            meter = self._meters.setdefault(name, CostMeter())
            pid = track.status.record.pid if track.status is not None else 0
            restarted = track.sample is not None and track.sample.restarted
            if restarted or self._pids.get(name, pid) != pid:
                meter.reset()
            self._pids[name] = pid
            self._note(meter, track)

    async def close(self) -> None:
        """Do nothing: no resource is held."""

    def _note(self, meter: CostMeter, track: EngineTrack) -> None:
        sample = track.sample
        if sample is None or track.stale_since is not None:
            return
        rates = track.series.get(SeriesName.OUTPUT_TOKENS)
        track.cost = meter.add(
            self._now(),
            rates.last if rates is not None else None,
            sample.kv_usage,
            [gpu for gpu in self._store.gpus if track.is_on(gpu, self._store.gpus)],
            track.memory_report.kv if track.memory_report is not None else None,
        )

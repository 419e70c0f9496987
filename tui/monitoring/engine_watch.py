"""The totals of one engine between two readings: steps, restarts, changes, longest wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from llmtop.exporter.step_totals import StepTotals

if TYPE_CHECKING:
    from llmtop.engines.core.latencies import LatencyHistogram
    from llmtop.engines.core.options import OptionValue
    from llmtop.operations.insight.engine_insight import EngineInsight
    from llmtop.operations.slo.holders import HolderState
    from llmtop.tui.store.store import EngineTrack

OLDEST_EVERY_S = 5.0  # the engine searches its queue on its own thread
NO_OPTION = "none"  # label for actions of a hold that change no option


class EngineWatch:
    """Follows one engine. insight: its steps and latencies, None before the first reading.

    steady: monotonic seconds. wall: unix seconds.
    """

    def __init__(
        self,
        insight: Callable[[], EngineInsight | None],
        steady: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._insight, self._steady = insight, steady
        self.totals = StepTotals()
        self.restarts = 0
        self.changes: dict[str, int] = {}
        self.options: Mapping[str, OptionValue] = {}
        self.cause = ""
        self.oldest_wait_s: float | None = None
        self.hold: HolderState | None = None
        self.hold_actions: dict[str, int] = {}
        self._acted = wall()  # earlier actions are not counted
        self._pid: int | None = None
        self._oldest_due = 0.0

    async def observe(self, track: EngineTrack, hold: HolderState | None = None) -> None:
        """Update the totals from the track. hold: the current hold of the engine; None: none."""
        record = track.status.record if track.status is not None else None
        if record is not None:
            if self._pid is not None and record.pid != self._pid:
                self.restarts += 1
            self._pid = record.pid or self._pid
            self.cause = record.cause or self.cause
        now = {one.spec.name: one.value for one in track.options}
        for name, value in now.items():
            if name in self.options and self.options[name] != value:
                self.changes[name] = self.changes.get(name, 0) + 1
        self.options = {**self.options, **now}
        self._count_actions(hold)
        await self._read_queue(track)

    @property
    def latencies(self) -> Mapping[str, LatencyHistogram]:
        """Exact distributions since the engine started, by name; empty if it shows none."""
        insight = self._insight()
        found = insight.latencies if insight is not None else None
        return found.histograms if found is not None else {}

    @property
    def shows_steps(self) -> bool:
        """Whether the engine shows its steps."""
        insight = self._insight()
        return insight is not None and insight.shows_steps

    def recent(self, name: str) -> LatencyHistogram | None:
        """An exact distribution of the last seconds; None if the engine shows none."""
        insight = self._insight()
        return insight.recent(name) if insight is not None else None

    def _count_actions(self, hold: HolderState | None) -> None:
        self.hold = hold
        for action in hold.recent if hold is not None else ():
            if action.time > self._acted:
                self._acted = action.time
                name = action.option or NO_OPTION
                self.hold_actions[name] = self.hold_actions.get(name, 0) + 1

    async def _read_queue(self, track: EngineTrack) -> None:
        waiting = track.sample.waiting if track.sample is not None else None
        if not waiting:
            self.oldest_wait_s = 0.0 if waiting == 0 else None
            return
        insight = self._insight()
        if insight is None or self._steady() < self._oldest_due:
            return
        self._oldest_due = self._steady() + OLDEST_EVERY_S
        self.oldest_wait_s = await insight.longest_wait_s()

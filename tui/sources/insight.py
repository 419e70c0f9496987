"""Reads the engines' steps for the panels and for the causes of the load state."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from llmtop.engines.core.records import State
from llmtop.operations.inside import inside_of
from llmtop.operations.insight.engine_insight import EngineInsight, Inside
from llmtop.operations.insight.reported_steps import ReportedSteps
from llmtop.tui.store.store import EngineTrack, Store

if TYPE_CHECKING:
    from llmtop.engines.core.steps import Steps
    from llmtop.tui.sources.engine import EngineSource

EVERY_S = 0.5  # shortest time between two readings of an engine's steps
Identity = tuple[int, int]


class InsightSource:
    """Reads the steps of every engine once a beat. After a restart it reads the new process.

    find: the source of an engine, by its name. steady: monotonic seconds. judge: called after each
    reading. on_steps: called with the name of an engine and its new steps; those from before the
    first reading are left out.
    """

    def __init__(
        self,
        store: Store,
        find: Callable[[str], EngineSource | None],
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._find, self._steady = store, find, steady
        self.judge: Callable[[EngineTrack], None] = lambda track: None
        self.on_steps: Callable[[str, Steps], None] = lambda name, steps: None
        self._known: dict[str, tuple[Identity, EngineInsight]] = {}
        self._due: dict[str, float] = {}

    def of(self, name: str) -> EngineInsight | None:
        """The steps and latencies of an engine; None before the first reading."""
        known = self._known.get(name)
        return known[1] if known is not None else None

    async def sample(self) -> None:
        """Read the steps of every engine that is due."""
        for track in list(self._store.engines.values()):
            if self._steady() >= self._due.get(track.name, 0.0):
                self._due[track.name] = self._steady() + EVERY_S * 0.9
                await self._observe(track)

    async def close(self) -> None:
        """Cancel the readings in progress."""
        for _, insight in self._known.values():
            insight.close()
        self._known.clear()

    async def _observe(self, track: EngineTrack) -> None:
        status = track.status
        if status is not None and status.state not in (State.READY, State.UNRESPONSIVE):
            self._forget(track)
            return
        record = status.record if status is not None else None
        identity = (record.pid, record.start_ticks) if record is not None else (0, 0)
        known = self._known.get(track.name)
        if known is None or known[0] != identity:
            self._forget(track)
            known = self._known[track.name] = (identity, self._open(track.name))
        insight = known[1]
        await insight.read(track.sample.kv_usage if track.sample is not None else None)
        track.steps = insight.history if insight.history.steps else None
        track.steps_missing = insight.missing.get("steps", "")
        self.judge(track)

    def _open(self, name: str) -> EngineInsight:
        source = self._find(name)
        if source is None:
            return EngineInsight(None)
        inside: Inside | None = inside_of(source.session.endpoint)
        if inside is None and (found := source.session.reported_steps) is not None:
            inside = ReportedSteps(lambda: source.session.reported_steps or found)
        # The session reads the latencies each second; a second reader would double the cost.
        return EngineInsight(
            inside,
            exact=lambda: source.session.exact,
            on_steps=lambda steps: self.on_steps(name, steps),
        )

    def _forget(self, track: EngineTrack) -> None:
        known = self._known.pop(track.name, None)
        if known is not None:
            known[1].close()
        track.steps, track.why = None, None

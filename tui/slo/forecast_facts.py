"""The inputs of a forecast, from the steps that the dashboard reads already."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from llmtop import LlmtopError
from llmtop.tui.store.store import EngineTrack, Store

if TYPE_CHECKING:
    from llmtop.engines.core.requests import RequestTable
    from llmtop.operations.insight.engine_insight import EngineInsight
    from llmtop.operations.slo.fitted_engine import EngineReadings, FittedEngine
    from llmtop.tui.sources.engine import EngineSource

ROWS = 50  # of the request table that are read
NO_STEPS = "the engine shows no steps yet"


class ForecastFacts:
    """Collects the inputs of forecasts.

    find: the source of an engine, by its name. inside: its steps and latencies; None if they are
    not read.
    """

    def __init__(
        self,
        store: Store,
        find: Callable[[str | None], EngineSource | None],
        inside: Callable[[str], EngineInsight | None],
    ) -> None:
        self._store, self._find, self._inside = store, find, inside

    def insight(self, engine: str) -> EngineInsight | None:
        """The steps and latencies of an engine; None if they are not read."""
        return self._inside(engine)

    async def known(self, engine: str) -> FittedEngine:
        """Fit a model to the newest steps. Raises LlmtopError with the reason if it cannot."""
        from llmtop.forecast.estimates import NotFitted
        from llmtop.operations.slo.fitted_engine import fit_engine

        read = await self.read(engine)
        try:
            return await asyncio.to_thread(fit_engine, read)
        except NotFitted as error:
            raise LlmtopError(error.reason, error.remedy) from None

    async def read(self, engine: str) -> EngineReadings:
        """The inputs of a fit. Raises LlmtopError for an engine that shows no steps."""
        from llmtop.engines.logs.memory_report import MemoryReport
        from llmtop.operations.slo.fitted_engine import (
            FIT_S,
            EngineReadings,
            newest,
            seconds_of_context,
            seconds_of_weights,
        )

        source, insight = self._find(engine), self._inside(engine)
        track = self._store.engines.get(engine)
        if source is None or track is None:
            raise LlmtopError(f"{engine} is not on this screen")
        if insight is None or track.steps is None:
            raise LlmtopError(track.steps_missing or NO_STEPS)
        tokens = track.sample.kv_tokens_total if track.sample is not None else None
        steps = newest(list(insight.history.steps), FIT_S)
        memory_report, bandwidth = track.memory_report or MemoryReport(), self._bandwidth(track)
        return EngineReadings(
            name=engine,
            simulated=track.simulated,
            steps=steps,
            options=track.options,
            kv_tokens=tokens,
            context_s=seconds_of_context(
                memory_report.kv, tokens, len({one.rank for one in steps}), bandwidth
            ),
            weights_s=seconds_of_weights(memory_report.weights, bandwidth),
            table=await self._table(source),
            latencies=insight.latencies,
            streams=self._streams(track),
        )

    @staticmethod
    async def _table(source: EngineSource) -> RequestTable | None:
        from llmtop.operations.inside import require_inside

        with suppress(LlmtopError):
            inside = require_inside(source.session.endpoint)
            try:
                return await inside.requests("age", ROWS)
            finally:
                inside.close()
        return None

    def _bandwidth(self, track: EngineTrack) -> float | None:
        from llmtop.operations.slo.fitted_engine import (
            bandwidth_of,
            bandwidth_of_all,
            simulated_gpu,
        )

        if track.simulated:
            record = track.status.record if track.status is not None else None
            return bandwidth_of(simulated_gpu(record))
        gpus = self._store.gpus
        names = {gpu.name for gpu in gpus if track.is_on(gpu, gpus)}
        return bandwidth_of_all(names or {gpu.name for gpu in gpus})

    def _streams(self, track: EngineTrack) -> float | None:
        """The number of streams of the load on the engine; None: no closed loop, or not known."""
        load = self._store.load
        if load is not None and load.running and self._store.load_target == track.name:
            return load.asked or None if load.loop == "closed" else None
        shared = track.shared_load
        if shared is not None and shared.running and shared.loop == "closed":
            return shared.asked or None
        return None

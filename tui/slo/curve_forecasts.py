"""Forecasts of an engine's throughput at each number of streams, for a search."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from llmtop.printable import clean
from llmtop.tui.commands.control import refusal
from llmtop.tui.commands.forecast_requests import CurveForecast, CurveQuestion, ForecastPoint
from llmtop.tui.slo.forecast_facts import ForecastFacts
from llmtop.tui.store.store import Store
from llmtop.values import replace

if TYPE_CHECKING:
    from llmtop.forecast.knee_forecast import KneeForecast
    from llmtop.tui.slo.worker import Draw


class CurveForecasts:
    """Updates ``Store.curve_forecast``. Forecasts are computed one after the other.

    repaint: called to paint a forecast at once. knee: replaces
    ``forecast.knee_forecast.knee``, the default.
    """

    def __init__(
        self,
        store: Store,
        facts: ForecastFacts,
        repaint: Callable[[], None],
        knee: Callable[..., KneeForecast] | None = None,
    ) -> None:
        self._store, self._facts, self._repaint, self._knee = store, facts, repaint, knee
        self._task: asyncio.Task[None] | None = None
        self._next: CurveQuestion | None = None

    def ask(self, question: CurveQuestion) -> None:
        """Compute this forecast after the running one. It replaces one that still waits."""
        found = self._store.curve_forecast
        if found is not None and found.question == question:
            return
        self._next = question
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())

    async def sample(self) -> None:
        """Do nothing: the screen of a search calls ``ask``."""

    async def close(self) -> None:
        """Cancel the running and the waiting forecast."""
        if self._task is not None:
            self._task.cancel()
        self._task = self._next = None

    async def _work(self) -> None:
        while (question := self._next) is not None:
            self._next = None
            try:
                found = await self._forecast(question)
            except Exception as error:
                found = CurveForecast(question, refused=clean(refusal(error)))
            self._store.curve_forecast = merged(self._store.curve_forecast, found)
            self._repaint()

    async def _forecast(self, question: CurveQuestion) -> CurveForecast:
        from llmtop.forecast.knee_forecast import knee
        from llmtop.forecast.load import Load
        from llmtop.operations.slo.ask import assumed
        from llmtop.tui.slo.worker import on_thread

        known = await self._facts.known(question.engine)
        load = Load("closed", 1.0, assumed(question.prompt), assumed(question.output))

        def work(draw: Draw) -> KneeForecast:
            make = self._knee or knee
            return make(known.fit, known.front_end, known.settings, load, question.top, run=draw)

        found = await on_thread(work)
        points = []
        for one in found.curve:
            rate = one.output_tokens_per_s
            points.append(ForecastPoint(one.streams, rate.value, rate.low, rate.high))
        streams = found.streams.value if found.streams is not None else None
        refused = found.refused.reason if found.refused is not None else ""
        return CurveForecast(question, tuple(points), streams, refused)


def merged(before: CurveForecast | None, found: CurveForecast) -> CurveForecast:
    """Merge a new forecast into the one before.

    Points of measured levels are kept from before: a forecast that knows the result is no forecast.
    The points above are replaced.
    """
    if before is None or not _same(before.question, found.question):
        return found
    edge = found.question.measured
    kept = [one for one in before.points if one.streams <= edge]
    new = [one for one in found.points if one.streams > max(edge, _last(kept))]
    if not new and found.refused and not found.points:
        return replace(before, question=found.question)
    return replace(found, points=(*kept, *new))


def _last(points: Sequence[ForecastPoint]) -> int:
    return points[-1].streams if points else 0


def _same(a: CurveQuestion, b: CurveQuestion) -> bool:
    """Whether both belong to one search. A search that was started again has measured less."""
    return a.same_search(b) and b.measured >= a.measured

"""What the changes that the why screen advises would bring, by the forecast."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from llmtop.printable import clean
from llmtop.tui.commands.control import refusal
from llmtop.tui.slo.forecast_facts import ForecastFacts
from llmtop.tui.store.store import Store

if TYPE_CHECKING:
    from llmtop.diagnosis.causes import Explanation, Knob
    from llmtop.tui.slo.worker import Draw

FRESH_S = 15.0  # the engine's state has changed by then
Forecast = Callable[..., "Explanation"]


class WhyForecasts:
    """Keeps ``EngineTrack.why_forecasts``. One engine at a time, while its why screen asks.

    now: the screen's clock. forecast: as ``knob_forecast.forecast_knobs``, which it is by default.
    """

    def __init__(
        self,
        store: Store,
        facts: ForecastFacts,
        now: Callable[[], float],
        news: Callable[[], None],
        forecast: Forecast | None = None,
    ) -> None:
        self._store, self._facts, self._now, self._news = store, facts, now, news
        self._given = forecast
        self._task: asyncio.Task[None] | None = None
        self._told: tuple[str, float, tuple[Knob, ...]] | None = None

    def ask(self, engine: str) -> None:
        """Answer for what is advised now, unless that was just done or is under way."""
        track = self._store.engines.get(engine)
        if track is None or track.why is None or (self._task and not self._task.done()):
            return
        knobs = _changes(track.why)
        if self._is_told(engine, knobs):
            return
        self._told = engine, self._now(), knobs
        if knobs:
            self._task = asyncio.create_task(self._work(engine, track.why))

    def _is_told(self, engine: str, knobs: tuple[Knob, ...]) -> bool:
        before = self._told
        same = before is not None and (before[0], before[2]) == (engine, knobs)
        return same and before is not None and 0 <= self._now() - before[1] < FRESH_S

    async def sample(self) -> None:
        """Nothing: the why screen asks."""

    async def close(self) -> None:
        """Withdraw what is asked."""
        if self._task is not None:
            self._task.cancel()
        self._task = None

    async def _work(self, engine: str, why: Explanation) -> None:
        from llmtop.operations.insight.knob_forecast import forecast_knobs, without_forecasts
        from llmtop.tui.slo.worker import on_thread

        make = self._given or forecast_knobs
        try:
            known = await self._facts.known(engine)

            def work(draw: Draw) -> Explanation:
                return make(why, known, run=draw)

            found = await on_thread(work)
        except Exception as error:
            found = without_forecasts(why, clean(refusal(error)))
        track = self._store.engines.get(engine)
        if track is not None:
            made = (cause.knob for cause in found.causes if cause.knob is not None)
            track.why_forecasts = tuple(made)
            self._news()


def _changes(why: Explanation) -> tuple[Knob, ...]:
    """The advised changes without what is expected of them, which differs at each look."""
    from msgspec.structs import replace

    knobs = (cause.knob for cause in why.causes if cause.knob is not None)
    return tuple(replace(knob, expected={}, basis="") for knob in knobs)

"""Forecasts of the effect of the changes that the why screen advises."""

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

FRESH_S = 15.0  # after this the engine's state may differ: forecast again
Forecast = Callable[..., "Explanation"]


class WhyForecasts:
    """Updates ``EngineTrack.why_forecasts``, of one engine at a time, while its why screen is open.

    now: the screen's clock. repaint: called to paint a forecast at once. forecast:
    replaces ``knob_forecast.forecast_knobs``, the default.
    """

    def __init__(
        self,
        store: Store,
        facts: ForecastFacts,
        now: Callable[[], float],
        repaint: Callable[[], None],
        forecast: Forecast | None = None,
    ) -> None:
        self._store, self._facts, self._now, self._repaint = store, facts, now, repaint
        self._forecast_with = forecast
        self._task: asyncio.Task[None] | None = None
        self._last: tuple[str, float, tuple[Knob, ...]] | None = None

    def ask(self, engine: str) -> None:
        """Forecast the advised changes, unless a forecast of them is recent or in progress."""
        track = self._store.engines.get(engine)
        if track is None or track.why is None or (self._task and not self._task.done()):
            return
        knobs = _changes(track.why)
        if self._is_answered(engine, knobs):
            return
        self._last = engine, self._now(), knobs
        if knobs:
            self._task = asyncio.create_task(self._work(engine, track.why))

    def _is_answered(self, engine: str, knobs: tuple[Knob, ...]) -> bool:
        before = self._last
        same = before is not None and (before[0], before[2]) == (engine, knobs)
        return same and before is not None and 0 <= self._now() - before[1] < FRESH_S

    async def sample(self) -> None:
        """Do nothing: the why screen calls ``ask``."""

    async def close(self) -> None:
        """Cancel the forecast in progress."""
        if self._task is not None:
            self._task.cancel()
        self._task = None

    async def _work(self, engine: str, why: Explanation) -> None:
        from llmtop.operations.insight.knob_forecast import forecast_knobs, without_forecasts
        from llmtop.tui.slo.worker import on_thread

        make = self._forecast_with or forecast_knobs
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
            self._repaint()


def _changes(why: Explanation) -> tuple[Knob, ...]:
    """The advised changes without their expected effects, which differ at each reading."""
    from msgspec.structs import replace

    knobs = (cause.knob for cause in why.causes if cause.knob is not None)
    return tuple(replace(knob, expected={}, basis="") for knob in knobs)

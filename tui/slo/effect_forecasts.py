"""Forecasts of the effect of another option value, and the measured effect after a change."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from llmtop.printable import clean
from llmtop.tui.commands.control import refusal
from llmtop.tui.commands.effect_words import compared_words
from llmtop.tui.commands.forecast_requests import EffectForecast, EffectQuestion
from llmtop.tui.slo.effect_meter import EffectMeter
from llmtop.tui.slo.forecast_facts import ForecastFacts
from llmtop.tui.store.store import Event, Store
from llmtop.values import replace

if TYPE_CHECKING:
    from llmtop.forecast.questions import Answer
    from llmtop.operations.slo.ask import Forecast
    from llmtop.operations.slo.fitted_engine import FittedEngine
    from llmtop.tui.slo.worker import Draw

PAUSE_S = 0.3  # without typing, before a forecast is computed
FRESH_S = 8.0  # for which one reading of the engine is used for all typed values

Sleep = Callable[[float], Awaitable[None]]


class EffectForecasts:
    """Updates ``Store.effect``. Only the newest question is answered.

    now: the screen's clock. repaint: called to paint before the next beat.
    answer: replaces ``operations.slo.ask.answer``, the default.
    """

    def __init__(
        self,
        store: Store,
        facts: ForecastFacts,
        now: Callable[[], float],
        repaint: Callable[[], None],
        sleep: Sleep = asyncio.sleep,
        answer: Callable[..., Forecast] | None = None,
    ) -> None:
        self._store, self._facts, self._now, self._repaint = store, facts, now, repaint
        self._sleep, self._answer_with = sleep, answer
        self._task: asyncio.Task[None] | None = None
        self._known: tuple[str, float, FittedEngine] | None = None  # engine, time of the reading
        self._present: tuple[FittedEngine, str, Answer] | None = None  # model, limits, answer
        self._meter: EffectMeter | None = None

    def ask(self, question: EffectQuestion) -> None:
        """Answer a question after a pause in typing. It replaces the question before."""
        before = self._store.effect
        if before is not None and before.question == question and before.since is None:
            return
        self._drop()
        self._store.effect = EffectForecast(question)
        self._task = asyncio.create_task(self._answer(question))

    def forget(self) -> None:
        """Withdraw the question. The effect of a value that was set is still measured."""
        if self._store.effect is not None and self._store.effect.since is None:
            self._drop()

    def applied(self, engine: str, option: str) -> None:
        """Start to measure the effect of an option that was just set."""
        found = self._store.effect
        if found is None or (found.question.engine, found.question.option) != (engine, option):
            return
        too_late = found.computing and (self._known is None or self._known[0] != engine)
        if too_late or found.refused or found.since is not None:
            self._drop()
            self._known = None
            return
        if not found.computing:
            self._known = None
        self._store.effect = replace(found, since=self._now())
        self._meter = EffectMeter(self._store, self._facts, found.question, self._now())

    async def sample(self) -> None:
        """Update the measurement; report its result when it is complete."""
        found, meter = self._store.effect, self._meter
        if meter is None or found is None:
            return
        if found.refused:
            self._meter = None
            return
        if found.computing:  # its data was read before the change
            return
        measured = meter.measure(self._now())
        if measured is None and not meter.over:
            return
        self._meter = None
        if measured is None:
            return
        found = self._store.effect = replace(found, measured=measured)
        words = compared_words(found)
        if words:
            self._store.events.append(Event(self._now(), "effect", " · ".join(words), words))
        self._repaint()

    async def close(self) -> None:
        """Cancel the forecast and the measurement."""
        self._drop()

    def _drop(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._task = self._meter = None
        self._store.effect = None

    async def _answer(self, question: EffectQuestion) -> None:
        await self._sleep(PAUSE_S)
        forecast: Forecast | None = None
        trouble = ""
        try:
            forecast = await self._forecast(question)
        except Exception as error:
            trouble = clean(refusal(error))
        found = self._store.effect
        if found is not None and found.question == question and found.computing:
            self._store.effect = replace(found, forecast=forecast, trouble=trouble)
            if found.since is not None:
                self._known = None
            self._repaint()

    async def _forecast(self, question: EffectQuestion) -> Forecast:
        from llmtop.forecast.figures import Limits
        from llmtop.loadgen.experiments import slo as slos
        from llmtop.operations.slo.ask import Asked, answer
        from llmtop.tui.slo.worker import on_thread

        known = await self._read(question.engine)
        slo = slos.parse(question.slo)
        asked = Asked(
            {question.option: f"{question.value}"},
            limits=Limits(slo.ttft, slo.tpot, slo.e2e),
            knee=False,
        )
        now = self._present_answer(known, question.slo)

        def work(draw: Draw) -> Forecast:
            return (self._answer_with or answer)(known, asked, now=now, run=draw)

        found = await on_thread(work)
        if found.now is not None:
            self._present = known, question.slo, found.now
        return found

    def _present_answer(self, known: FittedEngine, slo: str) -> Answer | None:
        """The answer for the present values, if an earlier question has computed it."""
        before = self._present
        if before is None or before[0] is not known or before[1] != slo:
            return None
        return before[2]

    async def _read(self, engine: str) -> FittedEngine:
        before = self._known
        if before is not None and before[0] == engine and self._now() - before[1] < FRESH_S:
            return before[2]
        known = await self._facts.known(engine)
        self._known = engine, self._now(), known
        return known

"""What the why screen advises is forecast beside the screen, once for each advice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llmtop import LlmtopError
from llmtop.diagnosis.causes import Cause, CauseFound, Explanation, Knob
from llmtop.diagnosis.explanation import with_knobs
from llmtop.diagnosis.state_rules import Level
from llmtop.engines.core.options import Applies
from llmtop.operations.slo.fitted_engine import FittedEngine
from llmtop.tui.slo.why_forecasts import FRESH_S, WhyForecasts
from llmtop.tui.store.store import EngineTrack, Store
from llmtop.values import replace

ADVISED = Knob("max_num_seqs", 16, 24, Applies.LIVE, {"ttft_p50_s": 2.0}, "estimate")


def explained(*knobs: Knob) -> Explanation:
    causes = tuple(CauseFound(Cause.BATCH_LIMIT, 0.5, "batch limit", knob=knob) for knob in knobs)
    return Explanation(0.0, 5.0, Level.SATURATED, ("saturated",), causes)


class Facts:
    """What is known of the engine, or why nothing is."""

    def __init__(self, known: FittedEngine) -> None:
        self._known, self.trouble = known, ""

    async def known(self, engine: str) -> FittedEngine:
        if self.trouble:
            raise LlmtopError(self.trouble)
        return self._known


class Forecasts:
    """Every change is expected to bring a TTFT of 1 s; counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, found: Explanation, known: FittedEngine, **given: Any) -> Explanation:
        self.asked += 1
        knobs = (cause.knob for cause in found.causes if cause.knob is not None)
        made = [replace(one, expected={"ttft_p50_s": 1.0}, basis="forecast") for one in knobs]
        return with_knobs(found, made)


class Bench:
    """A why screen without the screen. now: its clock."""

    def __init__(self, store: Store, known: FittedEngine) -> None:
        self.now, self.told = 100.0, asyncio.Queue[None]()
        self.track: EngineTrack = store.engines["llama"]
        self.track.why = explained(ADVISED)
        self.facts, self.forecasts = Facts(known), Forecasts()
        facts: Any = self.facts
        news = self.told.put_nowait
        self.whys = WhyForecasts(store, facts, lambda: self.now, lambda: news(None), self.forecasts)

    async def answer(self) -> tuple[Knob, ...]:
        self.whys.ask("llama")
        await self.told.get()
        return self.track.why_forecasts


@pytest.fixture
def bench(store: Store, known: FittedEngine) -> Bench:
    return Bench(store, known)


async def test_an_advice_is_forecast_once_and_again_when_it_is_old(bench: Bench) -> None:
    (knob,) = await bench.answer()
    assert (knob.expected, knob.basis) == ({"ttft_p50_s": 1.0}, "forecast")
    estimate = replace(ADVISED, expected={"ttft_p50_s": 9.0})  # the next look estimates anew
    bench.track.why = explained(estimate)
    bench.whys.ask("llama")
    assert bench.forecasts.asked == 1
    bench.now += FRESH_S
    await bench.answer()
    assert bench.forecasts.asked == 2


async def test_another_advice_is_forecast_at_once(bench: Bench) -> None:
    await bench.answer()
    bench.track.why = explained(replace(ADVISED, after=32))
    (knob,) = await bench.answer()
    assert (knob.after, bench.forecasts.asked) == (32, 2)


async def test_without_a_forecast_the_estimate_stays_and_says_why(bench: Bench) -> None:
    bench.facts.trouble = "only 3 steps were seen"
    (knob,) = await bench.answer()
    assert knob.expected == ADVISED.expected
    assert knob.basis == "estimate; no forecast: only 3 steps were seen"


async def test_nothing_is_computed_where_nothing_is_advised(bench: Bench) -> None:
    bench.track.why = explained()
    bench.whys.ask("llama")
    bench.whys.ask("unknown")
    await bench.whys.close()
    assert bench.forecasts.asked == 0 and bench.track.why_forecasts == ()

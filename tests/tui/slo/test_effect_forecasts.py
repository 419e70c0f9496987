"""A value that is typed is forecast on a thread; the newest question alone is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from llmtop import LlmtopError
from llmtop.engines.core.latencies import Latencies, LatencyHistogram, bucket_of
from llmtop.operations.slo.ask import Forecast
from llmtop.operations.slo.fitted_engine import FittedEngine
from llmtop.tui.commands.forecast_requests import EffectQuestion
from llmtop.tui.slo.effect_forecasts import EffectForecasts
from llmtop.tui.slo.worker import Withdrawn, on_thread
from llmtop.tui.store.store import Store
from llmtop.values import replace

SLO = "ttft=1s,tpot=50ms"


class Facts:
    """What is known of the engine, and how often that was asked for."""

    def __init__(self, known: FittedEngine) -> None:
        self._known, self.asked = known, 0
        self.trouble = ""
        self.inside: Any = None

    async def known(self, engine: str) -> FittedEngine:
        self.asked += 1
        if self.trouble:
            raise LlmtopError(self.trouble)
        return self._known

    def insight(self, engine: str) -> Any:
        return self.inside


class Clock:
    """Seconds that are set. Pauses end when ``go`` is set."""

    def __init__(self) -> None:
        self.now, self.go = 100.0, asyncio.Event()

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        await self.go.wait()


@pytest.fixture
def facts(known: FittedEngine) -> Facts:
    return Facts(known)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def told() -> asyncio.Queue[None]:
    return asyncio.Queue()


@pytest.fixture
def effects(
    store: Store,
    facts: Facts,
    clock: Clock,
    told: asyncio.Queue[None],
    quick: Callable[..., Forecast],
) -> EffectForecasts:
    given: Any = facts
    return EffectForecasts(store, given, clock, lambda: told.put_nowait(None), clock.sleep, quick)


def question(value: int, option: str = "max_num_seqs") -> EffectQuestion:
    return EffectQuestion("llama", option, value, SLO)


async def test_only_the_newest_value_is_answered_after_a_pause(
    effects: EffectForecasts, store: Store, facts: Facts, clock: Clock, told: asyncio.Queue[None]
) -> None:
    for value in (1, 16):
        effects.ask(question(value))
        assert store.effect is not None and store.effect.computing
    await asyncio.sleep(0)
    assert facts.asked == 0  # somebody is typing
    clock.go.set()
    await told.get()
    found = store.effect
    assert found is not None and found.question.value == 16 and found.forecast is not None
    assert found.forecast.answer is not None and not found.refused
    assert {"ttft_p95", "tpot_p95", "output_tokens_per_s", "goodput_per_s"} <= set(
        found.forecast.answer.expected
    )
    assert facts.asked == 1 and told.empty()


async def test_what_was_read_and_the_present_serve_the_next_value(
    effects: EffectForecasts, store: Store, facts: Facts, clock: Clock, told: asyncio.Queue[None]
) -> None:
    clock.go.set()
    effects.ask(question(16))
    await told.get()
    assert store.effect is not None and store.effect.forecast is not None
    before = store.effect.forecast.now
    effects.ask(question(32))
    await told.get()
    assert facts.asked == 1
    assert store.effect is not None and store.effect.forecast is not None
    assert store.effect.forecast.now is before
    clock.now += 60
    effects.ask(question(16))
    await told.get()
    assert facts.asked == 2


async def test_nothing_is_left_of_a_value_that_is_no_longer_typed(
    effects: EffectForecasts, store: Store, facts: Facts, clock: Clock
) -> None:
    effects.ask(question(16))
    effects.forget()
    clock.go.set()
    await asyncio.sleep(0)
    assert store.effect is None and facts.asked == 0


@pytest.mark.parametrize(("option", "value"), [("max_num_seqs", 2000), ("max_model_len", 4096)])
async def test_a_refusal_says_why(
    effects: EffectForecasts,
    store: Store,
    clock: Clock,
    told: asyncio.Queue[None],
    option: str,
    value: int,
) -> None:
    clock.go.set()
    effects.ask(question(value, option))
    await told.get()
    assert store.effect is not None and option in store.effect.refused
    effects.applied("llama", option)
    assert store.effect is None  # there is nothing to lay the measured effect beside


async def test_what_cannot_be_read_is_the_reason(
    effects: EffectForecasts, store: Store, facts: Facts, clock: Clock, told: asyncio.Queue[None]
) -> None:
    facts.trouble = "the engine shows no steps yet"
    clock.go.set()
    effects.ask(question(16))
    await told.get()
    assert store.effect is not None and store.effect.refused == "the engine shows no steps yet"


def latencies(time: float, ttft: dict[float, int], tpot: float, boot: str = "a") -> Latencies:
    """Cumulative: so many first tokens of each length, as many answers."""

    def histogram(values: dict[float, int]) -> LatencyHistogram:
        buckets = {bucket_of(value): count for value, count in values.items()}
        n = sum(values.values())
        return LatencyHistogram(n, sum(v * c for v, c in values.items()), None, None, buckets)

    n = sum(ttft.values())
    return Latencies(
        {"ttft": histogram(ttft), "tpot": histogram({tpot: n})}, time, 1, boots=(boot,)
    )


async def test_what_was_measured_stands_beside_it_and_is_an_event(
    effects: EffectForecasts, store: Store, facts: Facts, clock: Clock, told: asyncio.Queue[None]
) -> None:
    clock.go.set()
    effects.ask(question(64))
    await told.get()
    assert store.engines["llama"].options
    effects.applied("llama", "max_num_seqs")
    step = SimpleNamespace(end=1010.0, output_tokens=40_000, decode_tokens=0)
    history = SimpleNamespace(since=lambda time: [step])
    facts.inside = SimpleNamespace(history=history, latencies=latencies(1000, {9.0: 50}, 0.02))
    clock.now += 1.0
    await effects.sample()  # what was under way is not its effect
    clock.now += 5.0
    await effects.sample()
    facts.inside.latencies = latencies(1010.0, {9.0: 50, 0.5: 90, 2.0: 10}, 0.02)
    clock.now += 10.0
    await effects.sample()
    found = store.effect
    assert found is not None and found.measured is not None
    assert found.measured.n == 100 and found.measured.seconds == pytest.approx(10.0)
    assert found.measured.figures["output_tokens_per_s"] == pytest.approx(4000)
    assert found.measured.figures["ttft_p95"] == pytest.approx(2.0, rel=0.01)
    assert found.measured.good is not None
    assert found.measured.good == pytest.approx((9.0, 9.0))
    event = store.events[-1]
    assert event.level == "effect" and "TTFT p95 expected" in event.text
    assert "measured 2s" in event.text and "n=100 in 10s" in event.text


async def test_a_load_that_changed_meanwhile_is_said(
    effects: EffectForecasts, store: Store, facts: Facts, clock: Clock, told: asyncio.Queue[None]
) -> None:
    clock.go.set()
    effects.ask(question(64))
    await told.get()
    effects.applied("llama", "max_num_seqs")
    history = SimpleNamespace(since=lambda time: [])
    facts.inside = SimpleNamespace(history=history, latencies=latencies(1000, {0.5: 5}, 0.01))
    clock.now += 6.0
    await effects.sample()
    assert store.load is not None
    store.load = replace(store.load, asked=10.0)
    facts.inside.latencies = latencies(1012.0, {0.5: 50}, 0.01)
    await effects.sample()
    assert store.effect is not None and store.effect.measured is not None
    assert store.effect.measured.remark == "the load changed from 358 to 10 meanwhile"


async def test_a_value_set_before_the_answer_is_forecast_from_before_it(
    effects: EffectForecasts, store: Store, facts: Facts, clock: Clock, told: asyncio.Queue[None]
) -> None:
    effects.ask(question(64))
    effects.applied("llama", "max_num_seqs")
    assert store.effect is None  # nothing had been read by then
    clock.go.set()
    effects.ask(question(64))
    await told.get()
    effects.ask(question(32))
    effects.applied("llama", "max_num_seqs")
    assert store.effect is not None
    await told.get()
    assert facts.asked == 1
    assert store.effect.forecast is not None and store.effect.since == clock.now


async def test_a_withdrawn_question_ends_its_thread() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def work(draw: Any) -> None:
        loop.call_soon_threadsafe(begun.set)
        try:
            while True:
                draw()
        except Withdrawn:
            loop.call_soon_threadsafe(ended.set)
            raise

    task = asyncio.create_task(on_thread(work, lambda: None))  # type: ignore[arg-type,return-value]
    await begun.wait()
    task.cancel()
    await ended.wait()
    with pytest.raises(asyncio.CancelledError):
        await task

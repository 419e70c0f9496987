"""Two days of samples, pushed through at once: what is kept has a bound."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest
from rich.cells import cached_cell_len

from llmtop.analysis.marks import Mark
from llmtop.engines.core.endpoint import Endpoint
from llmtop.engines.core.samples import EngineSample, GpuSample, Latency, Quantile, Quantiles
from llmtop.engines.simulated import adapter
from llmtop.loadgen.core.results import LoadSnapshot
from llmtop.operations.session import EngineSession
from llmtop.tui.panels.charts.chart_kinds import CHARTS
from llmtop.tui.panels.charts.chart_panel import ChartPanel
from llmtop.tui.panels.events import EventsPanel
from llmtop.tui.panels.load import LoadPanel
from llmtop.tui.panels.per_token import CostPanel, PerTokenPanel
from llmtop.tui.panels.pulse import Pulse
from llmtop.tui.sources.cost import CostSource
from llmtop.tui.sources.effects import EffectSource
from llmtop.tui.sources.engine import EngineSource
from llmtop.tui.sources.load import LoadSource
from llmtop.tui.sources.sampling import Source
from llmtop.tui.store.store import CAPACITY, EngineTrack, Event, Store
from llmtop.tui.view.view import View
from llmtop.values import replace
from tests.fake_fetch import FakeFetch

HOURS = 49  # charts go back 24 hours: all of that is full by half-time
URL = "http://127.0.0.1:9"
BEAT_S = 20  # each beat is a stretch of 10 s of its own
BEATS = HOURS * 3600 // BEAT_S
MOST_GROWTH = 64 * 1024  # bytes in the second half; one point more a beat would be 130 KB


class Samples(EngineSession):
    """Answers with a sample made for the moment, as a scrape would."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(Endpoint("one", adapter.ADAPTER, URL, version="1"), FakeFetch({}))
        self._now = now

    async def sample(self) -> EngineSample:
        now = self._now()
        own = Quantiles(Quantile(0.1), Quantile(0.2 + now % 7 / 100), Quantile(0.3), 0.1, 90, 10.0)
        return EngineSample(
            now, 10.0, "m", int(now) % 256, 3, now % 100 / 100, 1000, 2000, 3000.0 + now % 11,
            9000.0, 20.0, 0.1, 0, 0.6, 2.8, {Latency.TTFT: own, Latency.ITL: own},
            rate_window_s=3.0,
        )  # fmt: skip


class Loaded:
    """Stands for a load that goes on for ever."""

    def __init__(self, make: Callable[..., LoadSnapshot], now: Callable[[], float]) -> None:
        self._made, self._now = make(errors={}), now

    def snapshot(self) -> LoadSnapshot:
        return replace(self._made, time=self._now(), asked=64.0 + self._now() % 3)

    def close(self) -> None:
        pass


def traced() -> int:
    """Bytes in use, without the widths of words that rich remembers (4,096 of them at most)."""
    cached_cell_len.cache_clear()
    return tracemalloc.get_traced_memory()[0]


@pytest.mark.more
async def test_two_days_of_samples_take_no_more_than_the_first(
    make_load: Callable[..., LoadSnapshot], make_gpu: Callable[..., GpuSample]
) -> None:
    clock = [1_800_000_000.0]

    def now() -> float:
        return clock[0]

    track = EngineTrack("one", "sim", "simulated", URL, owned=True, version="1")
    store = Store(engines={"one": track}, selected="one", load_target="one")
    load = LoadSource(store, now)
    load.load = Loaded(make_load, now)  # type: ignore[assignment]
    engine = EngineSource(Samples(now), track, store, None, now, wall=now)
    sources: list[Source] = [load, engine, EffectSource(store, now), CostSource(store, now)]
    panels = [
        Pulse(id="pulse"), EventsPanel(id="events"), LoadPanel(id="load"), CostPanel(id="cost"),
        PerTokenPanel(id="token"), *(ChartPanel(kind, id=name) for name, kind in CHARTS.items()),
    ]  # fmt: skip
    half_time = 0
    tracemalloc.start()
    try:
        for beat in range(BEATS):
            clock[0] += BEAT_S
            store.gpus = (replace(make_gpu(), energy_j=2000.0 * beat),)
            for source in sources:
                await source.sample()
            if beat % 6 == 0:
                track.marks.append(Mark(now(), f"seqs {beat}->{beat + 1}", effect=True))
                store.events.append(Event(now(), "change", f"max_num_seqs {beat}"))
            if beat % 40 == 0:
                for panel in panels:
                    panel.draw(View(store, now(), gpu_hour=3.5), 60, 9)
            if beat == BEATS // 2:
                half_time = traced()
        at_the_end = traced()
    finally:
        tracemalloc.stop()
    assert all(len(series) <= CAPACITY for series in track.series.values())
    assert len(track.series) >= 15  # all of them had something to keep
    assert sum(event.level == "effect" for event in store.events) > 100
    assert at_the_end - half_time < MOST_GROWTH

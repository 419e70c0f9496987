"""KV cache and GPU time, watched while a level is measured."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest

from llmtop import LlmtopError
from llmtop.loadgen.experiments.level import Usage
from llmtop.loadgen.experiments.saturation import Saturation, SaturationResult
from llmtop.operations.gauges import EngineGauges, ReadUsage
from tests.virtual_load import VirtualLoad


def watched(
    usages: list[float | None], busy: list[float | None]
) -> tuple[EngineGauges, threading.Event]:
    """Gauges that have seen all of it once the event is set."""
    seen, kv, gpu = threading.Event(), iter(usages), iter(busy)

    def open_reader(stack: AsyncExitStack) -> ReadUsage:
        async def read() -> float | None:
            value = next(kv, -1.0)
            if value == -1.0:
                seen.set()
                raise LlmtopError("no answer")
            return value

        return read

    return EngineGauges(open_reader, lambda: next(gpu, None), every_s=0.001), seen


@pytest.fixture
def gauges() -> Iterator[EngineGauges]:
    made, seen = watched([0.2, None, 0.7, 0.4], [0.9, 0.5, None, 0.7])
    made.start()
    assert seen.wait(10)
    yield made
    made.close()


def test_the_fullest_cache_and_the_mean_idle_time_count(gauges: EngineGauges) -> None:
    usage = gauges.read()
    assert usage.kv_peak == 0.7
    assert usage.gpu_idle == pytest.approx(0.3)


def test_a_window_begins_with_nothing_and_nothing_is_no_zero(gauges: EngineGauges) -> None:
    gauges.begin()
    assert gauges.read() == Usage(None, None)


def test_what_was_never_started_is_closed_all_the_same() -> None:
    watched([], [])[0].close()


class Scripted:
    """What each level used, one after the other."""

    def __init__(self) -> None:
        self.windows = 0

    def begin(self) -> None:
        self.windows += 1

    def read(self) -> Usage:
        return Usage(gpu_idle=0.5 / self.windows, kv_peak=min(0.6, 0.2 * self.windows))


def test_each_level_has_its_own_and_the_search_the_peak() -> None:
    load = VirtualLoad(2, 24)
    saturation = Saturation(None, load.now, top=8, seconds=1.0, gauges=Scripted())
    load.on_record = saturation.take
    saturation.begin(load)
    while not isinstance(result := saturation.poll(), SaturationResult):
        load.pass_time(0.1)
    assert [level.usage.gpu_idle for level in result.levels][:2] == [0.5, 0.25]
    assert result.kv_peak == pytest.approx(min(0.6, 0.2 * len(result.levels)))
    blind = Saturation(None, load.now, top=8).result()
    assert blind.kv_peak is None

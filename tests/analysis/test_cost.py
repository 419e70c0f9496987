"""What tokens cost, against known answers; and how the screen says it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llmtop.analysis.cost import KEPT, Cost, CostMeter
from llmtop.analysis.series import SeriesName
from llmtop.engines.core.records import EngineStatus, State
from llmtop.engines.core.samples import EngineSample, GpuProcess, GpuSample
from llmtop.engines.logs.memory_report import MemoryReport
from llmtop.tui.panels.per_token import CostPanel, PerTokenPanel
from llmtop.tui.sources.cost import CostSource
from llmtop.tui.store.store import EngineTrack, Store
from llmtop.tui.view.view import View
from llmtop.values import replace
from tests.plain_rows import plain

GIB = 2**30
MakeGpu = Callable[..., GpuSample]


def test_tokens_per_joule_is_what_came_out_over_what_the_counter_says(make_gpu: MakeGpu) -> None:
    meter = CostMeter()
    for second in range(31):
        board = replace(make_gpu(), energy_j=5e6 + 500.0 * second, utilisation=0.75)
        cost = meter.add(float(second), 4000.0, 0.5, [board], 100.0 * GIB)
    assert cost.tokens_per_joule == pytest.approx(8.0)  # 4,000 tok/s at 500 W
    assert cost.idle == pytest.approx(0.25)
    assert cost.window_s == 30.0
    assert cost.kv_unused == 50.0 * GIB
    # 4,000 tok/s are 14.4 million an hour.
    assert cost.per_million(3.6) == pytest.approx(0.25)
    assert cost.per_million(None) is None


def test_a_counter_that_is_read_seldom_is_laid_beside_all_tokens_in_between(
    make_gpu: MakeGpu,
) -> None:
    meter = CostMeter()
    for second in range(23):
        energy = 500.0 * second if second % 5 == 0 else None
        rate = 4000.0 if second % 5 == 0 else 1500.0  # the mean of five is 2,000
        board = replace(make_gpu(), energy_j=energy)
        cost = meter.add(float(second), rate, 0.5, [board], None)
    assert cost.tokens_per_joule == pytest.approx(4.0)


def test_two_gpus_are_paid_and_counted_twice(make_gpu: MakeGpu) -> None:
    meter = CostMeter()
    for second in range(31):
        boards = [replace(make_gpu(n), energy_j=300.0 * second) for n in (0, 1)]
        cost = meter.add(float(second), 3000.0, 0.9, boards, 10.0 * GIB)
    assert cost.gpus == 2
    assert cost.tokens_per_joule == pytest.approx(5.0)
    assert cost.per_million(3.6) == pytest.approx(2 / 3)
    assert cost.kv_unused == pytest.approx(2.0 * GIB)


def test_what_is_not_told_is_not_known(make_gpu: MakeGpu) -> None:
    meter = CostMeter()
    for second in range(31):
        boards = [replace(make_gpu(0), energy_j=1.0 * second), replace(make_gpu(1), energy_j=None)]
        cost = meter.add(float(second), None, None, boards, None)
    assert cost.tokens_per_joule is None  # half of the energy is not the energy
    assert (cost.per_million(3.0), cost.kv_unused, cost.kv_peak) == (None, None, None)
    assert CostMeter().add(0.0, 0.0, 0.0, [], None) == Cost(0.0, tokens_per_s=0.0, kv_peak=0.0,
                                                              kv_since=0.0)  # fmt: skip


def test_the_peak_is_kept_and_a_new_process_begins_anew(make_gpu: MakeGpu) -> None:
    meter = CostMeter()
    for second, usage in enumerate((0.2, 0.8, 0.1)):
        cost = meter.add(float(second), 1.0, usage, [make_gpu()], 10.0 * GIB)
    assert (cost.kv_peak, cost.kv_since) == (0.8, 0.0)
    meter.reset()
    assert meter.add(9.0, 1.0, 0.3, [make_gpu()], 10.0 * GIB).kv_peak == 0.3


def test_a_meter_keeps_a_minute_and_no_more() -> None:
    meter = CostMeter()
    for beat in range(20_000):
        cost = meter.add(beat * 0.01, 1.0, 0.5, [], None)
    assert len(meter._moments) <= KEPT
    for second in range(500, 700):
        cost = meter.add(float(second), 1.0, 0.5, [], None)
    assert cost.window_s == 60.0


async def test_only_the_engines_own_gpus_are_counted(
    store: Store, make_gpu: MakeGpu, now: float
) -> None:
    track = store.engines["llama"]
    track.memory_report = MemoryReport(kv=100.0 * GIB, pids=(7,))
    clock = [now]
    source = CostSource(store, lambda: clock[0])
    for second in range(10):
        clock[0] = now + second
        mine, other = (
            replace(make_gpu(n), energy_j=200.0 * second * (n + 1), processes=(GpuProcess(pid, 1),))
            for n, pid in enumerate((7, 8))
        )
        store.gpus = (mine, other)
        track.record(SeriesName.OUTPUT_TOKENS, clock[0], 1000.0)
        await source.sample()
    assert track.cost is not None and track.cost.gpus == 1
    assert track.cost.tokens_per_joule == pytest.approx(5.0)
    assert track.status is not None
    track.status = EngineStatus(replace(track.status.record, pid=99), State.READY, now)
    await source.sample()
    assert track.cost.tokens_per_joule is None  # another process: nothing is known of it yet


def test_a_simulated_engine_says_so_and_invents_no_energy(now: float) -> None:
    track = EngineTrack("demo", "sim", "sim", "http://127.0.0.1:1", True, simulated=True)
    track.sample = EngineSample(now, 10.0)
    track.cost = Cost(60.0, tokens_per_s=1000.0, kv_peak=0.5, kv_since=now, kv_unused=20.0 * GIB)
    view = View(Store(engines={"demo": track}, selected="demo"), now, gpu_hour=3.6)
    head, *_, small, _ = plain(PerTokenPanel(id="token").draw(view, 60, 5))
    assert "simulated" in head
    assert "-- tok/J  $1.00/M tok  KV never used 20.0 GiB" in small
    large = plain(CostPanel(id="cost").draw(view, 66, 6))
    assert all("simulated" in line for line in large[1:4])
    assert "20.0 GiB" in large[4] and "peak 50%" in large[4]


def test_speculation_says_what_was_accepted_or_why_there_is_nothing(
    store: Store, now: float
) -> None:
    track, panel = store.engines["llama"], PerTokenPanel(id="token")

    def row() -> str:
        return plain(panel.draw(View(store, now), 100, 5))[2]

    assert "off, armed for 3: o turns it on" in row()
    assert track.sample is not None
    track.sample = replace(
        track.sample, window_s=10.0, spec_acceptance=0.6, spec_accepted_length=2.8,
        spec_acceptance_by_position=(0.9, 0.6, 0.3),
    )  # fmt: skip
    assert "accepted 60%  2.80 tok/step  of 3.0 drafted  /10s  by position 90 60 30 %" in row()
    track.options = ()
    track.sample = replace(track.sample, spec_acceptance=None)
    assert "spec  --" in row()


def test_the_itl_row_has_both_sides_each_with_its_n(view_of: Callable[[], View]) -> None:
    row = plain(PerTokenPanel(id="token").draw(view_of(), 100, 5))[1]
    assert "p50 16ms  p95 32ms n=461/10s  server p95 25-50ms n=59k" in row


@pytest.fixture
def view_of(store: Store, now: float) -> Callable[[], View]:
    return lambda: View(store, now)

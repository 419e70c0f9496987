"""What is made of all_counters and records: snapshots, results and the verdict on the generator."""

import pytest

from llmtop.loadgen.core.clock import NS
from llmtop.loadgen.core.measures import Measure
from llmtop.loadgen.core.results import Fate, LatencySummary, LoadSnapshot, RequestRecord
from llmtop.loadgen.statistics.histogram import RESOLUTION
from llmtop.loadgen.statistics.shared_counters import Cell, SharedCounters
from llmtop.loadgen.statistics.snapshots import SnapshotWindow, WorkerCounters
from llmtop.loadgen.statistics.totals import MAX_ERRORS, RunTotals
from llmtop.loadgen.workload.plan import Plan
from llmtop.loadgen.workload.schedule import Schedule
from llmtop.values import replace

SCHEDULE = Schedule(Plan(shape="hold 4 for 1h"), 0, 0)


class Rig:
    def __init__(self, workers: int = 2) -> None:
        self.now = NS
        self.all_counters = [SharedCounters() for _ in range(workers)]
        self.trouble = [""] * workers
        self.window = SnapshotWindow(10.0, lambda: self.now, lambda: 1_795_326_110.0)
        self.beat()
        self.window.begin(self.readings())

    def readings(self) -> list[WorkerCounters]:
        return [
            WorkerCounters(b.copy(), t)
            for b, t in zip(self.all_counters, self.trouble, strict=True)
        ]

    def beat(self, cpu_s: float = 0.0) -> None:
        for counters in self.all_counters:
            counters.cells[Cell.CPU] += int(cpu_s * NS)
            counters.cells[Cell.BEAT] = self.now

    def snapshot(self, clock: str = "kernel") -> LoadSnapshot:
        return self.window.snapshot(SCHEDULE, self.readings(), clock, {"HTTP 500": 2})


def test_rates_and_latencies_are_over_the_window() -> None:
    rig = Rig()
    for second in range(1, 31):
        rig.now += NS
        for counters in rig.all_counters:
            counters.cells[Cell.OK] += 5
            counters.cells[Cell.TOKENS] += 100
            counters.ttft.record(50_000_000 if second <= 15 else 200_000_000)
        rig.beat(0.25)
        snapshot = rig.snapshot()
    assert snapshot.window_s == pytest.approx(10)
    assert snapshot.requests_per_s == pytest.approx(10)
    assert snapshot.output_tokens_per_s == pytest.approx(200)
    assert snapshot.ok == 300  # counts are since the start
    assert snapshot.ttft.n == 20
    assert snapshot.ttft.p50 == pytest.approx(0.2, rel=RESOLUTION)
    assert snapshot.ttft.window_s == pytest.approx(10)
    assert snapshot.health.cpu == pytest.approx(0.25)
    assert snapshot.errors == {"HTTP 500": 2}


def test_before_anything_happened_nothing_is_known() -> None:
    rig = Rig()
    rig.now += NS // 100
    snapshot = rig.snapshot()
    assert snapshot.requests_per_s is None
    assert snapshot.output_tokens_per_s is None
    assert snapshot.oldest_wait_s is None
    assert snapshot.ttft == LatencySummary(None, None, None, 0, snapshot.window_s, RESOLUTION)
    rig.now += NS
    assert rig.snapshot().requests_per_s == 0


def test_a_restless_caller_does_not_shorten_the_window() -> None:
    rig = Rig()
    for _ in range(600):
        rig.now += NS // 50
        snapshot = rig.snapshot()
    assert snapshot.window_s == pytest.approx(10, rel=0.1)


def test_the_oldest_wait_is_the_oldest_of_all_workers() -> None:
    rig = Rig()
    rig.now += 9 * NS
    rig.all_counters[0].cells[Cell.OLDEST] = 8 * NS
    rig.all_counters[1].cells[Cell.OLDEST] = 3 * NS
    assert rig.snapshot().oldest_wait_s == pytest.approx(7)


def test_a_worker_that_died_is_an_error_and_its_requests_failures() -> None:
    rig = Rig()
    for counters in rig.all_counters:
        counters.cells[Cell.IN_FLIGHT] = 5
        counters.cells[Cell.OLDEST] = NS
    rig.trouble[1] = "a load worker ended (signal 9)"
    rig.now += NS
    snapshot = rig.snapshot()
    assert snapshot.errors["a load worker ended (signal 9)"] == 1
    assert (snapshot.in_flight, snapshot.failed) == (5, 5)


def test_reads_without_stamps_are_user_space_time() -> None:
    rig = Rig()
    rig.all_counters[0].cells[Cell.READS] = 1000
    rig.all_counters[0].cells[Cell.UNSTAMPED] = 9
    rig.now += NS
    assert rig.snapshot().health.clock == "kernel"
    rig.all_counters[0].cells[Cell.UNSTAMPED] = 20
    health = rig.snapshot().health
    assert (health.clock, health.lag) == ("user space", None)


def record(intended: float, fate: Fate = Fate.OK, error: str = "") -> RequestRecord:
    return RequestRecord(
        intended=intended,
        sent=intended + 0.01,
        first_byte=intended + 0.09,
        first=intended + 0.1,
        last=intended + 1.1,
        prompt_tokens=5,
        tokens=11,
        counted=False,
        fate=fate,
        error=error,
    )


def test_a_result_counts_what_ended_and_measures_what_ended_well() -> None:
    rig, totals = Rig(), RunTotals()
    for second in range(10):
        totals.add(record(float(second)))
    totals.add(record(4.0, Fate.FAILED, "HTTP 500: boom"))
    totals.add(record(5.0, Fate.CUT, "cut"))
    for counters in rig.all_counters:
        counters.itl.record(100_000_000)
    rig.now += 10 * NS
    rig.beat(1.0)
    result = rig.window.result(SCHEDULE, rig.readings(), "kernel", totals)
    assert (result.ok, result.failed, result.cut) == (10, 1, 1)
    assert result.duration_s == pytest.approx(10.1)
    assert result.output_tokens == 132
    assert result.output_tokens_per_s == pytest.approx(132 / 10.1)
    assert result.requests_per_s == pytest.approx(10 / 10.1)
    assert result.ttft.n == result.e2e.n == 10
    assert result.ttft.p50 == pytest.approx(0.1)  # from the intended moment, not from sending
    assert result.tpot.p50 == pytest.approx(0.1)
    assert result.e2e.p99 == pytest.approx(1.1)
    assert (result.ttft.resolution, result.itl.resolution) == (0, RESOLUTION)
    assert result.itl.n == 2
    assert result.errors == {"HTTP 500: boom": 1}
    assert result.health.cpu == pytest.approx(0.1)


def test_an_empty_run_has_a_result() -> None:
    rig = Rig()
    result = rig.window.result(SCHEDULE, rig.readings(), "kernel", RunTotals())
    assert (result.ok, result.duration_s, result.output_tokens_per_s) == (0, 0, None)


def test_kinds_of_errors_are_bounded() -> None:
    totals = RunTotals()
    for number in range(500):
        totals.add(record(0, Fate.FAILED, f"HTTP 500: request {number} failed"))
        totals.add(record(0, Fate.FAILED, f"unheard of {number}"))
    assert len(totals.errors) <= 2 * MAX_ERRORS + 1
    assert sum(totals.errors.values()) == 1000
    assert totals.errors["HTTP 500"] > 400


def test_what_ours_can_have_done_to_a_figure_comes_from_the_boards() -> None:
    rig = Rig()
    for counters in rig.all_counters:
        for _ in range(200):
            counters.ttft.record(100_000_000)
            counters.ttft_low.record(70_000_000)  # the request left up to 30 ms late
            counters.itl.record(20_000_000)
        counters.cells[Cell.TURNAROUND], counters.cells[Cell.CYCLE] = 1 * NS, 10 * NS
        counters.cells[Cell.TOKENS] = 5000
    rig.now += 10 * NS
    health = rig.snapshot().health
    found = {(one.measure, one.quantile): one for one in health.measures}
    ttft, itl = found[Measure.TTFT, "p50"], found[Measure.ITL, "p99"]
    assert ttft.bound == pytest.approx(0.03, rel=0.03) and not ttft.valid
    assert itl.valid and itl.bound is not None and itl.bound < 0.001
    assert found[Measure.THROUGHPUT, ""].share == pytest.approx(1 / 9, rel=0.01)
    assert health.verdict.startswith("client-bound, because TTFT p")


def test_a_worker_that_says_nothing_voids_every_figure() -> None:
    rig = Rig()
    rig.all_counters[0].ttft.record(100_000_000)
    rig.all_counters[0].ttft_low.record(100_000_000)
    rig.now += 2 * NS
    assert rig.snapshot().health.verdict == "valid"
    first, *rest = rig.readings()
    readings = [replace(first, silent="load worker 7 is stopped"), *rest]
    health = rig.window.snapshot(SCHEDULE, readings, "kernel", {}).health
    assert health.verdict == "client-bound, because load worker 7 is stopped"
    assert health.measures and not any(one.valid for one in health.measures)

"""What is made of boards and records: snapshots, results and the verdict on the generator."""

from typing import Any

import pytest

from llmtop.loadgen.board import Board, Cell
from llmtop.loadgen.clock import NS
from llmtop.loadgen.course import Course
from llmtop.loadgen.health import judge
from llmtop.loadgen.histogram import RESOLUTION
from llmtop.loadgen.ledger import MAX_ERRORS, Ledger
from llmtop.loadgen.meter import Meter, Reading
from llmtop.loadgen.plan import Loop, Plan
from llmtop.loadgen.results import Fate, LatencySummary, LoadSnapshot, RequestRecord

COURSE = Course(Plan(shape="hold 4 for 1h"), 0, 0)


class Rig:
    def __init__(self, workers: int = 2) -> None:
        self.now = NS
        self.boards = [Board() for _ in range(workers)]
        self.trouble = [""] * workers
        self.meter = Meter(10.0, lambda: self.now, lambda: 1_795_326_110.0)
        self.beat()
        self.meter.begin(self.readings())

    def readings(self) -> list[Reading]:
        return [Reading(b.copy(), t) for b, t in zip(self.boards, self.trouble, strict=True)]

    def beat(self, cpu_s: float = 0.0) -> None:
        for board in self.boards:
            board.cells[Cell.CPU] += int(cpu_s * NS)
            board.cells[Cell.BEAT] = self.now

    def snapshot(self, clock: str = "kernel") -> LoadSnapshot:
        return self.meter.snapshot(COURSE, self.readings(), clock, {"HTTP 500": 2})


def test_rates_and_latencies_are_over_the_window() -> None:
    rig = Rig()
    for second in range(1, 31):
        rig.now += NS
        for board in rig.boards:
            board.cells[Cell.OK] += 5
            board.cells[Cell.TOKENS] += 100
            board.ttft.record(50_000_000 if second <= 15 else 200_000_000)
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
    rig.boards[0].cells[Cell.OLDEST] = 8 * NS
    rig.boards[1].cells[Cell.OLDEST] = 3 * NS
    assert rig.snapshot().oldest_wait_s == pytest.approx(7)


def test_a_worker_that_died_is_an_error_and_its_requests_failures() -> None:
    rig = Rig()
    for board in rig.boards:
        board.cells[Cell.IN_FLIGHT] = 5
        board.cells[Cell.OLDEST] = NS
    rig.trouble[1] = "a load worker ended (signal 9)"
    rig.now += NS
    snapshot = rig.snapshot()
    assert snapshot.errors["a load worker ended (signal 9)"] == 1
    assert (snapshot.in_flight, snapshot.failed) == (5, 5)


def test_reads_without_stamps_are_user_space_time() -> None:
    rig = Rig()
    rig.boards[0].cells[Cell.READS] = 1000
    rig.boards[0].cells[Cell.UNSTAMPED] = 9
    rig.now += NS
    assert rig.snapshot().health.clock == "kernel"
    rig.boards[0].cells[Cell.UNSTAMPED] = 20
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
    rig, ledger = Rig(), Ledger()
    for second in range(10):
        ledger.add(record(float(second)))
    ledger.add(record(4.0, Fate.FAILED, "HTTP 500: boom"))
    ledger.add(record(5.0, Fate.CUT, "cut"))
    for board in rig.boards:
        board.itl.record(100_000_000)
    rig.now += 10 * NS
    rig.beat(1.0)
    result = rig.meter.result(COURSE, rig.readings(), "kernel", ledger)
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
    result = rig.meter.result(COURSE, rig.readings(), "kernel", Ledger())
    assert (result.ok, result.duration_s, result.output_tokens_per_s) == (0, 0, None)


def test_kinds_of_errors_are_bounded() -> None:
    ledger = Ledger()
    for number in range(500):
        ledger.add(record(0, Fate.FAILED, f"HTTP 500: request {number} failed"))
        ledger.add(record(0, Fate.FAILED, f"unheard of {number}"))
    assert len(ledger.errors) <= 2 * MAX_ERRORS + 1
    assert sum(ledger.errors.values()) == 1000
    assert ledger.errors["HTTP 500"] > 400


def seconds(p50: float, p99: float | None = None) -> LatencySummary:
    return LatencySummary(p50, p50, p50 if p99 is None else p99, 100)


def verdict(loop: Loop = Loop.CLOSED, clock: str = "kernel", **changed: Any) -> str:
    facts: dict[str, Any] = {
        "itl": seconds(0.02),
        "ttft": seconds(0.2),
        "lag": seconds(0.0001),
        "lateness": seconds(0.0005),
        "cpu": 0.3,
        "run_delay": 0.01,
    }
    return judge(clock=clock, loop=loop, **(facts | changed)).verdict


def test_a_quiet_generator_is_valid() -> None:
    assert verdict() == verdict(Loop.OPEN) == "valid"
    assert verdict(lag=None, lateness=None, cpu=None, run_delay=None) == "valid"


@pytest.mark.parametrize(
    ("changed", "because"),
    [
        ({"cpu": 0.8}, "a worker used 80% of its core"),
        ({"lag": seconds(0.001, 0.0112)}, "reads lag 11.2 ms (p99) behind the kernel"),
        ({"run_delay": 0.3}, "a worker waited for a core 30% of the time"),
        ({"short": 7}, "7 streams more than may be open here"),
        ({"lost": 3}, "3 records were dropped"),
    ],
)
def test_why_the_client_is_the_limit(changed: dict[str, Any], because: str) -> None:
    assert verdict(**changed) == f"client-bound, because {because}"


def test_lateness_matters_in_the_open_loop() -> None:
    late = seconds(0.001, 0.012)
    assert verdict(Loop.CLOSED, lateness=late) == "valid"
    assert verdict(Loop.OPEN, lateness=late) == (
        "client-bound, because sends left 12.0 ms late (p99)"
    )
    assert verdict(Loop.OPEN, lateness=late, ttft=seconds(0.5)) == "valid"


def test_waiting_for_a_core_matters_more_without_kernel_stamps() -> None:
    assert verdict(run_delay=0.1) == "valid"
    assert "waited for a core" in verdict(clock="user space", run_delay=0.1)

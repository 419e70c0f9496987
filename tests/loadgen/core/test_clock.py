from collections.abc import Callable

from llmtop.loadgen.core.clock import BRACKETS, NS, RETAKE_NS, StampClock


class Clocks:
    """Two clocks a constant apart, read with hiccups: every third reading is pre-empted."""

    def __init__(self, apart: int) -> None:
        self.now, self.apart, self.readings = 1_000 * NS, apart, 0

    def _read(self) -> int:
        self.readings += 1
        self.now += 5_000_000 if self.readings % 7 == 0 else 60
        return self.now

    @property
    def monotonic(self) -> Callable[[], int]:
        return self._read

    @property
    def real(self) -> Callable[[], int]:
        return lambda: self._read() + self.apart


def test_the_tightest_bracket_wins() -> None:
    clocks = Clocks(1_700_000_000 * NS)
    stamps = StampClock(clocks.monotonic, clocks.real)
    assert abs(stamps.offset_ns + clocks.apart) <= 60


def test_a_stamp_comes_out_as_monotonic_time() -> None:
    clocks = Clocks(1_700_000_000 * NS)
    stamps = StampClock(clocks.monotonic, clocks.real)
    arrived = clocks.now
    assert abs(stamps.at(arrived + clocks.apart, arrived + NS) - arrived) <= 60


def test_a_stepped_wall_clock_is_noticed_at_once() -> None:
    clocks = Clocks(0)
    stamps = StampClock(clocks.monotonic, clocks.real)
    clocks.apart = 3600 * NS
    arrived = clocks.now
    assert abs(stamps.at(arrived + clocks.apart, arrived + 1000) - arrived) <= 1000


def test_a_wall_clock_that_is_set_back_is_noticed_at_once() -> None:
    clocks = Clocks(0)
    stamps = StampClock(clocks.monotonic, clocks.real)
    clocks.now += NS // 2  # in the midst of the second for which an offset holds
    clocks.apart = -3600 * NS
    arrived = clocks.now
    assert abs(stamps.at(arrived + clocks.apart, arrived + 1000) - arrived) <= 1000


def test_stamps_of_a_slow_reader_stay_old_and_cost_no_alignment_each() -> None:
    clocks = Clocks(0)
    stamps = StampClock(clocks.monotonic, clocks.real)
    clocks.now += NS // 2
    arrived, read = clocks.now, clocks.now + NS // 4
    clocks.now = read
    before = clocks.readings
    for _ in range(100):
        assert abs(stamps.at(arrived, read) - arrived) <= 1000
    assert clocks.readings - before <= 4 * BRACKETS


def test_the_offset_is_taken_anew_every_second() -> None:
    clocks = Clocks(0)
    stamps = StampClock(clocks.monotonic, clocks.real)
    clocks.apart = -50_000_000  # slewed back: such stamps look merely old
    assert abs(stamps.due_ns - clocks.now - RETAKE_NS) <= 10_000_000
    stamps.align()
    assert abs(stamps.offset_ns - 50_000_000) <= 60


def test_nothing_is_read_before_it_came() -> None:
    clocks = Clocks(0)
    stamps = StampClock(clocks.monotonic, clocks.real)
    assert stamps.at(clocks.now + 5_000, clocks.now) == clocks.now

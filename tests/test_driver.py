"""The closed and the open loop on a clock that stands still until it is moved."""

from collections.abc import Callable

import pytest

from llmtop.loadgen.board import Board, Cell
from llmtop.loadgen.clock import NS
from llmtop.loadgen.course import Course
from llmtop.loadgen.driver import REST_NS, Driver
from llmtop.loadgen.plan import Arrival, Loop, Plan, Target
from llmtop.loadgen.reply import Reply
from llmtop.loadgen.results import Fate, RequestRecord
from llmtop.loadgen.talk import Talk
from llmtop.loadgen.trace import Size

CHUNK = b'data: {"choices":[{"text":"a","finish_reason":"length"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}\n\n'
DONE = b"data: [DONE]\n\n"


class Transport:
    """Keeps what is sent until the test answers it."""

    clock = "kernel"

    def __init__(self, rig: "Rig") -> None:
        self.rig = rig
        self.open: list[Reply] = []
        self.dropped: list[Reply] = []
        self.refuse = False

    def send(self, reply: Reply) -> None:
        if self.refuse:
            reply.fail("connection refused")
            return
        self.open.append(reply)
        reply.sent(self.rig.now)

    def drop(self, reply: Reply) -> None:
        self.open.remove(reply)
        self.dropped.append(reply)

    def aim(self, target: Target) -> None: ...
    def watch(self, fd: int, ready: Callable[[], None]) -> None: ...
    def turn(self, until_ns: int) -> None: ...
    def close(self) -> None: ...


class Supply:
    """Says nothing of interest."""

    def next(self, size: Size | None = None) -> bytes:
        return b"{}"

    def talk(self, size: Size | None = None) -> Talk | None:
        return None

    def pause_ns(self) -> int:
        return 0


class Rig:
    def __init__(self, limit: int = 1000, index: int = 0, count: int = 1) -> None:
        self.now = 0
        self.records: list[RequestRecord] = []
        self.board = Board()
        self.transport = Transport(self)
        self.driver = Driver(
            self.transport,
            self.board,
            Supply(),
            self.records.append,
            zero_ns=0,
            timeout_s=60,
            limit=limit,
            index=index,
            count=count,
            monotonic=lambda: self.now,
        )

    def follow(self, shape: str, loop: Loop = Loop.CLOSED) -> Course:
        course = Course(Plan(loop, shape, 0, Arrival.CONSTANT), self.now, self.now)
        self.driver.steer(course)
        return course

    def until(self, seconds: float, step: float = 0.02) -> None:
        """Tick as a worker would, until the clock shows this."""
        end = int(seconds * NS)
        while self.now < end:
            self.driver.tick()
            self.now = min(self.now + int(step * NS), end)
        self.driver.tick()

    def answer(self, count: int = 1) -> None:
        for reply in self.transport.open[:count]:
            reply.head(200, b"text/event-stream", self.now)
            reply.body(CHUNK + USAGE + DONE, self.now)
            reply.end(self.now)
        del self.transport.open[:count]

    def cell(self, which: Cell) -> int:
        return self.board.cells[which]


def test_a_closed_loop_keeps_its_streams_in_flight() -> None:
    rig = Rig()
    rig.follow("hold 8")
    rig.until(0.1)
    assert len(rig.transport.open) == 8
    rig.answer(3)
    assert len(rig.transport.open) == 5
    rig.until(0.12)
    assert len(rig.transport.open) == 8
    assert rig.cell(Cell.IN_FLIGHT) == 8 and rig.cell(Cell.OK) == 3


def test_a_lower_level_lets_the_surplus_finish() -> None:
    rig = Rig()
    course = rig.follow("hold 8")
    rig.until(0.1)
    rig.driver.steer(course.hold_at(3, rig.now))
    rig.until(1)
    assert len(rig.transport.open) == 8 and not rig.transport.dropped
    rig.answer(6)
    rig.until(2)
    assert len(rig.transport.open) == 3


@pytest.mark.parametrize("level", [1, 7, 8, 9, 100])
def test_workers_share_the_level(level: int) -> None:
    rigs = [Rig(index=i, count=4) for i in range(4)]
    for rig in rigs:
        rig.follow(f"hold {level}")
        rig.until(0.1)
    shares = [len(rig.transport.open) for rig in rigs]
    assert sum(shares) == level
    assert max(shares) - min(shares) <= 1


def test_an_open_loop_sends_on_time_whatever_comes_back() -> None:
    rig = Rig()
    rig.follow("hold 10 for 5s", Loop.OPEN)
    rig.until(10)
    assert len(rig.transport.open) in (49, 50)
    intended = [reply.intended_ns / NS for reply in rig.transport.open]
    assert intended == pytest.approx([(i + 1) / 10 for i in range(len(intended))], abs=1e-6)


def test_a_late_send_keeps_its_intended_moment() -> None:
    rig = Rig()
    rig.follow("hold 10", Loop.OPEN)
    rig.now = 3 * NS  # the worker was away for three seconds
    rig.driver.tick()
    assert len(rig.transport.open) == 29 or len(rig.transport.open) == 30
    rig.answer()
    assert rig.records[0].sent == 3
    assert rig.records[0].ttft == pytest.approx(2.9)
    assert rig.records[0].service_ttft == pytest.approx(0)
    assert sum(rig.board.lateness.counts) >= 29


def test_beyond_the_limit_an_open_loop_falls_behind_and_says_so() -> None:
    rig = Rig(limit=5)
    rig.follow("hold 10 for 2s", Loop.OPEN)
    rig.until(3)
    assert len(rig.transport.open) == 5
    assert rig.cell(Cell.OLDEST) / NS == pytest.approx(0.1)
    rig.answer(5)
    rig.driver.tick()
    assert rig.transport.open[0].intended_ns / NS == pytest.approx(0.6)
    assert not rig.driver.idle


def test_what_could_not_be_sent_within_the_time_out_is_a_failure() -> None:
    rig = Rig(limit=1)
    rig.follow("hold 10 for 1s", Loop.OPEN)
    rig.until(1)
    rig.until(130, 0.5)
    failed = [record for record in rig.records if record.fate is Fate.FAILED]
    assert len(rig.records) == len(failed) >= 9
    assert any(record.error == "not sent: 1 requests were in flight" for record in failed)
    assert rig.driver.idle


def test_the_oldest_that_waits_for_a_token_is_known() -> None:
    rig = Rig()
    rig.follow("ramp 0..3 over 3s, hold 3")
    rig.until(4)
    oldest = rig.transport.open[0].intended_ns
    assert rig.cell(Cell.OLDEST) == oldest
    assert rig.cell(Cell.WAITING) == 3
    first = rig.transport.open[0]
    first.head(200, b"text/event-stream", rig.now)
    first.body(CHUNK, rig.now)
    rig.driver.tick()
    assert rig.cell(Cell.OLDEST) == rig.transport.open[1].intended_ns
    assert (rig.cell(Cell.WAITING), rig.cell(Cell.IN_FLIGHT)) == (2, 3)


def test_a_request_that_takes_too_long_is_given_up() -> None:
    rig = Rig()
    rig.follow("hold 2 for 1s")
    rig.until(1)
    rig.until(61, 0.5)
    assert [record.error for record in rig.records] == ["time-out after 60 s"] * 2
    assert len(rig.transport.dropped) == 2
    assert rig.driver.idle


def test_a_refused_stream_rests_before_it_tries_again() -> None:
    rig = Rig()
    rig.transport.refuse = True
    rig.follow("hold 4")
    rig.until(2, 0.001)
    rounds = 2 * NS // REST_NS
    assert 4 * (rounds - 1) <= len(rig.records) <= 4 * (rounds + 1)


def test_stop_drains_or_cuts() -> None:
    for cut in (False, True):
        rig = Rig()
        course = rig.follow("hold 4")
        rig.until(0.1)
        rig.driver.steer(course.stop(cut, rig.now))
        rig.until(0.2)
        assert len(rig.transport.open) == (0 if cut else 4)
        assert rig.driver.idle == cut
        rig.answer(4)
        rig.until(0.3)
        assert rig.driver.idle
        assert {record.fate for record in rig.records} == {Fate.CUT if cut else Fate.OK}
        assert len(rig.records) == 4


def test_a_switch_to_the_open_loop_leaves_streams_in_flight() -> None:
    rig = Rig()
    course = rig.follow("hold 4")
    rig.until(1)
    rig.driver.steer(course.switch(Loop.OPEN, 10, rig.now))
    rig.until(2.05)
    assert len(rig.transport.open) in (13, 14)


def test_streams_beyond_the_limit_are_told() -> None:
    rig = Rig(limit=3)
    rig.follow("hold 10")
    rig.until(0.1)
    assert len(rig.transport.open) == 3
    assert rig.cell(Cell.SHORT) == 7

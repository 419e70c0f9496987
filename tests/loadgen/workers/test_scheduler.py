"""The closed and the open loop on a clock that stands still until it is moved."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from llmtop.loadgen.core.clock import NS
from llmtop.loadgen.core.results import Fate, RequestRecord
from llmtop.loadgen.protocol.event_stream import EventStream
from llmtop.loadgen.protocol.request_state import RequestState
from llmtop.loadgen.statistics.shared_counters import Cell, SharedCounters
from llmtop.loadgen.workers.scheduler import REST_NS, Scheduler
from llmtop.loadgen.workload.conversation import Conversation
from llmtop.loadgen.workload.plan import Arrival, Loop, Plan, Prompts, Target
from llmtop.loadgen.workload.request_body import RequestBody
from llmtop.loadgen.workload.schedule import Schedule
from llmtop.loadgen.workload.trace import Size

CHUNK = b'data: {"choices":[{"text":"a","finish_reason":"length"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}\n\n'
DONE = b"data: [DONE]\n\n"


class Transport:
    """Keeps what is sent until the test answers it."""

    clock = "kernel"

    def __init__(self, rig: "Rig") -> None:
        self.rig = rig
        self.open: list[RequestState] = []
        self.dropped: list[RequestState] = []
        self.refuse = False

    def send(self, reply: RequestState) -> None:
        if self.refuse:
            reply.fail("connection refused")
            return
        self.open.append(reply)
        reply.sent(self.rig.now)

    def drop(self, reply: RequestState) -> None:
        self.open.remove(reply)
        self.dropped.append(reply)

    def retarget(self, target: Target) -> None: ...
    def watch(self, fd: int, ready: Callable[[], None]) -> None: ...
    def turn(self, until_ns: int) -> None: ...
    def close(self) -> None: ...


def answered(reply: RequestState, body: bytes, at_ns: int) -> EventStream:
    """The answer of this request, as far as ``body``."""
    stream = EventStream(reply)
    stream.head(200, b"text/event-stream")
    stream.body(body, at_ns)
    return stream


class RequestSource:
    """Requests that say nothing of interest; conversations of so many turns."""

    def __init__(self, turns: int = 1, pause_s: float = 0.0) -> None:
        self.turns, self.pause_s = turns, pause_s
        self.sizes: list[Size | None] = []
        self.begun: list[int] = []

    def begin(self, arrivals: int) -> None:
        self.begun.append(arrivals)

    def next(self, size: Size | None = None) -> bytes:
        self.sizes.append(size)
        return b"{}"

    def conversation(self, size: Size | None = None) -> Conversation | None:
        if self.turns == 1:
            return None
        envelope = RequestBody(Prompts(), Target("http://127.0.0.1:1", "m", chat=True))
        said = (b'{"role":"user","content":"turn %d"}' % n for n in range(1, self.turns + 1))
        return Conversation(envelope, ((message, 5) for message in said))

    def pause_ns(self) -> int:
        return int(self.pause_s * NS)


class Rig:
    def __init__(
        self, limit: int = 1000, index: int = 0, count: int = 1, supply: RequestSource | None = None
    ) -> None:
        self.now = 0
        self.records: list[RequestRecord] = []
        self.counters = SharedCounters()
        self.transport = Transport(self)
        self.scheduler = Scheduler(
            self.transport,
            self.counters,
            supply or RequestSource(),
            self.records.append,
            zero_ns=0,
            timeout_s=60,
            limit=limit,
            index=index,
            count=count,
            monotonic=lambda: self.now,
        )

    def follow(self, shape: str, loop: Loop = Loop.CLOSED) -> Schedule:
        schedule = Schedule(Plan(loop, shape, 0, Arrival.CONSTANT), self.now, self.now)
        self.scheduler.steer(schedule)
        return schedule

    def until(self, seconds: float, step: float = 0.02) -> None:
        """Tick as a worker would, until the clock shows this."""
        end = int(seconds * NS)
        while self.now < end:
            self.scheduler.tick()
            self.now = min(self.now + int(step * NS), end)
        self.scheduler.tick()

    def answer(self, count: int = 1, chunk: bytes = CHUNK) -> None:
        for reply in self.transport.open[:count]:
            answered(reply, chunk + USAGE + DONE, self.now).end(self.now)
        del self.transport.open[:count]

    def cell(self, which: Cell) -> int:
        return self.counters.cells[which]


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


def test_a_stream_is_away_from_its_answers_end_until_its_next_request_is_out() -> None:
    rig = Rig()
    rig.follow("hold 4")
    rig.until(0.1)
    assert rig.cell(Cell.TURNAROUND) == 0
    rig.now = NS
    ended = NS - 200_000_000  # by the kernel's stamp: we come to read it 0.2 s later
    reply = rig.transport.open.pop(0)
    answered(reply, CHUNK + USAGE + DONE, ended).end(ended)
    rig.scheduler.tick()
    assert len(rig.transport.open) == 4
    assert rig.cell(Cell.TURNAROUND) == 0, "it is told with the answer that follows"
    rig.now = 2 * NS
    rig.answer(4)
    assert rig.cell(Cell.TURNAROUND) == 200_000_000 and rig.cell(Cell.CYCLE) == NS + 200_000_000
    # Streams that the level no longer has turn nothing around, nor do those that it has anew.
    rig.follow("hold 0")
    rig.until(2.1)
    rig.follow("hold 4")
    rig.until(2.5)
    rig.answer(4)
    assert rig.cell(Cell.TURNAROUND) == 200_000_000


def test_a_lower_level_lets_the_surplus_finish() -> None:
    rig = Rig()
    schedule = rig.follow("hold 8")
    rig.until(0.1)
    rig.scheduler.steer(schedule.hold_at(3, rig.now))
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
    rig.scheduler.tick()
    assert len(rig.transport.open) == 29 or len(rig.transport.open) == 30
    rig.answer()
    assert rig.records[0].sent == 3
    assert rig.records[0].ttft == pytest.approx(2.9)
    assert rig.records[0].service_ttft == pytest.approx(0)
    assert sum(rig.counters.lateness.counts) >= 29


def test_beyond_the_limit_an_open_loop_falls_behind_and_says_so() -> None:
    rig = Rig(limit=5)
    rig.follow("hold 10 for 2s", Loop.OPEN)
    rig.until(3)
    assert len(rig.transport.open) == 5
    assert rig.cell(Cell.OLDEST) / NS == pytest.approx(0.1)
    rig.answer(5)
    rig.scheduler.tick()
    assert rig.transport.open[0].intended_ns / NS == pytest.approx(0.6)
    assert not rig.scheduler.idle


def test_what_could_not_be_sent_within_the_time_out_is_a_failure() -> None:
    rig = Rig(limit=1)
    rig.follow("hold 10 for 1s", Loop.OPEN)
    rig.until(1)
    rig.until(130, 0.5)
    failed = [record for record in rig.records if record.fate is Fate.FAILED]
    assert len(rig.records) == len(failed) >= 9
    assert any(record.error == "not sent: 1 requests were in flight" for record in failed)
    assert rig.scheduler.idle


def test_the_oldest_that_waits_for_a_token_is_known() -> None:
    rig = Rig()
    rig.follow("ramp 0..3 over 3s, hold 3")
    rig.until(4)
    oldest = rig.transport.open[0].intended_ns
    assert rig.cell(Cell.OLDEST) == oldest
    assert rig.cell(Cell.WAITING) == 3
    answered(rig.transport.open[0], CHUNK, rig.now)
    rig.scheduler.tick()
    assert rig.cell(Cell.OLDEST) == rig.transport.open[1].intended_ns
    assert (rig.cell(Cell.WAITING), rig.cell(Cell.IN_FLIGHT)) == (2, 3)


def test_a_request_that_takes_too_long_is_given_up() -> None:
    rig = Rig()
    rig.follow("hold 2 for 1s")
    rig.until(1)
    rig.until(61, 0.5)
    assert [record.error for record in rig.records] == ["time-out after 60 s"] * 2
    assert len(rig.transport.dropped) == 2
    assert rig.scheduler.idle


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
        schedule = rig.follow("hold 4")
        rig.until(0.1)
        rig.scheduler.steer(schedule.stop(cut, rig.now))
        rig.until(0.2)
        assert len(rig.transport.open) == (0 if cut else 4)
        assert rig.scheduler.idle == cut
        rig.answer(4)
        rig.until(0.3)
        assert rig.scheduler.idle
        assert {record.fate for record in rig.records} == {Fate.CUT if cut else Fate.OK}
        assert len(rig.records) == 4


def test_a_switch_to_the_open_loop_leaves_streams_in_flight() -> None:
    rig = Rig()
    schedule = rig.follow("hold 4")
    rig.until(1)
    rig.scheduler.steer(schedule.switch(Loop.OPEN, 10, rig.now))
    rig.until(2.05)
    assert len(rig.transport.open) in (13, 14)


def test_streams_beyond_the_limit_are_told() -> None:
    rig = Rig(limit=3)
    rig.follow("hold 10")
    rig.until(0.1)
    assert len(rig.transport.open) == 3
    assert rig.cell(Cell.SHORT) == 7


SAID = b'data: {"choices":[{"delta":{"content":"yes"},"finish_reason":"length"}]}\n\n'


def asked(reply: RequestState) -> list[str]:
    return [message["content"] for message in json.loads(reply.request)["messages"]]


def test_a_stream_carries_a_conversation_to_its_end_and_begins_another() -> None:
    rig = Rig(supply=RequestSource(turns=3, pause_s=1.0))
    rig.follow("hold 1")
    rig.until(0.1)
    for turn, history in enumerate(
        (["turn 1"], ["turn 1", "yes", "turn 2"], ["turn 1", "yes", "turn 2", "yes", "turn 3"]), 1
    ):
        (reply,) = rig.transport.open
        assert (asked(reply), reply.turn) == (history, turn)
        ended = rig.now
        rig.answer(chunk=SAID)
        rig.until(rig.now / NS + 0.5)
        assert rig.cell(Cell.THINKING) == (turn < 3)
        assert bool(rig.transport.open) == (turn == 3)  # a new one needs no thought
        rig.until(rig.now / NS + 0.6)
        if turn < 3:
            assert rig.transport.open[0].intended_ns == ended + NS
    assert asked(rig.transport.open[0]) == ["turn 1"]
    assert [record.turn for record in rig.records] == [1, 2, 3]


def test_those_who_think_hold_their_streams() -> None:
    rig = Rig(supply=RequestSource(turns=9, pause_s=5.0))
    rig.follow("hold 4")
    rig.until(0.1)
    rig.answer(3, SAID)
    rig.until(1)
    assert (len(rig.transport.open), rig.cell(Cell.THINKING)) == (1, 3)
    rig.until(6)
    assert (len(rig.transport.open), rig.cell(Cell.THINKING)) == (4, 0)


def test_a_lower_level_ends_conversations_that_are_too_many() -> None:
    rig = Rig(supply=RequestSource(turns=9, pause_s=1.0))
    schedule = rig.follow("hold 4")
    rig.until(0.1)
    rig.scheduler.steer(schedule.hold_at(2, rig.now))
    rig.answer(2, SAID)
    rig.until(3)
    assert (len(rig.transport.open), rig.cell(Cell.THINKING)) == (2, 0)
    assert rig.cell(Cell.UNFINISHED) == 2


def test_a_turn_that_failed_ends_its_conversation() -> None:
    rig = Rig(supply=RequestSource(turns=9))
    rig.follow("hold 1")
    rig.until(0.1)
    rig.transport.open.pop().fail("connection reset")
    rig.until(2)
    assert asked(rig.transport.open[0]) == ["turn 1"]


@pytest.mark.parametrize("how", ["stop", "end"])
def test_nobody_goes_on_talking_after_the_end(how: str) -> None:
    rig = Rig(supply=RequestSource(turns=9, pause_s=1.0))
    schedule = rig.follow("hold 3 for 2s")
    rig.until(0.5 if how == "stop" else 1.5)
    rig.answer(3, SAID)
    if how == "stop":
        rig.scheduler.steer(schedule.stop(False, rig.now))
    rig.until(4)
    assert not rig.transport.open and rig.scheduler.idle and rig.cell(Cell.THINKING) == 0
    assert rig.cell(Cell.UNFINISHED) == 3


def test_turns_that_fall_due_after_a_trace_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("0\n0.1\n0.2\n1\n")
    rig = Rig(supply=RequestSource(turns=2, pause_s=0.7))
    rig.follow(f'trace "{path}"', Loop.OPEN)
    rig.until(0.15)
    rig.answer(2, SAID)  # their next turns are due at 0.85, in time
    rig.until(0.5)
    rig.answer(1, SAID)  # and this one's at 1.2, too late
    rig.until(3)
    assert [reply.turn for reply in rig.transport.open] == [2, 2, 1]
    rig.answer(3, SAID)
    rig.until(4)
    assert rig.scheduler.idle and not rig.transport.open
    # Two conversations went to their end; the third and the fourth had a turn more.
    assert (len(rig.records), rig.cell(Cell.UNFINISHED)) == (6, 2)


def test_arrivals_of_an_open_loop_begin_conversations() -> None:
    rig = Rig(supply=RequestSource(turns=2, pause_s=0.25))
    rig.follow("hold 10", Loop.OPEN)
    rig.until(0.55)
    assert len(rig.transport.open) == 5
    rig.answer(5, SAID)
    rig.until(0.95)
    turns = [reply.turn for reply in rig.transport.open]
    assert (turns.count(1), turns.count(2)) == (4, 5)
    later = [reply.intended_ns for reply in rig.transport.open if reply.turn == 2]
    assert later == [int(0.8 * NS)] * 5


def test_a_turn_that_cannot_be_sent_goes_out_late_or_is_at_last_given_up() -> None:
    rig = Rig(limit=2, supply=RequestSource(turns=2, pause_s=5))
    rig.follow("hold 10", Loop.OPEN)
    for moment in (0.21, 0.41):
        rig.until(moment)
        rig.answer(2, SAID)
    rig.until(6, 0.1)  # four users have thought; others' arrivals took both places
    assert [reply.turn for reply in rig.transport.open] == [1, 1]
    rig.until(20, 0.5)
    rig.answer(2)
    rig.until(21, 0.5)
    assert [reply.turn for reply in rig.transport.open] == [2, 2]
    assert [reply.intended_ns / NS for reply in rig.transport.open] == pytest.approx(
        [5.2] * 2, abs=0.05
    )
    rig.until(66, 0.5)
    given_up = [record for record in rig.records if record.turn == 2]
    assert [record.error for record in given_up] == ["not sent: 2 requests were in flight"] * 2
    assert all(record.fate is Fate.FAILED and record.sent is None for record in given_up)


def test_late_sends_are_counted() -> None:
    rig = Rig()
    rig.follow("hold 10", Loop.OPEN)
    rig.until(0.95, 0.005)
    assert rig.cell(Cell.LATE) == 0
    rig.now = 2 * NS
    rig.scheduler.tick()
    assert rig.cell(Cell.LATE) == pytest.approx(10, abs=1)


def test_what_was_due_when_the_load_changed_is_not_forgotten() -> None:
    rig = Rig(limit=3)
    schedule = rig.follow("hold 10", Loop.OPEN)
    rig.until(1.05)
    stopped = schedule.stop(True, rig.now)
    rig.scheduler.steer(stopped)
    fates = [record.fate for record in rig.records]
    assert fates == [Fate.CUT] * 10
    assert rig.cell(Cell.NOT_SENT) == 7
    assert {record.error for record in rig.records} == {"cut", "not sent: the load was stopped"}


def test_a_drain_still_sends_what_is_due_at_that_moment() -> None:
    rig = Rig()
    schedule = rig.follow("hold 10", Loop.OPEN)
    rig.until(0.95)
    rig.now = int(1.05 * NS)
    rig.scheduler.steer(schedule.stop(False, rig.now))
    assert len(rig.transport.open) == 10 and rig.cell(Cell.NOT_SENT) == 0


def test_recorded_arrivals_have_their_lengths(tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    file.write_text("time,prompt_tokens,output_tokens\n5,10,20\n5.5,30,\n6,,\n")
    supply = RequestSource()
    rig = Rig(supply=supply)
    rig.follow(f"trace {file}", Loop.OPEN)
    rig.until(2)
    assert supply.sizes == [(10, 20), (30, 0), (0, 0)]
    assert [reply.intended_ns for reply in rig.transport.open] == [0, NS // 2, NS]


def dues(rig: Rig, seed: int, arrivals: int | None) -> list[int]:
    """When the requests of two seconds are due, counted from the beginning of their plan."""
    rig.transport.open.clear()
    plan = Plan(Loop.OPEN, "hold 20 for 2s", seed, arrivals=arrivals)
    begun = rig.now
    schedule = Schedule(plan, begun, begun, number=seed)
    rig.scheduler.steer(schedule)
    rig.until(begun / NS + 1)
    rig.scheduler.steer(schedule.hold(rig.now))  # the same plan goes on: no new lengths
    rig.until(begun / NS + 2)
    return [reply.intended_ns - begun for reply in rig.transport.open]


def test_plans_that_share_their_arrivals_meet_the_same_ones() -> None:
    supply = RequestSource()
    rig = Rig(supply=supply)
    first, again, other, own = (
        dues(rig, seed, arrivals) for seed, arrivals in ((1, 7), (2, 7), (3, 8), (4, None))
    )
    assert first == again and len(first) > 10
    assert other not in (first, own) and own != first
    assert supply.begun == [7, 7, 8]

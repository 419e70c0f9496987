"""When the load's loop may rest between two polls, and what must not wait for it."""

import socket

import pytest

from llmtop.loadgen.client.coalescing import DECIDE_NS, PAUSES_NS, Pause
from llmtop.loadgen.client.socket_transport import SocketTransport
from llmtop.loadgen.core.clock import NS, StampClock
from llmtop.loadgen.protocol.request_state import RequestState
from llmtop.loadgen.statistics.shared_counters import Cell, SharedCounters
from llmtop.loadgen.workload.plan import Target

MS = 1_000_000


def see(
    counters: SharedCounters,
    streams: int,
    itl_ms: float,
    *,
    seconds: float = 0.1,
    request_s: float = 2.5,
    at_once: float = 0.0,
) -> None:
    """So many streams run for a while. at_once: share of tokens that come with the one before."""
    tokens = int(streams * seconds * 1000 / itl_ms)
    together = int(at_once * tokens)
    counters.cells[Cell.TOKENS] += tokens
    counters.cells[Cell.READS] += tokens - together
    counters.cells[Cell.OK] += int(streams * seconds / request_s)
    counters.cells[Cell.IN_FLIGHT] = streams
    for _ in range(together):
        counters.itl.record(0)
    for _ in range(tokens - together):
        counters.itl.record(int(itl_ms * MS))


def told(streams: int, itl_ms: float, request_s: float = 2.5, at_once: float = 0.0) -> int:
    counters = SharedCounters()
    pause = Pause(counters)
    pause.update(NS)
    see(counters, streams, itl_ms, request_s=request_s, at_once=at_once)
    pause.update(NS + DECIDE_NS)
    return pause.ns


def test_many_slow_streams_are_read_together() -> None:
    assert told(streams=256, itl_ms=20) == MS
    assert told(streams=1000, itl_ms=20) == MS


def test_one_that_finds_little_to_do_is_woken_by_each_chunk() -> None:
    assert told(streams=32, itl_ms=20) == 0
    assert told(streams=1, itl_ms=1) == 0


@pytest.mark.parametrize("itl_ms", [0.2, 0.7, 1.5, 2.5, 3, 5, 20, 200])
def test_two_tokens_of_a_stream_are_far_further_apart_than_two_polls(itl_ms: float) -> None:
    pause = told(streams=4000, itl_ms=itl_ms, request_s=60)
    assert pause <= itl_ms * MS / 8
    assert bool(pause) == (itl_ms > 2)


def test_a_stream_that_speeds_up_is_noticed_at_the_next_look() -> None:
    counters = SharedCounters()
    pause = Pause(counters)
    pause.update(NS)
    see(counters, 256, 20)
    pause.update(NS + DECIDE_NS)
    assert pause.ns == MS and pause.due_ns == NS + 2 * DECIDE_NS
    # Under the pause its tokens come two in a read: the second has no gap to the first.
    see(counters, 256, 1, at_once=0.5)
    pause.update(NS + 2 * DECIDE_NS)
    assert pause.ns == 0


def test_tokens_under_one_stamp_end_the_pause() -> None:
    assert told(streams=1000, itl_ms=20, at_once=0.002) == MS
    assert told(streams=1000, itl_ms=20, at_once=0.03) == 0


def test_requests_that_follow_each_other_quickly_are_not_held_up() -> None:
    # Half of a pause on average passes before the next request: a thousandth of what one takes.
    assert [told(1000, 20, request_s) for request_s in (0.6, 0.3, 0.15, 0.05)] == [*PAUSES_NS, 0]


def test_nothing_is_known_at_first_and_after_silence() -> None:
    counters = SharedCounters()
    see(counters, 256, 20)
    pause = Pause(counters)
    pause.update(NS)
    assert pause.ns == 0
    see(counters, 256, 20)
    pause.update(NS + DECIDE_NS)
    assert pause.ns == MS
    pause.update(NS + 2 * DECIDE_NS)
    assert pause.ns == 0


def test_reads_that_the_kernel_does_not_stamp_are_not_kept_waiting() -> None:
    counters = SharedCounters()
    pause = Pause(counters)
    pause.update(NS)
    see(counters, 256, 20)
    counters.cells[Cell.UNSTAMPED] += 50
    pause.update(NS + DECIDE_NS)
    assert pause.ns == 0


class Line:
    """A transport on a clock that only its own rests move, as after a tenth of a second's load."""

    def __init__(self, port: int) -> None:
        self.now = NS
        self.rests: list[int] = []
        self.counters, self.usage_seen = SharedCounters(), False
        self.transport = SocketTransport(
            Target(f"http://127.0.0.1:{port}", "m"),
            self.counters,
            lambda: self.now,
            StampClock(lambda: self.now, lambda: self.now),
            self.rest,
        )
        self.transport.turn(self.now)
        see(self.counters, 256, 20)
        self.now += DECIDE_NS

    def rest(self, seconds: float) -> None:
        self.rests.append(round(seconds * NS))
        self.now += self.rests[-1]

    def first(self, reply: RequestState) -> None: ...
    def over(self, reply: RequestState) -> None: ...


def test_a_send_that_is_due_waits_neither_for_a_rest_nor_for_what_is_unread() -> None:
    near, far = socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as server, near, far:
        line = Line(server.getsockname()[1])
        read: list[bytes] = []
        line.transport.watch(near.fileno(), lambda: read.append(near.recv(1)))
        line.transport.turn(line.now)
        assert line.rests == []
        far.send(b"x")
        line.transport.turn(line.now + MS // 4)
        assert line.rests == [MS // 4] and read == []
        line.transport.turn(line.now + 10 * MS)
        assert line.rests == [MS // 4, 3 * MS // 4] and read == [b"x"]
        line.transport.close()


def test_no_rest_while_a_request_waits_for_its_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        line = Line(server.getsockname()[1])
        reply = RequestState(b"{}", line.now, line.counters, line)
        line.transport.send(reply)
        line.transport.turn(line.now + 60 * NS)  # until the connection stands
        assert reply.sent_ns == reply.intended_ns
        assert line.rests == []
        with server.accept()[0] as other_end:
            assert other_end.recv(4) == b"POST"
        line.transport.turn(line.now + MS // 2)
        assert line.rests == [MS // 2]
        line.transport.close()

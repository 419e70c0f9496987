"""Both transports, driven by hand in this process, and where requests go."""

import socket
import time
from collections.abc import Callable

import psutil
import pytest

from llmtop import UsageError
from llmtop.loadgen.client.httpx_transport import HttpxTransport
from llmtop.loadgen.client.socket_transport import SocketTransport
from llmtop.loadgen.client.transport import Transport, address, endpoint, is_loopback
from llmtop.loadgen.core.results import Fate, RequestRecord
from llmtop.loadgen.protocol.request_state import RequestState
from llmtop.loadgen.statistics.shared_counters import Cell, SharedCounters
from llmtop.loadgen.workers.scheduler import Scheduler
from llmtop.loadgen.workload.plan import Plan, Prompts, Target
from llmtop.loadgen.workload.prompts import Bodies
from llmtop.loadgen.workload.schedule import Schedule
from tests.quirky_server import Quirk, serving

DEADLINE_S = 60.0
MS = 1_000_000
KINDS = {"sockets": SocketTransport, "httpx": HttpxTransport}


class Rig:
    """A listener that starts requests one by one."""

    def __init__(self, kind: str, url: str, model: str = "m", tokens: int = 3) -> None:
        self.usage_seen = False
        self.counters = SharedCounters()
        self.target = Target(url, model, api_key="sk-secret")
        self.transport: Transport = KINDS[kind](self.target, self.counters)
        prompts = Prompts(prompt_tokens=(8, 8), output_tokens=(tokens, tokens))
        self.bodies = Bodies(prompts, self.target, seed=1)

    def first(self, reply: RequestState) -> None: ...
    def over(self, reply: RequestState) -> None: ...

    def send(self) -> RequestState:
        reply = RequestState(self.bodies.next(), time.monotonic_ns(), self.counters, self)
        self.transport.send(reply)
        return reply

    def turn_until(self, what: Callable[[], object]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not what():
            assert time.monotonic() < deadline, "nothing came of it"
            self.transport.turn(time.monotonic_ns() + 10 * MS)

    def fetch(self) -> RequestRecord:
        reply = self.send()
        self.turn_until(lambda: reply.over)
        return reply.record(0, time.monotonic_ns())


@pytest.mark.parametrize("kind", KINDS)
def test_a_good_answer(kind: str) -> None:
    with serving(0.05, 0.01) as (server, url):
        rig = Rig(kind, url)
        record = rig.fetch()
        assert rig.fetch().fate is Fate.OK
        rig.transport.close()
    assert (record.fate, record.tokens, record.prompt_tokens) == (Fate.OK, 3, 8)
    assert record.sent is not None and record.first_byte is not None and record.ttft is not None
    assert record.intended <= record.sent <= record.first_byte
    assert record.ttft >= 0.05
    assert server.connections == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("quirk", "error"),
    [
        (Quirk.BUSY, "HTTP 429: too many requests"),
        (Quirk.NO_USAGE, "[DONE] without the requested usage"),
        (Quirk.ENDLESS_LINE, "a line in the stream is too long"),
        (Quirk.ENDLESS_ERROR, "HTTP 500: aaa"),
        (Quirk.RESET, ""),
        (Quirk.HALF, ""),
        (Quirk.CLOSE, ""),
        (Quirk.NONSENSE, ""),
    ],
)
def test_a_bad_answer(kind: str, quirk: Quirk, error: str) -> None:
    with serving(0.01, 0.001) as (_, url):
        rig = Rig(kind, url, quirk.value, 5)
        record = rig.fetch()
        rig.transport.close()
    assert record.fate is (Fate.REFUSED if quirk is Quirk.BUSY else Fate.FAILED)
    assert record.error and record.error.startswith(error)


ENDLESS = (Quirk.STALL, Quirk.STALL_LATER, Quirk.PINGS)
GOOD = (Quirk.ROLE_FIRST, Quirk.CLOSE_DELIMITED)


@pytest.mark.parametrize("quirk", list(Quirk))
def test_no_server_hangs_the_transport_for_https(quirk: Quirk) -> None:
    records: list[RequestRecord] = []
    counters = SharedCounters()
    with serving(0.01, 0.005) as (_, url):
        target = Target(url, quirk.value)
        transport = HttpxTransport(target, counters)
        bodies = Bodies(Prompts((8, 8), (5, 5)), target, seed=1)
        # Its first request takes as long as the imports that it brings about.
        timeout_s = 0.5 if quirk in ENDLESS else DEADLINE_S
        scheduler = Scheduler(
            transport, counters, bodies, records.append, zero_ns=0, timeout_s=timeout_s, limit=100
        )
        now = time.monotonic_ns()
        scheduler.steer(Schedule(Plan(shape="hold 3"), now, now))
        deadline = time.monotonic() + DEADLINE_S
        while len(records) < 3:
            assert time.monotonic() < deadline, "it hangs"
            transport.turn(scheduler.tick())
        transport.close()
    if quirk is Quirk.SHORT_KEEP_ALIVE:
        # httpx does not tell whether a connection had been used before, so nothing is sent again.
        assert Fate.OK in {record.fate for record in records}
    elif quirk in GOOD:
        assert {record.fate for record in records} == {Fate.OK}
    else:
        busy = quirk in (Quirk.BUSY, Quirk.BUSY_FOR_LONG)
        fate = Fate.REFUSED if busy else Fate.FAILED
        assert {record.fate for record in records} == {fate}
        assert all(record.error for record in records)


@pytest.mark.parametrize("kind", KINDS)
def test_a_refused_connection(kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    rig = Rig(kind, f"http://127.0.0.1:{port}")
    record = rig.fetch()
    rig.transport.close()
    assert record.fate is Fate.FAILED and record.error


@pytest.mark.parametrize("kind", KINDS)
def test_a_dropped_request_lets_go_of_its_connection(kind: str) -> None:
    with serving() as (server, url):
        rig = Rig(kind, url, Quirk.STALL.value)
        reply = rig.send()
        rig.turn_until(lambda: server.open_streams == 1)
        reply.cut()
        rig.transport.drop(reply)
        other = Rig(kind, url)
        assert other.fetch().fate is Fate.OK
        rig.transport.turn(time.monotonic_ns() + 10 * MS)
        assert rig.counters.cells[Cell.CUT] == 1
        rig.transport.close()
        other.transport.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_transport_can_be_closed_in_the_middle_of_answers(kind: str) -> None:
    with serving(0.01, 0.05) as (_, url):
        rig = Rig(kind, url, tokens=1000)
        replies = [rig.send() for _ in range(3)]
        rig.turn_until(lambda: all(reply.last_ns for reply in replies))
        rig.transport.close()
        port = address(url).port
        ends = [end.raddr for end in psutil.Process().net_connections("tcp4") if end.raddr]
        assert port not in {end.port for end in ends}, "a connection was left open"


def test_kernel_stamps_are_true_though_the_client_comes_late() -> None:
    with serving(0.05, 0.01) as (server, url):
        rig = Rig("sockets", url, tokens=1)
        rig.fetch()  # stamps are on for the whole machine from its first use of them
        reply = rig.send()
        rig.turn_until(lambda: reply.sent_ns and server.requests == 2)
        deadline = time.monotonic() + DEADLINE_S
        while server.open_streams:  # all of the answer is on its way
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(1.0)  # a client that gets no core
        rig.turn_until(lambda: reply.over)
        late = time.monotonic_ns()
        rig.transport.close()
    assert rig.counters.cells[Cell.UNSTAMPED] == 0
    assert (late - reply.intended_ns) / 1e9 > 1.05
    assert late - reply.last_ns > 900 * MS
    assert reply.first_ns - reply.intended_ns >= 50 * MS


def test_a_connection_that_went_stale_costs_nothing() -> None:
    with serving(0.01, 0.001) as (server, url):
        rig = Rig("sockets", url, Quirk.SHORT_KEEP_ALIVE.value)
        assert rig.fetch().fate is Fate.OK
        # The server's end is closed by now or soon; the request finds out by itself.
        assert rig.fetch().fate is Fate.OK
        rig.transport.close()
        assert server.connections == 2
        assert rig.counters.cells[Cell.SENT] == 2


def test_a_long_prompt_goes_out_in_parts() -> None:
    with serving(0.01, 0.001) as (_, url):
        rig = Rig("sockets", url)
        rig.bodies = Bodies(Prompts(prompt_tokens=(15_000, 15_000)), rig.target, seed=1)
        record = rig.fetch()
        rig.transport.close()
    assert (record.fate, record.prompt_tokens) == (Fate.OK, 15_000)


@pytest.mark.parametrize(
    ("url", "base", "path"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1", "/v1/completions"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000/v1", "/v1/completions"),
        ("http://box/v1/", "http://box:80/v1", "/v1/completions"),
        ("https://box/llm", "https://box:443/llm/v1", "/llm/v1/completions"),
        ("http://[::1]:9", "http://[::1]:9/v1", "/v1/completions"),
        ("localhost:9", "http://localhost:9/v1", "/v1/completions"),
    ],
)
def test_where_requests_go(url: str, base: str, path: str) -> None:
    assert address(url).base_url == base
    assert endpoint(Target(url, "m")) == path
    assert endpoint(Target(url, "m", chat=True)) == path.replace("compl", "chat/compl")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://x",
        "http://",
        "http://x:99999",
        "http://x:y",
        "http://a b",
        "http://x/\r\nHost: y",
    ],
)
def test_what_is_no_target(url: str) -> None:
    with pytest.raises(UsageError, match="not an http or https URL"):
        address(url)


def test_a_password_in_a_url_is_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        address("http://me:hunter2@box")
    assert "hunter2" not in f"{caught.value.message}{caught.value.hint}"


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:8000", True),
        ("http://127.9.9.9", True),
        ("http://localhost:1", True),
        ("https://[::1]", True),
        ("http://0.0.0.0:1", False),
        ("http://10.0.0.7", False),
        ("http://localhost.example.org", False),
        ("http://127.0.0.1.example.org", False),
    ],
)
def test_what_is_this_machine(url: str, local: bool) -> None:
    assert is_loopback(url) is local

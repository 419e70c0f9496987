"""The queue limit in vLLM's front ends: who is let in, who is refused, and what is counted."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import socket
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

HTTP = {"type": "http", "method": "POST", "path": "/v1/completions"}


class Server:
    """Schedulers and front ends of one server. The test is the clock."""

    def __init__(self, folder: Path, *, front_ends: int = 1, ranks: int = 1) -> None:
        self.now = 0.0
        self.unfinished = [0] * front_ends
        counters = importlib.import_module("llmtop_vllm.queue_counters")
        self.gates = importlib.import_module("llmtop_vllm.api_server.queue_gate")
        self.path = str(folder / "live")
        self.shared = counters.QueueCounters(self.path)
        self.ranks = [self.shared.open_rank(rank) for rank in range(ranks)]
        self.front_ends = [self._front_end(counters, number) for number in range(front_ends)]

    def _front_end(self, counters: Any, number: int) -> Any:
        shared = counters.QueueCounters(self.path)  # as another process would open it
        mine = shared.open_front_end(number)
        return self.gates.QueueGate(
            shared, mine, lambda: self.unfinished[number], clock=lambda: self.now
        )

    def gated(
        self,
        application: Any,
        guard: Callable[[Exception], None],
        flushed: Callable[[Callable[[], None]], None] = lambda work: work(),
    ) -> Any:
        """The application behind the gate of the first front end."""
        latency = importlib.import_module("llmtop_live.latency_histogram")
        ttft_recorder = importlib.import_module("llmtop_vllm.api_server.ttft_recorder")
        self.ttft = latency.LatencyHistogram()
        self.recorder = ttft_recorder.TtftRecorder(
            self.ttft,
            lambda work, where: work(),
            lambda: self.now,
            lambda: self.now + 1e9,
            flushed,
        )
        return self.gates.gated(application, self.front_ends[0], self.recorder, guard)

    def limit(self, limit: int) -> None:
        for gate in self.front_ends:
            gate.limit = limit

    def plan(self, waiting: int, running: int = 8, slots: int = 8, rank: int = 0) -> None:
        """A step was planned."""
        self.ranks[rank].write(waiting, running, slots, True)

    def send(self, gate: Any = None, many: int = 1) -> list[Any]:
        """So many requests come; the claims of those that were let in, None for the others."""
        gate = gate or self.front_ends[0]
        return [gate.enter() for _ in range(many)]

    def receive(self, many: int, rank: int = 0) -> None:
        for _ in range(many):
            self.ranks[rank].received()


@pytest.fixture
def serve(plugin: ModuleType, tmp_path: Path) -> Callable[..., Server]:
    return lambda **how: Server(tmp_path / "s", **how)


def let_in(claims: list[Any]) -> int:
    return sum(claim is not None for claim in claims)


def test_without_a_limit_everybody_is_let_in(serve: Callable[..., Server]) -> None:
    server = serve()
    server.plan(waiting=1000)
    assert let_in(server.send(many=50)) == 50
    assert server.front_ends[0].refused == 0


def test_the_queue_and_what_is_on_its_way_to_it_are_limited(serve: Callable[..., Server]) -> None:
    server = serve()
    server.limit(4)
    server.plan(waiting=1)
    claims = server.send(many=10)  # one step takes so long that the engine reads none of them
    assert let_in(claims) == 3
    assert server.front_ends[0].refused == server.shared.refused() == 7

    server.receive(3)
    server.plan(waiting=2)  # two of four were admitted
    assert let_in(server.send(many=10)) == 2


def test_running_requests_do_not_count_and_free_slots_are_room(
    serve: Callable[..., Server],
) -> None:
    server = serve()
    server.limit(1)
    server.plan(waiting=0, running=0, slots=8)
    assert let_in(server.send(many=20)) == 9  # eight to run, one to wait
    server.receive(9)
    server.plan(waiting=1, running=8, slots=8)
    assert let_in(server.send()) == 0


def test_a_full_cache_is_no_room_however_few_run(serve: Callable[..., Server]) -> None:
    server = serve()
    server.limit(2)
    server.plan(waiting=2, running=3, slots=8)  # it could not admit them
    assert let_in(server.send()) == 0
    server.ranks[0].write(2, 2, 8, False)  # one has finished; the next step is not planned yet
    assert let_in(server.send()) == 0


def test_front_ends_and_ranks_count_together(serve: Callable[..., Server]) -> None:
    server = serve(front_ends=2, ranks=2)
    server.limit(2)  # of each rank
    for rank in (0, 1):
        server.plan(waiting=1, rank=rank)
    one, other = server.front_ends
    assert let_in(server.send(one)) == 1
    assert let_in(server.send(other)) == 1
    assert let_in(server.send(one)) == let_in(server.send(other)) == 0
    assert (one.refused, other.refused, server.shared.refused()) == (1, 1, 2)


def test_a_wrong_request_gives_its_place_back(serve: Callable[..., Server]) -> None:
    server = serve()
    server.limit(1)
    server.plan(waiting=0)
    (claim,) = server.send()
    assert let_in(server.send()) == 0
    server.front_ends[0].leave(claim)  # answered with 400, it never went to the engine
    assert let_in(server.send()) == 1


def test_several_prompts_of_one_request_count_each(serve: Callable[..., Server]) -> None:
    server = serve()
    server.limit(4)
    server.plan(waiting=0)
    gate = server.front_ends[0]
    (claim,) = server.send()
    server.unfinished[0] = 3
    token = server.gates.CURRENT.set(claim)
    for _ in range(3):
        gate.submitted()
    server.gates.CURRENT.reset(token)
    assert let_in(server.send(many=5)) == 1


def test_what_was_lost_on_its_way_is_forgotten(serve: Callable[..., Server]) -> None:
    server = serve()
    server.limit(1)
    server.plan(waiting=0)
    (claim,) = server.send()
    token = server.gates.CURRENT.set(claim)
    server.front_ends[0].submitted()  # it was sent, and the engine could not read it
    server.gates.CURRENT.reset(token)
    server.front_ends[0].leave(claim)
    assert let_in(server.send()) == 1  # nothing is unfinished, so nothing waits


def test_an_engine_that_counts_no_more_lets_everybody_in(serve: Callable[..., Server]) -> None:
    server = serve()
    server.limit(1)
    server.plan(waiting=5)
    assert let_in(server.send()) == 0
    server.ranks[0].close()  # the guard switched introspection off
    server.now += 2.0
    assert let_in(server.send(many=3)) == 3


def test_the_file_is_ours_alone_and_a_link_is_not_followed(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    server = serve()
    path = Path(server.path + ".queue")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.unlink()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("kept")
    os.symlink(elsewhere, path)
    counters = importlib.import_module("llmtop_vllm.queue_counters")
    with pytest.raises(OSError):
        counters.QueueCounters(server.path)
    assert elsewhere.read_text() == "kept"


def test_in_a_folder_that_others_may_enter_nothing_is_shared(
    plugin: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    counters = importlib.import_module("llmtop_vllm.queue_counters")
    with pytest.raises(OSError, match="accessible by other users"):
        counters.QueueCounters(str(tmp_path / "open" / "live"))


class Answer:
    """What a client gets."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    async def send(self, message: dict[str, Any]) -> None:
        self.messages.append(message)

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.messages[0]["headers"])


async def application(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})


async def no_body() -> Any:
    raise AssertionError("the gate reads no body")


async def test_a_refusal_is_an_error_of_the_api_with_a_time_to_retry(
    serve: Callable[..., Server],
) -> None:
    server = serve()
    server.limit(1)
    server.plan(waiting=1)
    gated = server.gated(application, lambda error: None)
    answer = Answer()
    await gated(HTTP, no_body, answer.send)
    assert (answer.status, answer.headers[b"retry-after"]) == (503, b"1")
    error = json.loads(answer.messages[1]["body"])["error"]
    assert error["code"] == 503 and "max_queued_requests" in error["message"]

    for scope in ({**HTTP, "path": "/metrics"}, {**HTTP, "method": "GET"}):
        answer = Answer()
        await gated(scope, no_body, answer.send)
        assert answer.status == 200


async def test_a_gate_that_breaks_is_open(serve: Callable[..., Server]) -> None:
    server = serve()
    server.limit(1)
    server.front_ends[0].has_room = lambda: 1 // 0
    broken: list[Exception] = []
    gated = server.gated(application, broken.append)
    answer = Answer()
    await gated(HTTP, no_body, answer.send)
    assert answer.status == 200 and isinstance(broken[0], ZeroDivisionError)


def no_guard(error: Exception) -> None:
    raise error


def output(ident: str, *tokens: int) -> Any:
    return SimpleNamespace(request_id=ident, new_token_ids=list(tokens))


class Api:
    """What vLLM does with an HTTP request: it reads it, sends it to the engine, and answers when
    the first token is there."""

    def __init__(self, server: Server, idents: tuple[str, ...], *, streams: bool) -> None:
        self.server, self.idents, self.streams = server, idents, streams
        self.outputs: list[Any] = [output(one, 7) for one in idents]
        self.chunks = [b"data: {}", b"data: [DONE]"]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        server = self.server
        server.now += 0.005  # reads and checks it
        for ident in self.idents:
            server.recorder.submitted(
                SimpleNamespace(request_id=ident, arrival_time=1e9 + server.now)
            )
        server.now += 0.030
        server.recorder.outputs_received([output("somebody's", 7)])
        server.recorder.outputs_received(self.outputs)
        kind = b"text/event-stream" if self.streams else b"application/json"
        headers = [(b"content-type", kind)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for at, chunk in enumerate(self.chunks):
            server.now += 0.002  # makes and writes it
            more = at + 1 < len(self.chunks)
            await send({"type": "http.response.body", "body": chunk, "more_body": more})


@pytest.mark.parametrize(
    ("streams", "took"), [(True, 0.037), (False, 0.035)], ids=["stream", "in one piece"]
)
@pytest.mark.parametrize("idents", [("a",), ("a-0", "a-1")], ids=["one prompt", "two prompts"])
async def test_a_first_token_is_timed_from_the_door_to_the_first_bytes(
    serve: Callable[..., Server], streams: bool, took: float, idents: tuple[str, ...]
) -> None:
    server = serve()
    api = Api(server, idents, streams=streams)
    await server.gated(api, no_guard)(HTTP, no_body, Answer().send)
    told = server.ttft.read()
    assert (told["count"], told["sum_s"]) == (1, pytest.approx(took))


async def test_a_request_counts_from_when_the_server_had_it_not_from_its_first_turn(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    class RequestResponseCycle:  # as uvicorn makes one for each request
        def __init__(self, scope: dict[str, Any]) -> None:
            self.scope = scope

    server = serve()
    module = SimpleNamespace(RequestResponseCycle=RequestResponseCycle)
    monkeypatch.setitem(sys.modules, "uvicorn.protocols.http.h11_impl", module)
    for other in ("uvicorn", "uvicorn.protocols", "uvicorn.protocols.http"):
        monkeypatch.setitem(sys.modules, other, SimpleNamespace(__path__=[]))
    stamps = importlib.import_module("llmtop_vllm.api_server.arrival_stamps")
    undo = stamps.stamp_arrivals(lambda work, where: work(), lambda: server.now)
    first, second = (RequestResponseCycle(dict(HTTP)).scope for _ in range(2))
    gated = server.gated(Api(server, ("a",), streams=True), no_guard)
    await gated(first, no_body, Answer().send)
    busy_s = server.now  # so long the event loop was busy with the first one
    await gated(second, no_body, Answer().send)
    told = server.ttft.read()
    assert (told["count"], told["min_s"]) == (2, pytest.approx(0.037))
    assert told["max_s"] == pytest.approx(busy_s + 0.037)
    for one in undo:
        one()
    assert RequestResponseCycle(dict(HTTP)).scope == HTTP


def test_the_kernel_tells_for_how_long_a_request_has_waited_in_its_socket(
    plugin: ModuleType,
) -> None:
    stamps = importlib.import_module("llmtop_vllm.api_server.arrival_stamps")
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        begun = time.monotonic()
        client.sendall(b"POST /v1/completions HTTP/1.1")
        taken, _ = server.accept()
    with client, taken:
        transport = SimpleNamespace(get_extra_info=lambda name: taken)
        while not (waited := stamps.waited_s(transport)):
            assert time.monotonic() - begun < 60, "it never waits"
        assert 0.005 <= waited <= time.monotonic() - begun + 0.011  # a tick is 10 ms at most
    pair = socket.socketpair()
    with pair[0], pair[1]:
        assert stamps.waited_s(SimpleNamespace(get_extra_info=lambda name: pair[0])) == 0.0
    assert stamps.waited_s(None) == 0.0


async def test_a_stream_is_timed_when_its_first_bytes_have_left(
    serve: Callable[..., Server],
) -> None:
    later: list[Callable[[], None]] = []
    server = serve()
    gated = server.gated(Api(server, ("a",), streams=True), no_guard, later.append)
    await gated(HTTP, no_body, Answer().send)
    assert server.ttft.read()["count"] == 0
    server.now = 0.5
    for work in later:
        work()
    told = server.ttft.read()
    assert (told["count"], told["max_s"]) == (1, pytest.approx(0.5))


async def test_an_answer_without_a_token_is_not_timed(serve: Callable[..., Server]) -> None:
    server = serve()
    api = Api(server, ("a",), streams=True)
    api.outputs, api.chunks = [output("a")], [b'data: {"error": {}}', b"data: [DONE]"]
    await server.gated(api, no_guard)(HTTP, no_body, Answer().send)
    api.outputs = []  # its client went away
    await server.gated(api, no_guard)(HTTP, no_body, Answer().send)
    server.recorder.outputs_received([output("a", 7)])
    assert server.ttft.read()["count"] == 0


async def test_a_request_that_did_not_come_through_the_gate_is_timed_by_its_stamp(
    serve: Callable[..., Server],
) -> None:
    server = serve()
    server.gated(application, no_guard)
    server.recorder.submitted(SimpleNamespace(request_id="a", arrival_time=1e9 + server.now - 0.25))
    server.now += 0.5
    server.recorder.outputs_received([output("a", 7)])
    assert server.ttft.read()["max_s"] == pytest.approx(0.75)


class Queue:
    """The queue between vLLM's output handler and one client: an error stays on top."""

    def __init__(self) -> None:
        self.put_in: list[Any] = []

    def put(self, told: Any) -> None:
        self.put_in.append(told)


class Engine:
    """As much of AsyncLLM as an abort needs."""

    def __init__(self, **requests: bool) -> None:
        self.aborted: list[str] = []
        states = {
            f"{name}-1a2b3c4d": SimpleNamespace(is_prefilling=new, queue=Queue())
            for name, new in requests.items()
        }
        self.output_processor = SimpleNamespace(
            request_states=states,
            external_req_ids={name: [f"{name}-1a2b3c4d"] for name in requests},
        )

    def told(self, name: str) -> list[Any]:
        put_in: list[Any] = self.output_processor.request_states[f"{name}-1a2b3c4d"].queue.put_in
        return put_in

    async def abort(self, ids: Any) -> None:
        self.aborted += ids


async def test_an_abort_is_an_error_only_where_no_token_came(plugin: ModuleType) -> None:
    aborts = importlib.import_module("llmtop_vllm.api_server.request_abort")
    engine = Engine(**{"chat-new": True, "chat-old": False, "cmpl-a-0": True, "cmpl-a-1": False})
    ids = ["chat-new", "chat-old", "cmpl-a", "chat", "gone"]
    aborted, ended, refused = await aborts.RequestAbort(engine)(ids, "ann", "too long")
    assert aborted == ["chat-new", "chat-old", "cmpl-a"]
    assert (ended, refused) == (["chat", "gone"], [])  # never a prefix
    assert engine.aborted == ["chat-new", "chat-old", "cmpl-a-0", "cmpl-a-1"]
    (error,) = engine.told("chat-new")
    assert str(error) == "The operator of this server aborted the request: too long."
    assert engine.told("chat-old") == [] and len(engine.told("cmpl-a-0")) == 1


async def test_an_abort_is_done_on_the_loop_of_the_server(plugin: ModuleType) -> None:
    aborts = importlib.import_module("llmtop_vllm.api_server.request_abort")
    not_done = importlib.import_module("llmtop_live.step_boundary").NotDone
    loop = aborts.EventLoop()
    with pytest.raises(not_done, match="has not received a request"):
        loop.call(lambda: 1)
    loop.loop = asyncio.get_running_loop()
    engine = Engine(a=False)
    work = aborts.RequestAbort(engine)
    told = await asyncio.to_thread(loop.call, lambda: work(["a"], "ann", ""), 10.0)
    assert told == (["a"], [], []) and engine.aborted == ["a"]
    with pytest.raises(not_done, match="ZeroDivisionError"):
        await asyncio.to_thread(loop.call, lambda: 1 // 0, 10.0)

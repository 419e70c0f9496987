"""The queue limit in SGLang's HTTP process: who is refused, and what the client gets."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Callable, MutableMapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from llmtop.engines.tuning.live_client import LiveClient
from tests.engines.sglang.conftest import until_it_listens

Message = MutableMapping[str, Any]


class Server:
    """SGLang's application: each request is sent on to the scheduler, and answered when told."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.reached = 0
        self.manager: Any = None
        self.stream = True

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.reached += 1
        if self.manager is not None:
            self.manager._send_one_request("tokens")
        await self.go.wait()
        kind = b"text/event-stream" if self.stream else b"application/json"
        headers = [(b"content-type", kind)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: {}\n\n", "more_body": True})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


class Client:
    """One request. status, headers, body: what came back."""

    def __init__(self, gate: Any, path: str = "/v1/completions", method: str = "POST") -> None:
        self.scope = {"type": "http", "method": method, "path": path, "headers": []}
        self.gate = gate
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = b""

    async def send(self) -> Client:
        async def receive() -> Message:
            return {"type": "http.request", "body": b"{}", "more_body": False}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.status, self.headers = message["status"], dict(message["headers"])
            else:
                self.body += message["body"]

        await self.gate(self.scope, receive, send)
        return self


class Front:
    """The HTTP process with our part in it, beside one scheduler whose queue we set."""

    def __init__(self, path: Path) -> None:
        modules = sys.modules
        boards = modules["llmtop_sglang.shared_queue"]
        self.board = boards.QueueWriter(f"{path}{boards.SUFFIX}", lambda: 8)
        self.server = Server()
        self.end = modules["llmtop_sglang.front_end"].FrontEnd(str(path), self.server, "0.0.test")
        self.server.manager = modules["sglang.srt.managers.tokenizer_manager"].TokenizerManager()
        self.gate = self.end.gate
        self.time = 100.0
        self.end._admission._clock = lambda: self.time
        self.refused = boards.refused_reader(f"{path}.front.0{boards.REFUSED_SUFFIX}")

    def limit(self, most: int) -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = self.end.tunables.submit(
            {"max_queued_requests": most}, False, "ann", 0.0
        )
        return told

    def queue(self, waiting: int, running: int) -> None:
        """The scheduler has taken in all that was sent, and shows its queue."""
        self.board.publish(waiting, running, self.time)
        self.time += 1.0

    async def many(self, count: int, **more: Any) -> list[Client]:
        """So many at once, answered when all have been let in or refused."""
        tasks = [asyncio.create_task(Client(self.gate, **more).send()) for _ in range(count)]
        for _ in range(5):
            await asyncio.sleep(0)
        self.server.go.set()
        return await asyncio.gather(*tasks)


@pytest.fixture
def front(plugin: ModuleType, path: Path, monkeypatch: pytest.MonkeyPatch) -> Front:
    class TokenizerManager:
        def _send_one_request(self, tokens: str) -> None:
            self.sent = tokens

    class RequestLogger:
        def log_finished_request(self, obj: Any, out: Any, request: Any = None) -> None:
            self.logged = out

    stand_ins: dict[str, dict[str, Any]] = {
        "sglang.srt.managers.tokenizer_manager": {"TokenizerManager": TokenizerManager},
        "sglang.srt.utils.request_logger": {"RequestLogger": RequestLogger},
    }
    for name, contents in stand_ins.items():
        module = ModuleType(name)
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, name, module)
    return Front(path)


def statuses(clients: list[Client]) -> list[int]:
    return sorted(client.status for client in clients)


def test_without_a_limit_nobody_is_refused(front: Front) -> None:
    front.queue(waiting=500, running=8)
    assert statuses(asyncio.run(front.many(20))) == [200] * 20


@pytest.mark.parametrize("stream", [True, False])
def test_above_the_limit_a_real_503_with_retry_after(front: Front, stream: bool) -> None:
    front.server.stream = stream
    assert front.limit(4)[0]["outcome"] == "applied"
    front.queue(waiting=4, running=8)
    (client,) = asyncio.run(front.many(1))
    assert (client.status, client.headers[b"retry-after"]) == (503, b"1")
    told = json.loads(client.body)
    assert told["code"] == 503 and "queue is full" in told["message"]
    assert front.server.reached == 0  # neither read nor tokenized
    assert front.refused() == 1
    assert front.end.introspection.describe()["refused_total"] == 1


def test_a_burst_fills_the_batch_first_and_then_the_queue(front: Front) -> None:
    front.limit(4)
    front.queue(waiting=0, running=5)
    clients = asyncio.run(front.many(20))
    assert statuses(clients).count(200) == 3 + 4  # three places of eight, and the queue
    assert front.refused() == 13


def test_what_the_scheduler_has_taken_in_is_counted_once(front: Front) -> None:
    front.limit(4)
    front.queue(waiting=0, running=8)

    async def run() -> list[int]:
        first = await front.many(2)
        front.time += 1.0
        front.queue(waiting=2, running=8)  # these two are in the queue now
        return statuses(first) + statuses(await front.many(3))

    assert asyncio.run(run()) == [200, 200, 200, 200, 503]


def test_those_that_never_got_to_the_scheduler_leave_no_trace(front: Front) -> None:
    front.server.manager = None  # each fails before it is sent
    front.limit(2)
    front.queue(waiting=0, running=8)

    async def run() -> None:
        for _ in range(20):
            assert statuses(await front.many(1)) == [200]

    asyncio.run(run())


def test_the_ranks_of_an_engine_count_together(front: Front, path: Path) -> None:
    boards = sys.modules["llmtop_sglang.shared_queue"]
    other = boards.QueueWriter(f"{path}.1{boards.SUFFIX}", lambda: 8)
    front.limit(2)
    front.queue(waiting=3, running=8)
    other.publish(0, 8, front.time)
    assert statuses(asyncio.run(front.many(2))) == [200, 503]  # two for each rank


def test_only_what_computes_is_refused(front: Front) -> None:
    front.limit(1)
    front.queue(waiting=9, running=8)
    assert asyncio.run(front.many(1, path="/health"))[0].status == 200
    assert asyncio.run(front.many(1, path="/v1/chat/completions", method="GET"))[0].status == 200
    (client,) = asyncio.run(front.many(1, path="/v1/messages"))
    assert client.status == 503
    assert json.loads(client.body)["error"]["type"] == "overloaded_error"


def test_when_no_scheduler_shows_its_queue_nobody_is_refused(front: Front) -> None:
    front.limit(1)
    front.queue(waiting=9, running=8)
    front.board.close()
    assert statuses(asyncio.run(front.many(5))) == [200] * 5


def test_a_folder_where_others_may_write_is_not_believed(plugin: ModuleType, path: Path) -> None:
    boards = sys.modules["llmtop_sglang.shared_queue"]
    path.parent.chmod(0o755)
    with pytest.raises(PermissionError, match="accessible by other users"):
        boards.QueueWriter(f"{path}{boards.SUFFIX}", lambda: 8)


def test_taking_the_limit_off_lets_everybody_in_again(front: Front) -> None:
    front.queue(waiting=9, running=8)
    front.limit(1)
    assert statuses(asyncio.run(front.many(1))) == [503]
    assert front.limit(0)[0]["outcome"] == "applied"
    assert statuses(asyncio.run(front.many(5))) == [200] * 5
    assert front.limit(-1)[0]["outcome"] == "refused"


def test_times_of_answers_and_their_way_out(front: Front) -> None:
    asyncio.run(front.many(3))
    logger = sys.modules["sglang.srt.utils.request_logger"].RequestLogger()
    meta = {"prefill_finished_time": 100.0, "response_sent_to_client_ts": 100.25}
    logger.log_finished_request(SimpleNamespace(stream=True), {"meta_info": meta}, None)
    whole = {**meta, "request_received_ts": 99.0}
    for reason in ("length", "abort"):
        out = {"meta_info": {**whole, "finish_reason": {"type": reason}}}
        logger.log_finished_request(SimpleNamespace(stream=False), out, None)
    logger.log_finished_request(SimpleNamespace(stream=True), {"meta_info": meta}, None)
    assert logger.logged["meta_info"] is meta  # SGLang's own goes on
    told = front.end.introspection.answer({"op": "latencies"})
    assert {name: h["count"] for name, h in told["histograms"].items()} == {
        "ttft": 3 + 1,  # of an answer in one piece it is the scheduler's first token
        "e2e": 3,
        "output_lag": 2,
    }
    assert told["base"]["ttft"] == "arrival at the server"
    assert told["histograms"]["output_lag"]["sum_s"] == 0.5
    assert told["histograms"]["ttft"]["max_s"] == 1.0
    assert told["missing"] == {}
    front.server.stream = False
    asyncio.run(front.many(1))


def test_a_version_that_does_not_tell_of_the_first_token_is_named(front: Front) -> None:
    logger = sys.modules["sglang.srt.utils.request_logger"].RequestLogger()
    told = front.end.introspection
    for meta in ({"finish_reason": {"type": "abort"}}, {"response_sent_to_client_ts": 100.25}):
        assert told.missing == {}
        logger.log_finished_request(SimpleNamespace(stream=True), {"meta_info": meta}, None)
    assert "first token" in told.answer({"op": "latencies"})["missing"]["output_lag"]


@pytest.mark.parametrize("where", ["enter", "send"])
def test_a_failure_in_here_refuses_nobody(
    front: Front, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    front.limit(1)
    front.queue(waiting=9, running=8)

    def broken(*_: Any) -> Any:
        raise TypeError("sabotaged")

    if where == "send":
        front.limit(0)
    setattr(front.end._admission, where, broken)
    with caplog.at_level(logging.WARNING):
        assert statuses(asyncio.run(front.many(5))) == [200] * 5
    assert front.limit(1)[0]["outcome"] == "refused"
    assert front.end.introspection.abilities == []
    assert len([r for r in caplog.records if "introspection is off" in r.message]) == 1
    manager = sys.modules["sglang.srt.managers.tokenizer_manager"].TokenizerManager
    assert manager._send_one_request.__name__ == "_send_one_request"  # the stock one again


@pytest.mark.process
def test_over_its_socket(front: Front, path: Path) -> None:
    front.end.open()
    until_it_listens(Path(f"{path}.front.0"))
    live = LiveClient(f"{path}.front.0")

    async def ask() -> Any:
        return await live.set({"max_queued_requests": 16}, by="ann"), await live.get()

    (change,), state = asyncio.run(ask())
    assert (change.before, change.after, change.outcome) == (0, 16, "applied")
    assert state.options["max_queued_requests"].value == 16


def test_it_goes_around_sglangs_application_only(
    plugin: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    front_end = sys.modules["llmtop_sglang.front_end"]
    server = ModuleType("sglang.srt.entrypoints.http_server")
    server.app = object()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, server.__name__, server)
    opened: list[Any] = []
    monkeypatch.setattr(front_end.FrontEnd, "open", lambda self: opened.append(self))
    built: Callable[[Any], str] = lambda app: "stack"  # noqa: E731
    assert front_end.around_stack(built, object()) == "stack"
    gate = front_end.around_stack(built, server.app)
    assert [gate] == [front.gate for front in opened]

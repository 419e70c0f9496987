"""SGLang's own live options, against servers that answer as its versions do and as they do not."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
from aiohttp import web

from llmtop.engines.core.options import Applies, Outcome
from llmtop.engines.sglang.http_options import HttpExchange, StockLive
from llmtop.engines.tuning.live_client import LiveError
from llmtop.wording.outcomes import outcome_words

KEY = "pp_max_micro_batch_size"


class Engine:
    """What SGLang does with the two requests. ranks: data-parallel; takes: keys besides the cap."""

    def __init__(
        self, ranks: int = 1, stages: int = 1, takes: tuple[str, ...] = (), honest: bool = True
    ) -> None:
        self.version = "0.5.23"
        self.most = 8
        self.stages = stages
        self.takes = takes
        self.honest = honest  # 0.5.12 says true whatever it did
        self.states: list[dict[str, Any]] = [
            {KEY: self.most // stages, "chunked_prefill_size": 1024, "max_prefill_tokens": 16384}
            for _ in range(ranks)
        ]
        self.asked: list[tuple[str, str, Any]] = []
        self.closed = False

    async def __call__(
        self, method: str, path: str, body: Mapping[str, Any] | None
    ) -> tuple[int, bytes]:
        self.asked.append((method, path, body))
        told = self.info() if path == "/server_info" else self.take(body)
        return 200, json.dumps(told).encode()

    def info(self) -> dict[str, Any]:
        each = {"effective_max_running_requests_per_dp": self.most}
        return {
            "version": self.version,
            "pp_size": self.stages,
            KEY: None,
            "chunked_prefill_size": 1024,
            "internal_states": [{**state, **each} for state in self.states],
        }

    def take(self, body: Mapping[str, Any] | None) -> list[bool]:
        assert body is not None
        changes = body["server_args"]
        limits = {KEY: self.most // self.stages, **dict.fromkeys(self.takes, 1 << 20)}
        fine = all(1 <= value <= limits.get(key, 0) for key, value in changes.items())
        for state in self.states:
            if fine:
                state.update(changes)
        return [fine or not self.honest for _ in self.states]

    async def close(self) -> None:
        self.closed = True


def client(engine: Engine) -> StockLive:
    ticks = iter(range(1000))
    return StockLive("http://x", exchange=engine, clock=lambda: next(ticks), now=lambda: 1.8e9)


async def test_the_cap_is_told_and_set() -> None:
    engine = Engine()
    stock = client(engine)
    state = await stock.get()
    assert (state.engine, state.version, state.disabled) == ("sglang", "0.5.23", None)
    assert set(state.options) == {"max_running_requests"}
    option = state.options["max_running_requests"]
    assert (option.value, option.launch, option.minimum, option.maximum) == (8, 8, 1, 8)
    assert option.applies is Applies.DRAINS
    (change,) = await stock.set({"max_running_requests": 3}, by="ann@pts/3")
    assert (change.before, change.after, change.outcome) == (8, 3, Outcome.APPLIED)
    assert (change.ack_ms, change.by, change.time) == (1000.0, "ann@pts/3", 1.8e9)
    assert ("POST", "/set_internal_state", {"server_args": {KEY: 3}}) in engine.asked
    state = await stock.get()
    assert state.options["max_running_requests"].value == 3
    assert [(past.by, past.after) for past in state.history] == [("ann@pts/3", 3)]


async def test_what_our_plugin_takes_on_every_rank_is_offered_from_the_start() -> None:
    engine = Engine(ranks=2, takes=("chunked_prefill_size",))
    for state in engine.states:
        state["llmtop_live"] = ["chunked_prefill_size", "no_such"]
    stock = client(engine)
    options = (await stock.get()).options
    assert set(options) == {"max_running_requests", "chunked_prefill_size"}
    assert (options["chunked_prefill_size"].value, options["chunked_prefill_size"].maximum) == (
        1024,
        1024,
    )
    (done,) = await stock.set({"chunked_prefill_size": 64})
    assert (done.outcome, done.before, done.after) == (Outcome.APPLIED, 1024, 64)
    assert (await stock.get()).options["chunked_prefill_size"].value == 64
    engine.takes = ()  # a value that the ranks refuse
    (done,) = await stock.set({"chunked_prefill_size": 63})
    assert done.outcome is Outcome.REFUSED and "its log shows the reason" in (done.reason or "")


@pytest.mark.parametrize("nonsense", ["x", None, [1, {}], {"a": 1}])
async def test_nonsense_in_what_is_offered_offers_nothing(nonsense: Any) -> None:
    engine = Engine()
    engine.states[0]["llmtop_live"] = nonsense
    assert set((await client(engine).get()).options) == {"max_running_requests"}


async def test_what_is_out_of_range_is_not_even_sent() -> None:
    engine = Engine()
    changes = await client(engine).set({"max_running_requests": 9, "mem_fraction_static": 1})
    assert [change.outcome for change in changes] == [Outcome.REFUSED] * 2
    assert "between 1 and 8" in (changes[0].reason or "")
    assert "not a live option" in (changes[1].reason or "")
    assert not any(method == "POST" for method, _, _ in engine.asked)


async def test_nothing_asked_is_nothing_done() -> None:
    engine = Engine()
    assert await client(engine).set({}) == ()
    assert engine.asked == []


async def test_it_cannot_evict() -> None:
    (change,) = await client(Engine()).set({"max_running_requests": 3}, evict=True)
    assert change.outcome is Outcome.REFUSED
    assert "evict" in (change.reason or "")


@pytest.mark.parametrize("honest", [True, False])
async def test_a_key_that_this_version_does_not_take(honest: bool) -> None:
    stock = client(Engine(honest=honest))
    (change,) = await stock.set({"chunked_prefill_size": 64})
    assert change.outcome is Outcome.REFUSED
    assert "0.5.23" in (change.reason or "")
    state = await stock.get()
    assert set(state.options) == {"max_running_requests"}
    assert state.history == ()


async def test_a_key_that_a_newer_version_takes_is_used_and_told_from_then_on() -> None:
    stock = client(Engine(takes=("chunked_prefill_size",)))
    (change,) = await stock.set({"chunked_prefill_size": 64})
    assert (change.outcome, change.before, change.after) == (Outcome.APPLIED, 1024, 64)
    option = (await stock.get()).options["chunked_prefill_size"]
    assert (option.value, option.launch, option.maximum) == (64, 1024, 1024)
    assert option.applies is Applies.LIVE_UP_TO_LAUNCH


async def test_every_data_parallel_rank_must_have_it() -> None:
    engine = Engine(ranks=2)
    stock = client(engine)
    option = (await stock.get()).options["max_running_requests"]
    assert "each of 2 data-parallel ranks" in option.note
    (change,) = await stock.set({"max_running_requests": 3})
    assert change.outcome is Outcome.APPLIED
    assert [state[KEY] for state in engine.states] == [3, 3]
    engine.states[1][KEY] = 5
    assert (await stock.get()).options["max_running_requests"].value == 3
    engine.take = lambda body: [False, True]  # type: ignore[method-assign]
    (change,) = await stock.set({"max_running_requests": 4})
    assert change.outcome is Outcome.REFUSED


async def test_a_change_over_http_says_on_how_many_ranks_it_is() -> None:
    engine = Engine(ranks=2)
    (change,) = await client(engine).set({"max_running_requests": 3})
    assert (change.outcome, outcome_words(change)) == (
        Outcome.APPLIED,
        "applied on 2 of 2 ranks",
    )
    (change,) = await client(Engine()).set({"max_running_requests": 3})
    assert change.ranks == ()


@pytest.mark.parametrize("numbered", [True, False])
async def test_a_rank_that_refuses_over_http_is_named_where_it_says_its_number(
    numbered: bool,
) -> None:
    engine = Engine(ranks=2)
    if numbered:  # by our plugin, and in no order
        engine.states[0]["llmtop_rank"], engine.states[1]["llmtop_rank"] = 1, 0

    def half(body: Mapping[str, Any] | None) -> list[bool]:
        assert body is not None
        engine.states[1].update(body["server_args"])
        return [False, True]

    engine.take = half  # type: ignore[method-assign]
    stock = client(engine)
    (change,) = await stock.set({"max_running_requests": 3})
    assert change.outcome is Outcome.PARTIAL
    assert outcome_words(change) == "applied on 1 of 2 ranks"
    option = (await stock.get()).options["max_running_requests"]
    if numbered:
        assert change.reason == "rank 1 refused: its log shows the reason"
        assert "the ranks differ: 3 on rank 0, 8 on rank 1" in option.note
    else:
        assert change.reason == "1 of 2 ranks refused it; SGLang's log shows which and why"
        assert "the ranks differ: 3, 8" in option.note
    assert option.value == 3 and {one.value for one in option.ranks} == {3, 8}


async def test_a_pipeline_divides_the_cap_among_its_stages() -> None:
    engine = Engine(stages=2)
    stock = client(engine)
    option = (await stock.get()).options["max_running_requests"]
    assert (option.value, option.minimum, option.maximum) == (8, 2, 8)
    (change,) = await stock.set({"max_running_requests": 6})
    assert change.outcome is Outcome.APPLIED
    assert engine.states[0][KEY] == 3
    (change,) = await stock.set({"max_running_requests": 5})
    assert "multiple of the 2 pipeline stages" in (change.reason or "")


async def test_it_is_closed_with_its_connections() -> None:
    engine = Engine()
    await client(engine).close()
    assert engine.closed


@pytest.mark.parametrize(
    "info",
    [
        [],
        {},
        {"internal_states": []},
        {"internal_states": ["x"]},
        {"internal_states": {}},
        {"internal_states": [{}], "version": 5},
    ],
)
async def test_nonsense_is_an_error_in_words(info: Any) -> None:
    engine = Engine()
    engine.info = lambda: info  # type: ignore[method-assign]
    with pytest.raises(LiveError, match="invalid data"):
        await client(engine).get()


async def test_an_engine_that_tells_no_cap_offers_none() -> None:
    engine = Engine()
    engine.states = [{KEY: "8", "chunked_prefill_size": True}]
    stock = client(engine)
    assert (await stock.get()).options == {}
    (change,) = await stock.set({"max_running_requests": 3})
    assert (change.outcome, change.before) == (Outcome.REFUSED, None)


Handler = Callable[[web.Request], Any]


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Handler], Any]]:
    """A real server on a free port that answers every request with ``handler``; its URL."""
    runners: list[web.AppRunner] = []

    async def start(handler: Handler) -> str:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        runners.append(runner)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    yield start
    for runner in runners:
        await runner.cleanup()


async def test_over_http_with_the_key(serve: Callable[[Handler], Any]) -> None:
    engine, seen = Engine(), []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization"))
        body = await request.json() if request.can_read_body else None
        _, told = await engine(request.method, request.path, body)
        return web.Response(body=told, content_type="application/json")

    stock = StockLive(await serve(answer), api_key="secret")
    (change,) = await stock.set({"max_running_requests": 3})
    assert change.outcome is Outcome.APPLIED
    assert (await stock.get()).options["max_running_requests"].value == 3
    assert set(seen) == {"Bearer secret"}
    await stock.close()


@pytest.mark.parametrize("status, words", [(401, "key"), (403, "key"), (404, "404"), (500, "500")])
async def test_a_refusal_over_http_is_told(
    serve: Callable[[Handler], Any], status: int, words: str
) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status)

    stock = StockLive(await serve(answer), api_key="secret")
    with pytest.raises(LiveError) as caught:
        await stock.get()
    assert words in caught.value.message
    assert "secret" not in caught.value.message + caught.value.hint
    await stock.close()


async def test_silence_floods_and_nobody_are_told(serve: Callable[[Handler], Any]) -> None:
    async def flood(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(80):
            await response.write(b"x" * 65536)
        return response

    async def silence(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"{")
        await asyncio.Event().wait()
        return response

    stock = StockLive(await serve(flood))
    with pytest.raises(LiveError, match="larger than 4 MiB"):
        await stock.get()
    await stock.close()
    url = await serve(silence)
    stock = StockLive(url, exchange=HttpExchange(url, timeout_s=0.2))
    with pytest.raises(LiveError, match=r"within 0\.2 s"):
        await stock.get()
    await stock.close()
    stock = StockLive("http://127.0.0.1:1")
    with pytest.raises(LiveError, match="of the engine failed"):
        await stock.get()
    await stock.close()


async def test_a_change_is_sent_once_where_a_connection_breaks() -> None:
    posts = 0
    visits: list[asyncio.Task[None] | None] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal posts
        visits.append(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError):
            while not (await reader.readuntil(b"\r\n\r\n")).startswith(b"POST"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            posts += 1
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    exchange = HttpExchange(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    async with server:
        assert await exchange("GET", "/server_info", None) == (200, b"{}")
        with pytest.raises(LiveError, match="of the engine failed"):
            await exchange("POST", "/set_internal_state", {})
        await exchange.close()
        await asyncio.gather(*(visit for visit in visits if visit is not None))
    assert posts == 1

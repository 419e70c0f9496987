"""Fetching from real sockets that behave well, badly or not at all, and the scraper on top."""

from __future__ import annotations

import asyncio
import gzip
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from llmtop.engines.core.adapter import Adapter, MetricText
from llmtop.engines.core.samples import Counter, Reading
from llmtop.engines.metrics.exposition import ScrapeError
from llmtop.engines.metrics.scraper import HttpFetch, Scraper
from llmtop.http_client.exchange import Request
from llmtop.http_client.loopback import Loopback, is_loopback, is_plain
from tests.fake_fetch import FakeFetch
from tests.folders import TESTS

DATA = TESTS / "data" / "metrics"

Handler = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """A server on a free port that hands each request's head to ``handler``."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readexactly(1)
            if head != b"\x16":  # which opens a TLS connection
                head += await reader.readuntil(b"\r\n\r\n")
            await handler(head, writer)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def fetching(
    api_key: str = "", timeout_s: float = 20.0, limit: int = 100_000
) -> AsyncIterator[HttpFetch]:
    fetch = HttpFetch(api_key, timeout_s, limit)
    try:
        yield fetch
    finally:
        await fetch.close()


def answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "Connection: close"]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def always(raw: bytes) -> Handler:
    async def handler(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await writer.drain()

    return handler


async def failure(handler: Handler, timeout_s: float = 20.0, scheme: str = "http") -> ScrapeError:
    async with serving(handler) as base, fetching(timeout_s=timeout_s) as fetch:
        with pytest.raises(ScrapeError) as caught:
            await fetch(base.replace("http", scheme, 1) + "/metrics")
    return caught.value


async def test_the_text_comes_as_it_is() -> None:
    async with serving(always(answer(b"vllm:a 1\n\xff\n"))) as base, fetching() as fetch:
        assert await fetch(f"{base}/metrics") == "vllm:a 1\n\ufffd\n"
        assert await fetch(f"{base}/metrics") == "vllm:a 1\n\ufffd\n"


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\nvllm:\r\n4\r\na 1\n\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nvllm:a 1\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nvllm:a 1\n",
    ],
)
async def test_each_way_to_say_where_a_body_ends(raw: bytes) -> None:
    async with serving(always(raw)) as base, fetching() as fetch:
        assert await fetch(f"{base}/metrics") == "vllm:a 1\n"
        assert await fetch(f"{base}/metrics") == "vllm:a 1\n"


async def test_a_connection_is_kept_and_replaced_once_the_server_has_closed_it() -> None:
    asked: list[int] = []
    closed = asyncio.Event()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(0)
        try:
            for number in range(3):
                await reader.readuntil(b"\r\n\r\n")
                asked[-1] += 1
                if number < 2:  # the third question is met by a server that goes away
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nvllm:a 1\n")
        except asyncio.IncompleteReadError:
            closed.set()
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/metrics"
    async with server:
        async with fetching() as fetch:
            for _ in range(3):
                assert await fetch(url) == "vllm:a 1\n"
            assert asked == [3, 1]
        await asyncio.wait_for(closed.wait(), 20)  # the fetch was closed, and its connection too


@pytest.mark.parametrize(
    "second",
    [b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nvllm:a 1\n", b"gibberish\r\n\r\n"],
)
async def test_a_kept_connection_that_breaks_is_told_as_a_new_one_would(second: bytes) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nvllm:a 1\n")
        await reader.readuntil(b"\r\n\r\n")
        writer.write(second)
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/metrics"
    async with server, fetching() as fetch:
        assert await fetch(url) == "vllm:a 1\n"
        with pytest.raises(ScrapeError, match="broke off or does not speak HTTP"):
            await fetch(url)


async def test_a_thread_that_waited_long_enough_says_that_no_answer_came() -> None:
    async def silent(head: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    # Its own clock may run out before the one around it.
    loopback = Loopback(100, timeout_s=0.1)
    async with serving(silent) as base:
        with pytest.raises(TimeoutError):
            await loopback.request(Request("GET", f"{base}/metrics", {}))
    loopback.close()


async def test_a_stream_without_end_keeps_no_thread_once_it_is_given_up() -> None:
    async def stream(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n")
        while True:
            writer.write(b": still here\n")
            await writer.drain()
            await asyncio.sleep(0.02)

    def readers() -> list[threading.Thread]:
        return [one for one in threading.enumerate() if one.name.startswith("loopback")]

    before = readers()
    assert "no answer" in (await failure(stream, timeout_s=0.3)).message
    for thread in set(readers()) - set(before):
        await asyncio.to_thread(thread.join, 20)
        assert not thread.is_alive()


async def test_headers_without_end_are_given_up() -> None:
    async def chatter(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"X-More: and more\r\n" * 100)
            await writer.drain()

    assert "does not speak HTTP" in (await failure(chatter)).message


async def test_what_a_server_says_unasked_is_no_answer_to_the_next_question() -> None:
    async def talkative(head: bytes, writer: asyncio.StreamWriter) -> None:
        good = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"
        writer.write(good + b"vllm:a 1\n")
        await writer.drain()
        writer.write(good + b"vllm:a 9\n")
        await writer.drain()

    async with serving(talkative) as base, fetching() as fetch:
        assert await fetch(f"{base}/metrics") == "vllm:a 1\n"
        assert await fetch(f"{base}/metrics") == "vllm:a 1\n"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8000/metrics?x=1", True),
        ("http://[::1]:8000", True),
        ("https://127.0.0.1:8000", False),
        ("http://me:secret@127.0.0.1:8000", False),
        ("http://10.0.0.1:8000", False),
        ("http://127.0.0.1/a\r\nX: y", False),
        ("http://127.0.0.1/a b", False),
    ],
)
def test_what_is_asked_without_httpx(url: str, expected: bool) -> None:
    assert is_plain(url) is expected


async def test_nobody_there() -> None:
    with socket.socket() as bound:  # a port that is taken and on which nobody listens
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        async with fetching() as fetch:
            with pytest.raises(ScrapeError, match=f"nothing listens at {url}") as caught:
                await fetch(f"{url}/metrics")
    assert caught.value.hint
    assert caught.value.status is None


async def test_a_server_that_never_answers() -> None:
    async def silent(head: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    error = await failure(silent, timeout_s=0.2)
    assert "no answer" in error.message and "within 0.2 s" in error.message


async def test_a_server_that_drips_is_given_up_as_well() -> None:
    async def drip(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            writer.write(b"v")
            await writer.drain()
            await asyncio.sleep(0.02)

    assert "no answer" in (await failure(drip, timeout_s=0.3)).message


async def test_an_endless_answer_is_cut_off() -> None:
    sent = 0

    async def flood(head: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"vllm:a 1\n" * 1000)
            await writer.drain()
            sent += 9000

    assert "larger than 0.0954 MiB" in (await failure(flood)).message
    assert sent < 50_000_000


@pytest.mark.parametrize(
    ("status", "hint"),
    [("500 Oops", ""), ("404 No", ""), ("401 No", "API key"), ("204 Nothing", "")],
)
async def test_another_status_is_named(status: str, hint: str) -> None:
    error = await failure(always(answer(b"", status)))
    assert f"answered /metrics with HTTP {status[:3]}" in error.message
    assert error.status == int(status[:3])
    assert hint in error.hint


@pytest.mark.parametrize(
    "raw",
    [
        b"220 mail.example ESMTP\r\n",
        b"\x16\x03\x01\x00",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nvllm:a 1\n",  # half an answer
        b"",
    ],
)
async def test_something_that_is_no_whole_http_answer(raw: bytes) -> None:
    assert "does not speak HTTP" in (await failure(always(raw))).message


@pytest.mark.parametrize("url", ["http://[::1", "ftp://127.0.0.1/x", "nonsense", "http://x:y/"])
async def test_what_is_no_url_is_an_error_like_any_other(url: str) -> None:
    async with fetching() as fetch:
        with pytest.raises(ScrapeError, match="does not speak HTTP"):
            await fetch(url)


async def test_https_where_there_is_none() -> None:
    error = await failure(always(answer(b"")), scheme="https")
    assert "no safe connection" in error.message or "does not speak HTTP" in error.message


async def test_a_redirect_on_the_same_server_is_followed() -> None:
    async def folder(head: bytes, writer: asyncio.StreamWriter) -> None:
        if head.startswith(b"GET /metrics/ "):
            writer.write(answer(b"vllm:a 1\n"))
        else:
            writer.write(answer(b"", "307 Moved", "Location: /metrics/"))
        await writer.drain()

    async with serving(folder) as base, fetching() as fetch:
        assert await fetch(f"{base}/metrics") == "vllm:a 1\n"


async def test_a_redirect_elsewhere_is_not_and_takes_no_key_along() -> None:
    heads: list[bytes] = []

    async def other(head: bytes, writer: asyncio.StreamWriter) -> None:
        heads.append(head)

    async with serving(other) as there:
        moved = always(answer(b"", "302 Moved", f"Location: {there}/metrics"))
        async with serving(moved) as base, fetching(api_key="s3cret") as fetch:
            with pytest.raises(ScrapeError, match="another server"):
                await fetch(f"{base}/metrics")
    assert heads == []


async def test_a_redirect_in_a_circle_ends() -> None:
    error = await failure(always(answer(b"", "302 Moved", "Location: /metrics")))
    assert "circle" in error.message


async def test_the_key_is_sent_and_never_shown() -> None:
    heads: list[bytes] = []

    async def guarded(head: bytes, writer: asyncio.StreamWriter) -> None:
        heads.append(head)
        writer.write(answer(b"", "401 No"))
        await writer.drain()

    async with serving(guarded) as base, fetching(api_key="s3cret") as fetch:
        with pytest.raises(ScrapeError) as caught:
            await fetch(f"{base}/metrics")
        assert b"authorization: bearer s3cret\r\n" in heads[0].lower()
        assert "s3cret" not in f"{caught.value!r} {caught.value.hint} {fetch!r}"


async def test_a_proxy_from_the_environment_is_not_asked_for_loopback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with serving(always(answer(b"vllm:a 1\n"))) as base, fetching() as fetch:
        assert await fetch(f"{base}/metrics") == "vllm:a 1\n"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.0.1", True),
        ("localhost", True),
        ("::1", True),
        ("127.evil.example", False),
        ("localhost.example", False),
        ("10.0.0.1", False),
    ],
)
def test_what_is_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def adapter() -> Adapter:
    def read(text: MetricText, time: float, elapsed: float) -> Reading:
        total = text.value("vllm:generation_tokens_total")
        counters = {} if total is None else {Counter.OUTPUT_TOKENS: total}
        return Reading(time, elapsed, counters=counters)

    return Adapter(
        kind="vllm",
        title="vLLM",
        default_port=8000,
        command=lambda spec: (),
        environment=lambda spec, socket, env: {},
        read=read,
        prefixes=("vllm:",),
        options=(),
    )


async def test_a_scraper_makes_readings_of_texts_and_says_what_goes_wrong() -> None:
    real = gzip.decompress((DATA / "vllm_spec.txt.gz").read_bytes()).decode()
    dead = ScrapeError("nothing listens at http://127.0.0.1:8000")
    fetch = FakeFetch({"http://127.0.0.1:8000/metrics": [real, dead, "<html>", real]})
    scraper = Scraper(
        adapter(), "http://127.0.0.1:8000/", fetch, clock=lambda: 1.8e9, monotonic=lambda: 7.0
    )
    first = await scraper.read()
    assert (first.time, first.elapsed) == (1.8e9, 7.0)
    assert first.counters == {Counter.OUTPUT_TOKENS: 41200}
    with pytest.raises(ScrapeError, match="nothing listens"):
        await scraper.read()
    with pytest.raises(ScrapeError, match="not metrics"):
        await scraper.read()
    assert (await scraper.read()).counters == first.counters
    assert fetch.asked == ["http://127.0.0.1:8000/metrics"] * 4


async def test_a_reading_is_as_old_as_the_answer_and_not_as_the_question() -> None:
    now = [10.0]

    async def slow(url: str) -> str:
        now[0] += 1.7
        return "vllm:generation_tokens_total 5\n"

    scraper = Scraper(
        adapter(), "http://127.0.0.1:1", slow, clock=lambda: now[0], monotonic=lambda: now[0]
    )
    assert (await scraper.read()).elapsed == 11.7


async def test_numbers_that_stand_still_are_read_at_each_moment_all_the_same() -> None:
    now = [10.0]
    page = "http://127.0.0.1:1/metrics"
    texts = [f"vllm:generation_tokens_total {tokens}\n" for tokens in (5, 5, 6)]
    scraper = Scraper(
        adapter(),
        "http://127.0.0.1:1",
        FakeFetch({page: texts}),
        clock=lambda: now[0],
        monotonic=lambda: now[0],
    )
    found = []
    for _ in texts:
        now[0] += 1.0
        found.append(await scraper.read())
    assert (
        [reading.elapsed for reading in found]
        == [reading.time for reading in found]
        == [11, 12, 13]
    )
    assert [reading.counters[Counter.OUTPUT_TOKENS] for reading in found] == [5, 5, 6]


async def test_a_fake_without_a_page_answers_404() -> None:
    with pytest.raises(ScrapeError) as caught:
        await FakeFetch({})("http://127.0.0.1:1/metrics")
    assert caught.value.status == 404

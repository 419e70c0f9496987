"""A webhook whose server is slow, talks without an end, or is none: each try ends in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from llmtop.alerts.delivery import Delivery
from llmtop.alerts.expression import parse
from llmtop.alerts.rules import Alert, Rule
from llmtop.operations.monitoring.alerting import post_by
from llmtop.operations.wiring import Wiring

TRY_S = 0.5
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def dripping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A head that never ends, a byte at a time: each one is progress for a naive time-out."""
    writer.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.02)


async def flooding(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-Much: " + b"x" * 4000 + b"\r\n")
        await writer.drain()


async def no_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\x1b[31mwhat?\r\n\r\n")
    writer.close()


async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


@asynccontextmanager
async def server(serve: Serve) -> AsyncIterator[tuple[str, asyncio.Queue[Serve]]]:
    """Its address, and an entry for each time that it was asked."""
    asked: asyncio.Queue[Serve] = asyncio.Queue()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.put_nowait(serve)
        with suppress(OSError, asyncio.CancelledError):
            await serve(reader, writer)
        writer.close()

    listening = await asyncio.start_server(one, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/token", asked
    finally:
        listening.close()


@pytest.mark.parametrize("serve", [mute, dripping, flooding, no_http, closing])
async def test_each_try_ends_in_time(serve: Serve) -> None:
    post = post_by(Wiring())
    said: list[str] = []

    async def quick(url: str, body: bytes, timeout_s: float) -> int:
        return await post(url, body, TRY_S)

    async def sleep(seconds: float) -> None:
        """The pauses between two tries are not waited for."""

    async with server(serve) as (url, asked):
        delivery = Delivery(quick, said.append, sleep=sleep)
        rule = Rule("full", parse("hung"), webhook=url)
        delivery.deliver(Alert(rule, "llama", True, 1.0, 1.0))
        await delivery.close(120.0)
    (line,) = said
    assert line.startswith("full: the webhook did not accept the alert: ")
    assert "token" not in line and line.isprintable() and asked.qsize() == 4


async def test_a_slow_webhook_holds_up_no_other_alert() -> None:
    """What is told begins at once, however slow the one before is; leaving drops what is open."""
    said: list[str] = []
    async with server(mute) as (slow, asked):
        delivery = Delivery(post_by(Wiring()), said.append)
        for number in range(3):
            rule = Rule(f"rule{number}", parse("hung"), webhook=slow)
            delivery.deliver(Alert(rule, "llama", True, 1.0, 1.0))
        async with asyncio.timeout(60):
            for _ in range(3):
                await asked.get()
        await delivery.close(0.0)
    assert said == []

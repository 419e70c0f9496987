"""The address at which the exporter listens."""

import asyncio
import socket

import psutil
import pytest

from llmtop import LlmtopError
from llmtop.exporter.families import Family, Kind
from llmtop.exporter.page import Page


async def test_an_address_in_use_costs_one_short_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LlmtopError, match=rf"on 127\.0\.0\.1:{port}: address already in use$"):
            await Page(tuple).start("127.0.0.1", port)


def served(port: int) -> bool:
    found = psutil.Process().net_connections("tcp")
    return any(one.laddr.port == port and one.status == "ESTABLISHED" for one in found)


async def unserved(port: int) -> None:
    for _ in range(6000):
        if not served(port):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the connection is still open")


async def test_a_scraper_that_does_not_read_is_let_go() -> None:
    asked = asyncio.Event()

    def look() -> list[Family]:
        asked.set()
        return [Family("big", Kind.GAUGE, "x" * 20_000_000)]

    page = Page(look, timeout_s=0.1)
    await page.start("127.0.0.1", 0)
    try:
        with socket.create_connection(("127.0.0.1", page.port)) as slow:
            slow.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            await asked.wait()
            await unserved(page.port)
    finally:
        await page.close()

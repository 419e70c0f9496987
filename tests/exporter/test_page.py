"""The address at which the exporter listens."""

import socket

import pytest

from llmtop import LlmtopError
from llmtop.exporter.page import Page


async def test_an_address_in_use_costs_one_short_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LlmtopError, match=rf"on 127\.0\.0\.1:{port}: address already in use$"):
            await Page(tuple).start("127.0.0.1", port)

"""The health probe against servers that answer as badly as servers can."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from llmtop.engines.probe import http_status

Serve = Callable[[Callable[[socket.socket], None]], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ExitStack() as stack:

        def start(answer: Callable[[socket.socket], None]) -> str:
            server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

            def run() -> None:
                connection, _ = server.accept()
                with connection:
                    connection.recv(4096)
                    answer(connection)

            thread = threading.Thread(target=run)
            thread.start()
            stack.callback(thread.join, 10)
            return f"http://127.0.0.1:{server.getsockname()[1]}/health"

        yield start


def test_the_status_is_read(serve: Serve) -> None:
    url = serve(lambda c: c.sendall(b"HTTP/1.1 503 Service Unavailable\r\n\r\n"))
    assert http_status(url, 10.0) == 503


def test_nonsense_and_silence_are_no_answer(serve: Serve) -> None:
    assert http_status(serve(lambda c: c.sendall(b"SSH-2.0-x\r\n")), 10.0) is None
    assert http_status(serve(lambda c: None), 10.0) is None
    assert http_status(serve(lambda c: c.sendall(b"H" * 10_000)), 10.0) is None


def test_nobody_there_is_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert http_status(f"http://127.0.0.1:{port}/health", 10.0) is None


def test_a_server_that_drips_does_not_hold_it_up(serve: Serve) -> None:
    done = threading.Event()

    def drip(connection: socket.socket) -> None:
        while not done.wait(0.02):
            try:
                connection.sendall(b"H")
            except OSError:
                return

    url = serve(drip)
    begin = time.monotonic()
    assert http_status(url, 0.3) is None
    assert 0.25 < time.monotonic() - begin < 5
    done.set()

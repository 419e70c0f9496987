"""The health probe against servers that answer as badly as servers can."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest

from llmtop.http_client.probe import KeptProbe

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
    assert KeptProbe()(url, 10.0) == 503


def test_nonsense_and_silence_are_no_answer(serve: Serve) -> None:
    assert KeptProbe()(serve(lambda c: c.sendall(b"SSH-2.0-x\r\n")), 10.0) is None
    assert KeptProbe()(serve(lambda c: None), 10.0) is None
    assert KeptProbe()(serve(lambda c: c.sendall(b"H" * 10_000)), 10.0) is None


def test_nobody_there_is_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert KeptProbe()(f"http://127.0.0.1:{port}/health", 10.0) is None


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
    assert KeptProbe()(url, 0.3) is None
    assert 0.25 < time.monotonic() - begin < 5
    done.set()


class Server:
    """Answers on each connection from a script, one answer a question; counts both."""

    def __init__(self, answers: list[bytes], then: str = "wait") -> None:
        self.connections = self.questions = 0
        self._answers, self._then = answers, then
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/health"
        self._gone = threading.Event()
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            if self._gone.is_set():
                connection.close()
                return
            self.connections += 1
            thread = threading.Thread(target=self._attend, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _attend(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            for answer in self._answers:
                if not connection.recv(4096):
                    return
                self.questions += 1
                connection.sendall(answer)
            if self._then == "wait":
                self._gone.wait(10)

    def close(self) -> None:
        self._gone.set()
        socket.create_connection(self._listener.getsockname()).close()
        self._accepting.join(10)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)


GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def asked(answers: list[bytes], times: int, then: str = "wait") -> tuple[list[int | None], int]:
    """The statuses of so many questions, and the connections that they took."""
    server, probe = Server(answers, then), KeptProbe()
    try:
        return [probe(server.url, 10.0) for _ in range(times)], server.connections
    finally:
        del probe  # which closes what it kept
        server.close()


def test_a_server_is_asked_again_on_the_same_connection() -> None:
    bad = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"
    assert asked([GOOD, GOOD, bad, GOOD], 4) == ([200, 200, 503, 200], 1)


def test_a_connection_that_was_given_up_meanwhile_says_nothing_of_the_server() -> None:
    assert asked([GOOD], 3, then="close") == ([200, 200, 200], 3)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok, and more",
        b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + b"x" * 9999,
    ],
)
def test_a_connection_in_doubt_is_not_asked_again(answer: bytes) -> None:
    assert asked([answer, b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"], 2) == ([200, 200], 2)


def test_a_kept_connection_that_falls_silent_is_no_answer() -> None:
    server, probe = Server([GOOD]), KeptProbe()
    try:
        assert probe(server.url, 10.0) == 200
        assert probe(server.url, 0.2) is None
    finally:
        server.close()


def test_a_server_that_drips_what_follows_does_not_hold_a_kept_question_up(serve: Serve) -> None:
    done = threading.Event()

    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n")
        while not done.wait(0.01):
            try:
                connection.sendall(b"x")
            except OSError:
                return

    url = serve(drip)
    begin = time.monotonic()
    assert KeptProbe()(url, 1.0) == 200
    assert time.monotonic() - begin < 5
    done.set()


def test_what_a_server_says_unasked_is_no_answer_to_the_next_question() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url, probe = f"http://127.0.0.1:{server.getsockname()[1]}/health", KeptProbe()
        heard = threading.Event()

        def attend() -> None:
            first, _ = server.accept()
            with first:
                first.recv(4096)
                first.sendall(GOOD)
                heard.wait(10)
                first.sendall(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
            second, _ = server.accept()
            with second:
                second.recv(4096)
                second.sendall(GOOD)

        thread = threading.Thread(target=attend)
        thread.start()
        assert probe(url, 10.0) == 200
        (kept,) = probe._kept.values()
        heard.set()
        assert select.select([kept], [], [], 10.0)[0]
        assert probe(url, 10.0) == 200
        thread.join(10)

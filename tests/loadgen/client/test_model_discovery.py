"""The model of a server, asked of servers that answer as badly as servers can."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from llmtop import UsageError
from llmtop.loadgen.client.model_discovery import MAX_ANSWER, NotAnEngine, discover_model

LISTED = b'{"object": "list", "data": [{"id": "meta/llama"}, {"id": "lora"}]}'


@contextlib.contextmanager
def answering(answer: bytes, asked: list[bytes] | None = None) -> Iterator[str]:
    """A server that gives one answer, whatever it is asked, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(ConnectionError):
                head = connection.recv(65536)
                if asked is not None:
                    asked.append(head)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        thread.join()


def http(body: bytes, status: str = "200 OK", *lines: str) -> bytes:
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *lines, "", ""]
    return "\r\n".join(head).encode() + body


@pytest.fixture(params=["127.0.0.1", "0.0.0.0"])
def host(request: pytest.FixtureRequest) -> str:
    """Two names of this machine: the first is asked as such, the second as another machine is."""
    return str(request.param)


def test_the_first_model_is_taken_and_the_key_is_sent(host: str) -> None:
    asked: list[bytes] = []
    with answering(http(LISTED), asked) as url:
        assert discover_model(url.replace("127.0.0.1", host), "sk-1") == "meta/llama"
    head = asked[0].lower()
    assert head.startswith(b"get /v1/models http/1.1\r\n")
    assert b"\r\nauthorization: bearer sk-1\r\n" in head
    assert b"\r\naccept-encoding: identity\r\n" in head


@pytest.mark.parametrize(("key", "words"), [("", "needs an"), ("sk-1", "does not take this")])
def test_where_a_key_that_is_wanted_goes_is_said(key: str, words: str) -> None:
    with (
        answering(http(b"", "401 Unauthorized")) as url,
        pytest.raises(NotAnEngine, match=f"{words} API key") as caught,
    ):
        discover_model(url, key)
    assert "LLMTOP_API_KEY" in caught.value.hint and "sk-1" not in caught.value.message


NO_LIST = "does not answer like an OpenAI server"
CLOSED = "closed the connection or does not speak HTTP"
BOMB = gzip.compress(b'{"data": [{"id": "m"}]}' + b" " * MAX_ANSWER)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (http(b"nope", "404 Not Found"), "answers 404 to /v1/models"),
        (http(b"", "302 Found", "Location: /v1"), "answers 302 to /v1/models"),
        (http(b"", "403 Forbidden"), "needs an API key"),
        (http(b"<html>"), NO_LIST),
        (http(b"[]"), NO_LIST),
        (http(b'{"data": []}'), NO_LIST),
        (http(b'{"data": [{"id": 7}]}'), NO_LIST),
        (http(json.dumps({"data": [{"id": "m" * 4097}]}).encode()), NO_LIST),
        (http(b"[" * 100_000), NO_LIST),
        (http(b" " * (MAX_ANSWER + 1)), NO_LIST),
        (http(BOMB, "200 OK", "Content-Encoding: gzip"), NO_LIST),
        (b"SSH-2.0-OpenSSH_9.6\r\n", CLOSED),
        (b"", CLOSED),
        (http(LISTED)[:-5], CLOSED),
    ],
)
def test_what_is_no_engine(host: str, answer: bytes, message: str) -> None:
    with answering(answer) as url, pytest.raises(NotAnEngine) as caught:
        discover_model(url.replace("127.0.0.1", host))
    assert message in caught.value.message
    assert caught.value.message.isprintable()
    assert caught.value.hint


def test_nobody_there(host: str) -> None:
    with socket.socket() as bound:  # a port that is taken and on which nobody listens
        bound.bind(("127.0.0.1", 0))
        url = f"http://{host}:{bound.getsockname()[1]}"
        with pytest.raises(NotAnEngine, match=r"cannot connect to \S+: \S") as caught:
            discover_model(url)
    assert "start the engine" in caught.value.hint


@pytest.mark.parametrize("url", ["gopher://x", "http://ü..x:1"])
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(UsageError):
        discover_model(url)


def test_httpx_is_not_imported_for_an_engine_of_this_machine() -> None:
    with answering(http(LISTED)) as url:
        code = (
            "import sys; from llmtop.loadgen.client.model_discovery import discover_model; "
            f"print(discover_model({url!r}), 'httpx' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["meta/llama", "False"], done.stderr


@contextlib.contextmanager
def dripping(head: bytes, drop: bytes) -> Iterator[str]:
    """A server that is never silent for long and never says anything. Yields its URL."""
    gone = threading.Event()

    def serve(listener: socket.socket) -> None:
        with contextlib.suppress(OSError), listener.accept()[0] as client:
            client.recv(65536)
            client.sendall(head)
            while not gone.wait(0.02):
                client.sendall(drop)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            gone.set()
            thread.join()


@pytest.mark.parametrize(
    ("head", "drop"),
    [
        (b"HTTP/1.1 200 OK\r\nX-Slow: ", b"a"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b" "),
    ],
)
def test_an_answer_that_drips_is_given_up(host: str, head: bytes, drop: bytes) -> None:
    with (
        dripping(head, drop) as url,
        pytest.raises(NotAnEngine, match=r"did not answer within 0\.3 s"),
    ):
        discover_model(url.replace("127.0.0.1", host), timeout_s=0.3)

"""Which model an engine of this machine serves, asked without httpx."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from llmtop import UsageError
from llmtop.loadgen.client.model_discovery import MAX_ANSWER, NotAnEngine
from llmtop.operations.served import served_model

LISTED = b'{"data": [{"id": "meta/llama"}]}'


@contextmanager
def answering(answer: bytes, asked: list[bytes] | None = None) -> Iterator[str]:
    """A server that gives one answer, whatever it is asked, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                head = connection.recv(65536)
                if asked is not None:
                    asked.append(head)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        thread.join()


def http(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def test_the_first_model_is_taken_and_the_key_is_sent() -> None:
    asked: list[bytes] = []
    with answering(http(LISTED), asked) as url:
        assert served_model(url, "sk-1") == "meta/llama"
    assert asked[0].startswith(b"GET /v1/models HTTP/1.1\r\n")
    assert b"authorization: Bearer sk-1\r\n" in asked[0]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (http(b"nope", "404 Not Found"), "answers 404 to /v1/models"),
        (http(b"", "401 Unauthorized"), "needs an API key"),
        (http(b"<html>"), "does not answer as an OpenAI server does"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "closed the connection or does not speak HTTP"),
        (http(LISTED)[:-5], "closed the connection or does not speak HTTP"),
        (http(b" " * (MAX_ANSWER + 1)), "does not answer as an OpenAI server does"),
    ],
)
def test_what_else_answers_is_said(answer: bytes, message: str) -> None:
    with answering(answer) as url, pytest.raises(NotAnEngine, match=message):
        served_model(url, "")


def test_nobody_there() -> None:
    with socket.socket() as bound:  # a port that is taken and on which nobody listens
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(NotAnEngine, match="nothing can be reached") as caught:
            served_model(url, "")
    assert "refused" in caught.value.message


def test_a_url_that_is_none() -> None:
    with pytest.raises(UsageError):
        served_model("gopher://x", "")


def test_httpx_is_not_imported_for_an_engine_of_this_machine() -> None:
    with answering(http(LISTED)) as url:
        code = (
            "import sys; from llmtop.operations.served import served_model; "
            f"print(served_model({url!r}, ''), 'httpx' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["meta/llama", "False"], done.stderr

import contextlib
import gzip
import socket
import threading
from collections.abc import Iterator

import httpx
import pytest

from llmtop import UsageError
from llmtop.loadgen.client.model_discovery import (
    MAX_ANSWER,
    Ask,
    NotAnEngine,
    by_httpx,
    discover_model,
)

URL = "http://127.0.0.1:8000"


def server(response: httpx.Response | Exception) -> Ask:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url == f"{URL}/v1/models"
        if isinstance(response, Exception):
            raise response
        return response

    return by_httpx(httpx.MockTransport(answer))


def test_the_first_model_is_taken() -> None:
    listed = {"object": "list", "data": [{"id": "meta/llama"}, {"id": "lora"}]}
    assert discover_model(URL, ask=server(httpx.Response(200, json=listed))) == "meta/llama"


def test_the_key_is_sent() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["authorization"] == "Bearer sk-1"
        return httpx.Response(200, json={"data": [{"id": "m"}]})

    assert discover_model(URL, "sk-1", ask=by_httpx(httpx.MockTransport(answer))) == "m"


@pytest.mark.parametrize(("key", "words"), [("", "needs an"), ("sk-1", "does not take this")])
def test_where_a_key_that_is_wanted_goes_is_said(key: str, words: str) -> None:
    with pytest.raises(NotAnEngine, match=f"{words} API key") as caught:
        discover_model(URL, key, ask=server(httpx.Response(401)))
    assert "LLMTOP_API_KEY" in caught.value.hint and "sk-1" not in caught.value.message


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (httpx.Response(404, text="nope"), "127.0.0.1:8000 answers 404 to /v1/models"),
        (httpx.Response(401), "127.0.0.1:8000 needs an API key"),
        (httpx.Response(200, text="<html>"), "does not answer as an OpenAI server does"),
        (httpx.Response(200, json=[]), "does not answer as an OpenAI server does"),
        (httpx.Response(200, json={"data": []}), "does not answer as an OpenAI server does"),
        (httpx.Response(200, json={"data": [{"id": 7}]}), "does not answer as an OpenAI server"),
        (httpx.Response(200, json={"data": [{"id": "m" * 4097}]}), "does not answer as an OpenAI"),
        (httpx.Response(200, content=b"[" * 100_000), "does not answer as an OpenAI server"),
        (httpx.Response(200, content=b" " * (MAX_ANSWER + 1)), "does not answer as an OpenAI"),
        (httpx.ConnectError("[Errno 111] Connection refused"), "connection refused"),
        (httpx.ConnectTimeout("x"), "did not answer within 5 s"),
        (httpx.RemoteProtocolError("illegal request line"), "or does not speak HTTP"),
        (httpx.ReadError(""), "nothing can be reached at 127.0.0.1:8000"),
    ],
)
def test_what_is_no_engine(response: httpx.Response | Exception, message: str) -> None:
    with pytest.raises(NotAnEngine) as caught:
        discover_model(URL, ask=server(response))
    assert message in caught.value.message
    assert caught.value.message.isprintable()
    assert caught.value.hint


def test_a_url_that_is_none() -> None:
    with pytest.raises(UsageError):
        discover_model("gopher://x")


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
def test_an_answer_that_drips_is_given_up(head: bytes, drop: bytes) -> None:
    with (
        dripping(head, drop) as url,
        pytest.raises(NotAnEngine, match=r"did not answer within 0\.3 s"),
    ):
        discover_model(url, timeout_s=0.3)


def test_no_compressed_answer_is_asked_for() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["accept-encoding"] == "identity"
        return httpx.Response(200, json={"data": [{"id": "m"}]})

    assert discover_model(URL, ask=by_httpx(httpx.MockTransport(answer))) == "m"


def test_a_compressed_answer_is_not_unpacked() -> None:
    bomb = httpx.Response(
        200,
        headers={"content-encoding": "gzip"},
        content=gzip.compress(b'{"data": [{"id": "m"}]}' + b" " * MAX_ANSWER),
    )
    with pytest.raises(NotAnEngine, match="does not answer as an OpenAI server does"):
        discover_model(URL, ask=server(bomb))


def test_a_reason_without_words_is_that_of_its_cause_or_none() -> None:
    silent = httpx.ReadError("")
    with pytest.raises(NotAnEngine) as caught:
        discover_model(URL, ask=server(silent))
    assert caught.value.message == "nothing can be reached at 127.0.0.1:8000"

    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("") from OSError("No route to host")

    with pytest.raises(NotAnEngine, match="8000: no route to host"):
        discover_model(URL, ask=by_httpx(httpx.MockTransport(answer)))

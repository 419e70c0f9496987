"""Requests that are no fetches of a page: forms, webhooks, answers that explain a failure.

Also a server that refuses us after the handshake of TLS.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from threading import Event, Thread

import pytest

from llmtop.http_client.client import HttpClient
from llmtop.http_client.exchange import SMALL, NoConnection
from llmtop.trust import Trust
from tests.folders import TESTS

TLS = TESTS / "data" / "tls"
AUTHORITY, SERVER, CLIENT = TLS / "authority.pem", TLS / "signed.pem", TLS / "client.pem"
STRANGER = TLS / "self_signed.pem"
PATIENCE_S = 60.0

# The first name is asked as this machine is, the second as another machine is.
HOSTS = pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])


@asynccontextmanager
async def serving(answer: bytes, hold: bool = False) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that gives this answer and hangs up, or holds the connection open.

    Yields its port and the requests that came.
    """
    came: list[bytes] = []
    gone = asyncio.Event()

    async def attend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(x[15:]) for x in head.lower().split(b"\r\n") if x.startswith(b"content-length:")),
            0,
        )
        came.append(head + await reader.readexactly(length))
        writer.write(answer)
        try:
            await writer.drain()
            if hold:
                await gone.wait()
        except ConnectionError:
            pass  # the client has read enough
        finally:
            writer.close()

    server = await asyncio.start_server(attend, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], came
    finally:
        gone.set()
        server.close()
        await server.wait_closed()


@asynccontextmanager
async def asking(timeout_s: float = 10.0) -> AsyncIterator[HttpClient]:
    client = HttpClient(1024, timeout_s, authorization="Basic abc")
    try:
        yield client
    finally:
        await client.close()


@HOSTS
async def test_a_status_does_not_wait_for_the_rest_of_the_answer(host: str) -> None:
    head = b"HTTP/1.1 202 Accepted\r\nContent-Length: 100\r\n\r\n"
    async with serving(head, hold=True) as (port, came), asking() as client:
        assert await client.status("POST", f"http://{host}:{port}/hook", body=b"{}") == 202
        assert b"application/json" in came[0] and came[0].endswith(b"\r\n\r\n{}")


@HOSTS
async def test_a_form_is_sent_with_its_type_and_the_credentials(host: str) -> None:
    good = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    async with serving(good) as (port, came), asking() as client:
        answer = await client.request(
            "POST",
            f"http://{host}:{port}/query",
            body=b"query=up",
            content_type="application/x-www-form-urlencoded",
            repeatable=True,
        )
    assert (answer.status, answer.body) == (200, b"ok")
    assert b"application/x-www-form-urlencoded" in came[0] and came[0].endswith(b"query=up")
    assert b"Authorization: Basic abc" in came[0]


@HOSTS
async def test_a_failure_may_explain_itself_at_moderate_length(host: str) -> None:
    size = SMALL + 10
    long = b"HTTP/1.1 400 No\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size
    async with serving(long) as (port, _), asking() as client:
        answer = await client.request("GET", f"http://{host}:{port}/")
    assert (answer.status, len(answer.body)) == (400, SMALL)


@HOSTS
async def test_a_redirect_is_an_answer(host: str) -> None:
    moved = b"HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n"
    async with serving(moved) as (port, came), asking() as client:
        answer = await client.request("POST", f"http://{host}:{port}/", body=b"")
    assert (answer.status, answer.location, len(came)) == (302, "/there", 1)


@contextmanager
def refusing_clients() -> Iterator[str]:
    """The URL of a server that accepts one client certificate only. It serves one connection.

    In TLS 1.3 the client has ended its handshake when the server checks the certificate. So the
    client sends its request and reads the refusal in place of the answer. The server keeps the
    connection open until then: closing it could overtake the refusal.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(CLIENT)
    read = Event()

    def attend(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with context.wrap_socket(
            connection, server_side=True, do_handshake_on_connect=False
        ) as secure:
            with pytest.raises(ssl.SSLError):
                secure.do_handshake()
            read.wait(PATIENCE_S)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Thread(target=attend, args=(listener,))
        thread.start()
        try:
            yield f"https://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            read.set()
            thread.join(PATIENCE_S)


@pytest.mark.parametrize(
    ("shown", "words"), [("", "CERTIFICATE_REQUIRED"), (str(STRANGER), "UNKNOWN_CA")]
)
async def test_a_refused_certificate_is_no_connection_though_the_handshake_ended(
    shown: str, words: str
) -> None:
    trust = Trust(authorities=str(AUTHORITY), certificate=shown)
    client = HttpClient(1024, PATIENCE_S, trust_of=lambda _: trust)
    try:
        with refusing_clients() as url, pytest.raises(NoConnection, match=words):
            await client.get(url)
    finally:
        await client.close()

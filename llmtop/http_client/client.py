"""HTTP requests that control and read servers: the one client of llmtop.

It handles time limits, size limits, redirects, proxies, certificates, keys and errors. Requests to
this machine use ``loopback``, which needs a third of the CPU. TLS, proxies, passwords in a URL and
other machines use httpx. ``probe`` checks readiness, and says why it does not use this client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urljoin, urlsplit

from llmtop import __version__
from llmtop.http_client.exchange import (
    SMALL,
    Answer,
    BrokenAnswer,
    CircularRedirect,
    ForeignRedirect,
    NoConnection,
    Request,
    TooLarge,
)
from llmtop.http_client.loopback import Loopback, is_loopback, is_plain
from llmtop.trust import SYSTEM, Trust

if TYPE_CHECKING:
    import ssl

    import httpx

    _Kind = tuple[ssl.SSLContext | None, bool]

REDIRECTS = (301, 302, 303, 307, 308)
MAX_REDIRECTS = 3  # some servers mount /metrics as a folder and send us to /metrics/
_PORTS = {"http": 80, "https": 443}


class HttpClient:
    """A client that keeps connections to any number of servers. Close it at the end.

    limit: largest accepted body, bytes. timeout_s: for one complete answer, which also limits a
    server that sends one byte per second. api_key: sent as a bearer token, never shown.
    authorization: the whole header, used instead of api_key. trust_of: the certificates to trust
    for a URL. accept: the accepted content types. proxies: use a proxy from the environment for
    other machines.
    """

    def __init__(
        self,
        limit: int,
        timeout_s: float,
        *,
        api_key: str = "",
        authorization: str = "",
        trust_of: Callable[[str], Trust] = lambda _: SYSTEM,
        accept: str = "*/*",
        proxies: bool = True,
    ) -> None:
        self._limit = limit
        self._timeout_s = timeout_s
        self._trust_of = trust_of
        self._proxies = proxies
        self._headers = {
            "User-Agent": f"llmtop/{__version__}",
            "Accept": accept,
            # Compression costs the engine's front end more than it saves, and an uncompressed
            # body cannot be a decompression bomb.
            "Accept-Encoding": "identity",
        }
        if api_key or authorization:
            self._headers["Authorization"] = authorization or f"Bearer {api_key}"
        self._loopback = Loopback(limit, timeout_s)
        self._clients: dict[_Kind, httpx.AsyncClient] = {}

    async def request(
        self,
        method: str,
        url: str,
        *,
        body: bytes | None = None,
        content_type: str = "application/json",
        repeatable: bool = False,
    ) -> Answer:
        """Send one request; a redirect counts as an answer. content_type: of the body.

        repeatable: it has no effect, like GET, so it may be sent again when a kept connection has
        ended. Raises TimeoutError, NoConnection, BrokenAnswer, TooLarge, and ValueError for an
        invalid URL.
        """
        headers = self._with_type(body, content_type)
        repeatable = repeatable or method == "GET"
        async with asyncio.timeout(self._timeout_s):
            return await self._send(Request(method, url, headers, body, repeatable=repeatable))

    async def status(self, method: str, url: str, *, body: bytes | None = None) -> int:
        """Send one request and return the status of its answer. The body is not read.

        Raises what ``request`` does, except TooLarge.
        """
        headers = self._with_type(body, "application/json")
        async with asyncio.timeout(self._timeout_s):
            return (await self._send(Request(method, url, headers, body, whole=False))).status

    async def get(self, url: str) -> Answer:
        """Send a GET. Redirects are followed on the same server only (``redirect_target``).

        timeout_s covers all answers together. Raises the errors of ``request``, and ForeignRedirect
        and CircularRedirect.
        """
        target = url
        async with asyncio.timeout(self._timeout_s):
            for _ in range(MAX_REDIRECTS + 1):
                answer = await self._send(Request("GET", target, self._headers, repeatable=True))
                if answer.status not in REDIRECTS or answer.location is None:
                    return answer
                redirected = redirect_target(target, answer.location)
                if redirected is None:
                    raise ForeignRedirect(answer.status)
                target = redirected
        raise CircularRedirect

    async def close(self) -> None:
        """Close all connections."""
        self._loopback.close()
        clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            await client.aclose()

    def _with_type(self, body: bytes | None, content_type: str) -> dict[str, str]:
        return self._headers if body is None else {**self._headers, "Content-Type": content_type}

    async def _send(self, request: Request) -> Answer:
        if is_plain(request.url):
            return await self._loopback.request(request)
        return await self._by_httpx(request)

    async def _by_httpx(self, request: Request) -> Answer:
        import httpx

        try:
            stream = self._client(request.url).stream(
                request.method, request.url, headers=request.headers, content=request.body
            )
            async with stream as response:
                body = await self._body(response) if request.whole else b""
                return Answer(response.status_code, response.headers.get("location"), body)
        except httpx.TimeoutException as error:
            raise TimeoutError from error
        except httpx.ConnectError as error:
            raise NoConnection(str(error)) from error
        except httpx.InvalidURL as error:
            raise ValueError(str(error)) from error
        except httpx.HTTPError as error:
            raise BrokenAnswer(type(error).__name__, str(error)) from error
        except OSError as error:  # httpx does not convert a TLS refusal after the handshake
            raise NoConnection(str(error)) from error

    async def _body(self, response: httpx.Response) -> bytes:
        good = response.status_code == 200
        received = bytearray()
        async for chunk in response.aiter_raw():
            received += chunk
            if good and len(received) > self._limit:
                raise TooLarge
            if not good and len(received) >= SMALL:
                break
        return bytes(received if good else received[:SMALL])

    def _client(self, url: str) -> httpx.AsyncClient:
        import ssl

        import httpx

        parts = urlsplit(url)
        loopback = is_loopback(parts.hostname or "")
        # Loading the certificate store takes 20 ms and 2 MiB, and plain HTTP does not need it. An
        # empty context trusts no certificate.
        context = self._trust_of(url).context() if parts.scheme == "https" else None
        client = self._clients.get((context, loopback))
        if client is None:
            client = self._clients[context, loopback] = httpx.AsyncClient(
                timeout=self._timeout_s,
                # A proxy from the environment cannot reach the ports of this machine.
                trust_env=self._proxies and not loopback,
                verify=context or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            )
        return client


def redirect_target(url: str, location: str) -> str | None:
    """The target of a redirect of ``url``; None for another server, or from https to http.

    A server behind a proxy that terminates TLS writes ``http://`` with the port of the https
    request into its redirects. Then https is used. A redirect from http to https on the same host
    is followed. Raises ValueError for an invalid URL.
    """
    target = urljoin(url, location)
    old, new = urlsplit(url), urlsplit(target)
    if old.hostname != new.hostname or new.scheme not in _PORTS:
        return None
    if _port(old) == _port(new) and old.scheme == new.scheme:
        return target
    if old.scheme == "http" and new.scheme == "https":
        return target
    behind_proxy = old.scheme == "https" and (
        _port(new) == _port(old) or (old.port is None and new.port is None)
    )
    return new._replace(scheme="https", netloc=old.netloc).geturl() if behind_proxy else None


def _port(parts: SplitResult) -> int | None:
    return parts.port or _PORTS.get(parts.scheme)

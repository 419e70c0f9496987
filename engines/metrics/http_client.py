"""HTTP requests to engines, for their numbers and for their options: the one client of llmtop.

It owns trust, time-outs, size limits and redirects. Servers on this machine are asked through
``loopback``, which costs a third of the CPU; encryption, proxies, passwords in a URL and other
machines go through httpx. Readiness has a client of its own, ``probe``: it reads no body and runs
in the threads of the supervisor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urljoin, urlsplit

from llmtop import __version__
from llmtop.engines.metrics.loopback import (
    Answer,
    BrokenAnswer,
    Loopback,
    NoConnection,
    TooLarge,
    is_loopback,
    is_plain,
)
from llmtop.trust import SYSTEM, Trust

if TYPE_CHECKING:
    import ssl

    import httpx

    _Kind = tuple[ssl.SSLContext | None, bool]

__all__ = [
    "Answer", "BrokenAnswer", "CircularRedirect", "ForeignRedirect", "HttpClient", "NoConnection",
    "TooLarge", "is_plain", "redirect_target",
]  # fmt: skip

REDIRECTS = (301, 302, 303, 307, 308)
MAX_REDIRECTS = 3  # some servers mount /metrics as a folder and send us to /metrics/
_PORTS = {"http": 80, "https": 443}


class ForeignRedirect(Exception):
    """The server redirects to another server. status: of its answer."""

    def __init__(self, status: int) -> None:
        super().__init__()
        self.status = status


class CircularRedirect(Exception):
    """The server redirects again and again."""


class HttpClient:
    """Keeps connections to any number of servers. Close it at the end.

    limit: largest body taken, in bytes. timeout_s: for one answer as a whole, so that a server that
    drips a byte a second does not hold us. api_key: sent as a bearer token, never shown. trust_of:
    whom an encrypted connection to a URL believes. accept: the content types that are wanted.
    """

    def __init__(
        self,
        limit: int,
        timeout_s: float,
        *,
        api_key: str = "",
        trust_of: Callable[[str], Trust] = lambda _: SYSTEM,
        accept: str = "*/*",
    ) -> None:
        self._limit = limit
        self._timeout_s = timeout_s
        self._trust_of = trust_of
        self._headers = {
            "User-Agent": f"llmtop/{__version__}",
            "Accept": accept,
            # Compressing costs the engine's front end more than it saves, and an uncompressed
            # body cannot be a decompression bomb.
            "Accept-Encoding": "identity",
        }
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._loopback = Loopback(limit, timeout_s)
        self._clients: dict[_Kind, httpx.AsyncClient] = {}

    async def request(
        self,
        method: str,
        url: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one request; a redirect is an answer. headers: in place of the client's own.

        Raises TimeoutError, NoConnection, BrokenAnswer, TooLarge, and ValueError for no URL.
        """
        async with asyncio.timeout(self._timeout_s):
            return await self._send(method, url, body, headers)

    async def get(self, url: str) -> Answer:
        """GET; redirects are followed on the same server only (``redirect_target``).

        Raises what ``request`` does, ForeignRedirect and CircularRedirect. timeout_s is for all
        answers together.
        """
        target = url
        async with asyncio.timeout(self._timeout_s):
            for _ in range(MAX_REDIRECTS + 1):
                answer = await self._send("GET", target, None, None)
                if answer.status not in REDIRECTS or answer.location is None:
                    return answer
                further = redirect_target(target, answer.location)
                if further is None:
                    raise ForeignRedirect(answer.status)
                target = further
        raise CircularRedirect

    async def close(self) -> None:
        """Close all connections."""
        self._loopback.close()
        clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            await client.aclose()

    async def _send(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str] | None
    ) -> Answer:
        headers = dict(self._headers if headers is None else headers)
        if body is not None:
            headers["Content-Type"] = "application/json"
        if is_plain(url):
            return await self._loopback.request(method, url, headers, body)
        return await self._by_httpx(method, url, headers, body)

    async def _by_httpx(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> Answer:
        import httpx

        try:
            request = self._client(url).stream(method, url, headers=headers, content=body)
            async with request as response:
                received = bytearray()
                if response.status_code == 200:
                    async for chunk in response.aiter_raw():
                        received += chunk
                        if len(received) > self._limit:
                            raise TooLarge
                location = response.headers.get("location")
                return Answer(response.status_code, location, bytes(received))
        except httpx.TimeoutException as error:
            raise TimeoutError from error
        except httpx.ConnectError as error:
            raise NoConnection(str(error)) from error
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            raise BrokenAnswer(type(error).__name__) from error

    def _client(self, url: str) -> httpx.AsyncClient:
        import ssl

        import httpx

        parts = urlsplit(url)
        loopback = is_loopback(parts.hostname or "")
        # Loading the certificate store costs 20 ms and 2 MiB that plain HTTP has no use for; a
        # context without one trusts nobody.
        context = self._trust_of(url).context() if parts.scheme == "https" else None
        client = self._clients.get((context, loopback))
        if client is None:
            client = self._clients[context, loopback] = httpx.AsyncClient(
                timeout=self._timeout_s,
                # A proxy from the environment is for the world outside; it cannot reach our ports.
                trust_env=not loopback,
                verify=context or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            )
        return client


def redirect_target(url: str, location: str) -> str | None:
    """Where a redirect of ``url`` leads; None when that is another server, or https to http.

    A proxy that takes the encryption off makes its server write ``http://`` into its redirects, at
    the port of the https that was asked: then https is asked again. From http to https of the same
    host is followed too. ValueError for no URL.
    """
    target = urljoin(url, location)
    old, new = urlsplit(url), urlsplit(target)
    if old.hostname != new.hostname or new.scheme not in _PORTS:
        return None
    if _port(old) == _port(new) and old.scheme == new.scheme:
        return target
    if old.scheme == "http" and new.scheme == "https":
        return target
    taken_off = old.scheme == "https" and (
        _port(new) == _port(old) or (old.port is None and new.port is None)
    )
    return new._replace(scheme="https", netloc=old.netloc).geturl() if taken_off else None


def _port(parts: SplitResult) -> int | None:
    return parts.port or _PORTS.get(parts.scheme)

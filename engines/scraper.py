"""Where an engine's numbers come in: fetch the text, parse it, have the adapter read it.

The only scrape sockets are the ones in ``HttpFetch`` (those to this machine: ``loopback``). An
engine can be slow (vLLM's first answer takes up to 1.7 s, more under load), gone, hung or somebody
else's web server: each of these is one ``ScrapeError`` in plain words, costs bounded time and
bounded memory, and stops nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urljoin, urlsplit

from llmtop import __version__
from llmtop.engines.adapter import Adapter, Reader
from llmtop.engines.exposition import MAX_TEXT, Exposition, Parser, ScrapeError
from llmtop.engines.loopback import (
    Answer,
    BrokenAnswer,
    Loopback,
    NoConnection,
    TooLarge,
    is_loopback,
    is_plain,
)
from llmtop.engines.samples import Reading
from llmtop.values import replace

if TYPE_CHECKING:
    import httpx

TIMEOUT_S = 5.0
_MAX_REDIRECTS = 3  # some servers mount /metrics as a folder and send us to /metrics/
_REDIRECTS = (301, 302, 303, 307, 308)


class Fetch(Protocol):
    """Gets the text at a URL. Raises ScrapeError, and nothing else, when it cannot be had."""

    async def __call__(self, url: str) -> str:
        """The body of the answer to GET, as text; bytes that are not UTF-8 are replaced."""


class HttpFetch:
    """The real ``Fetch``. One for all engines that take the same key; close it at the end.

    api_key: sent as a bearer token, never shown. timeout_s: for one answer as a whole, so that a
    server that drips a byte a second does not hold us. limit: largest body taken, in bytes.
    """

    def __init__(
        self, api_key: str = "", timeout_s: float = TIMEOUT_S, limit: int = MAX_TEXT
    ) -> None:
        self._timeout_s = timeout_s
        self._limit = limit
        self._headers = {
            "User-Agent": f"llmtop/{__version__}",
            "Accept": "application/json, text/plain;version=0.0.4, */*;q=0.1",
            # Compressing costs the engine's front end more than it saves, and an uncompressed
            # body cannot be a decompression bomb.
            "Accept-Encoding": "identity",
        }
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._loopback = Loopback(limit, timeout_s)
        self._clients: dict[tuple[bool, bool], httpx.AsyncClient] = {}

    async def __call__(self, url: str) -> str:
        """Get the text at ``url``; redirects are followed on the same host and port only."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._get(url)
        except TimeoutError as error:
            raise ScrapeError(
                f"no answer from {_place(url)} within {self._timeout_s:g} s",
                "the engine may be hung or very busy",
            ) from error
        except NoConnection as error:
            raise _unreachable(url, error) from error
        except TooLarge as error:
            raise ScrapeError(
                f"the answer of {_place(url)} is larger than {self._limit / 2**20:.3g} MiB"
            ) from error
        except (BrokenAnswer, ValueError) as error:
            why = error if isinstance(error, BrokenAnswer) else type(error).__name__
            raise ScrapeError(
                f"{_place(url)} broke off or does not speak HTTP ({why})",
                "check the URL and its scheme (http or https)",
            ) from error

    async def close(self) -> None:
        """Close all connections."""
        self._loopback.close()
        clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            await client.aclose()

    async def _get(self, url: str) -> str:
        target = url
        for _ in range(_MAX_REDIRECTS + 1):
            if is_plain(target):
                answer = await self._loopback.get(target, self._headers)
            else:
                answer = await self._far(target)
            status = answer.status
            if status == 200:
                return answer.body.decode("utf-8", "replace")
            if status not in _REDIRECTS or answer.location is None:
                path = urlsplit(url).path or "/"
                wants = "it needs the engine's API key, in the variable LLMTOP_API_KEY"
                hint = wants if status in (401, 403) else ""
                raise ScrapeError(f"{_place(url)} answered {path} with HTTP {status}", hint, status)
            target = urljoin(target, answer.location)
            if _origin(target) != _origin(url):
                raise ScrapeError(
                    f"{_place(url)} sends us to another server",
                    "give that server's own URL if it is meant",
                    status,
                )
        raise ScrapeError(f"{_place(url)} redirects in a circle")

    async def _far(self, url: str) -> Answer:
        """Ask through httpx, which knows encryption, proxies and passwords; errors as there."""
        import httpx

        try:
            request = self._client(url).stream("GET", url, headers=self._headers)
            async with request as response:
                body = bytearray()
                if response.status_code == 200:
                    async for chunk in response.aiter_raw():
                        body += chunk
                        if len(body) > self._limit:
                            raise TooLarge
                return Answer(response.status_code, response.headers.get("location"), bytes(body))
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
        secure = parts.scheme == "https"
        loopback = is_loopback(parts.hostname or "")
        client = self._clients.get((secure, loopback))
        if client is None:
            client = self._clients[secure, loopback] = httpx.AsyncClient(
                timeout=self._timeout_s,
                # A proxy from the environment is for the world outside; it cannot reach our ports.
                trust_env=not loopback,
                # Loading the certificate store costs 20 ms and 2 MiB that plain HTTP has no use
                # for; a context without one trusts nobody.
                verify=True if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            )
        return client


class FakeFetch:
    """Answers from a script: texts, or errors to raise, by turns; the last one for ever after.

    ``pages`` maps a URL to its answers; a URL that is not in it answers 404.
    """

    def __init__(self, pages: dict[str, Iterable[str | ScrapeError]]) -> None:
        self._pages = {url: list(answers) for url, answers in pages.items()}
        self.asked: list[str] = []

    async def __call__(self, url: str) -> str:
        """The next answer for this URL."""
        self.asked.append(url)
        answers = self._pages.get(url)
        if not answers:
            raise ScrapeError(f"{_place(url)} answered with HTTP 404", status=404)
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, ScrapeError):
            raise answer
        return answer


class Scraper:
    """Reads one engine's numbers, one ``Reading`` a call: the ``Reader`` of most engines."""

    note = ""

    def __init__(
        self,
        adapter: Adapter,
        base_url: str,
        fetch: Fetch,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._adapter = adapter
        self._url = base_url.rstrip("/") + adapter.metrics_path
        self._fetch = fetch
        self._clock = clock
        self._monotonic = monotonic
        self._parser = Parser(adapter.prefixes)
        self._text: Exposition | None = None
        self._reading: Reading | None = None

    async def close(self) -> None:
        """Nothing is held: the connections are the fetch's."""

    async def read(self) -> Reading:
        """Fetch and read once. Raises ScrapeError."""
        text = await self._fetch(self._url)
        # A busy engine makes us wait and then counts: its numbers are as old as its answer.
        now, elapsed = self._clock(), self._monotonic()
        parsed = self._parser.parse(text)
        if self._reading is None or parsed is not self._text:
            self._reading = self._adapter.read(parsed, now, elapsed)
        else:  # the same numbers, seen at another moment
            self._reading = replace(self._reading, time=now, elapsed=elapsed)
        self._text = parsed
        return self._reading


def open_reader(adapter: Adapter, base_url: str, fetch: Fetch, locks: Path | None = None) -> Reader:
    """The reader for an engine of this kind; close it at the end.

    locks: a folder that every llmtop of this user knows (``StateDirectory.locks``), for engines
    whose numbers only one may read; None keeps nobody else away.
    """
    if adapter.make_reader is not None:
        return adapter.make_reader(base_url, fetch, locks)
    return Scraper(adapter, base_url, fetch)


def _place(url: str) -> str:
    """Scheme, host and port: what may be shown of a URL (it may carry a password or a token)."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "this URL"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _unreachable(url: str, error: Exception) -> ScrapeError:
    words = str(error)
    if "CERTIFICATE" in words or "SSL" in words:
        return ScrapeError(f"no safe connection to {_place(url)}", "is it http rather than https?")
    if "Name or service" in words or "Temporary failure" in words or "getaddrinfo" in words:
        return ScrapeError(f"the host of {_place(url)} is not known", "check its spelling")
    return ScrapeError(
        f"nothing listens at {_place(url)}", "is the engine running, and is this its port?"
    )

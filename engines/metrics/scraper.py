"""Reads an engine's numbers: fetches the text, parses it, and lets the adapter read it.

The server can be slow (vLLM's first answer takes up to 1.7 s, more under load), gone, hung, or
another program. Each case raises one ``ScrapeError`` in plain words, within bounded time and
memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from llmtop.engines.core import conditions
from llmtop.engines.core.adapter import Adapter, Reader
from llmtop.engines.core.conditions import Condition
from llmtop.engines.core.samples import Reading
from llmtop.engines.metrics.exposition import MAX_TEXT, Exposition, Parser, ScrapeError
from llmtop.engines.metrics.routers import other_engine_of, router_of
from llmtop.http_client.client import HttpClient
from llmtop.http_client.exchange import (
    BrokenAnswer,
    CircularRedirect,
    ForeignRedirect,
    NoConnection,
    TooLarge,
)
from llmtop.trust import Trusts, tls_fault
from llmtop.values import replace

TIMEOUT_S = 5.0
ACCEPT = "application/json, text/plain;version=0.0.4, */*;q=0.1"


class Fetch(Protocol):
    """Fetches the text at a URL. Every failure raises ScrapeError."""

    async def __call__(self, url: str) -> str:
        """The body of the answer to GET, as text; bytes that are not UTF-8 are replaced."""


class HttpFetch:
    """The real ``Fetch``. One for all engines with the same API key; close it at the end.

    api_key: sent as a bearer token, never shown. timeout_s: for one complete answer, which also
    limits a server that sends one byte a second. limit: largest accepted body, bytes.
    trusts: the certificates to trust.
    """

    def __init__(
        self,
        api_key: str = "",
        timeout_s: float = TIMEOUT_S,
        limit: int = MAX_TEXT,
        trusts: Trusts | None = None,
    ) -> None:
        trusts = trusts if trusts is not None else Trusts()
        self._timeout_s = timeout_s
        self._limit = limit
        self._has_key = bool(api_key)
        self._client = HttpClient(
            limit, timeout_s, api_key=api_key, trust_of=trusts.of, accept=ACCEPT
        )

    async def __call__(self, url: str) -> str:
        """Get the text at ``url``; redirects are followed on the same host and port only."""
        try:
            answer = await self._client.get(url)
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
        except ForeignRedirect as error:
            raise ScrapeError(
                f"{_place(url)} redirects to another server",
                "if you mean that server, give its own URL",
                error.status,
            ) from error
        except CircularRedirect as error:
            raise ScrapeError(f"{_place(url)} redirects in a circle") from error
        if answer.status != 200:
            raise self._refusal(url, answer.status)
        return answer.body.decode("utf-8", "replace")

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    def _refusal(self, url: str, status: int) -> ScrapeError:
        words = f"answered {urlsplit(url).path or '/'} with HTTP {status}"
        if status not in (401, 403):
            return ScrapeError(f"{_place(url)} {words}", "", status)
        found = conditions.needs_key(given=self._has_key)
        return ScrapeError(f"{_place(url)} {found.message}: it {words}", found.hint, status, found)


class Scraper:
    """Reads one engine's numbers, one ``Reading`` a call: the ``Reader`` of most engines."""

    note = ""
    steps = None

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
        self._parser = Parser(adapter.prefixes, adapter.renamed)
        self._text: Exposition | None = None
        self._reading: Reading | None = None

    def give_way(self) -> None:
        """Everybody may read this page."""

    async def close(self) -> None:
        """Does nothing: the fetch owns the connections."""

    async def read(self) -> Reading:
        """Fetch and read once. Raises ScrapeError."""
        try:
            text = await self._fetch(self._url)
        except ScrapeError as error:
            raise self._named(error) from error
        # A busy engine delays its answer and counts last: use the time of the answer.
        now, elapsed = self._clock(), self._monotonic()
        parsed = self._parse(text)
        if self._reading is None or parsed is not self._text:
            self._reading = self._judged(self._adapter.read(parsed, now, elapsed), text, parsed)
        else:  # the same numbers at another moment
            self._reading = replace(self._reading, time=now, elapsed=elapsed)
        self._text = parsed
        return self._reading

    def _parse(self, text: str) -> Exposition:
        try:
            return self._parser.parse(text)
        except ScrapeError as error:
            front = router_of(text)
            if front is None:
                raise
            found = conditions.router(front)
            raise ScrapeError(found.message, found.hint, condition=found) from error

    def _judged(self, reading: Reading, text: str, parsed: Exposition) -> Reading:
        """The reading, with the problems of the page as a whole."""
        found = list(reading.conditions)
        gauges = (reading.running, reading.waiting, reading.kv_usage)
        if gauges == (None, None, None) and not reading.histograms:
            found.append(self._without_numbers(text))
        elif parsed.renamed:
            own = self._adapter.renamed[parsed.renamed]
            found.append(conditions.renamed_series({f"{own}…": f"{parsed.renamed}…"}))
        return replace(reading, conditions=tuple(found)) if found else reading

    def _without_numbers(self, text: str) -> Condition:
        """Why a page has none of the engine's numbers."""
        if front := router_of(text):
            return conditions.router(front)
        other = other_engine_of(text)
        return conditions.unknown_engine(other) if other else self._no_metrics()

    def _no_metrics(self) -> Condition:
        adapter = self._adapter
        return conditions.no_metrics(adapter.title, adapter.metrics_path, adapter.without_metrics)

    def _named(self, error: ScrapeError) -> ScrapeError:
        """The error with its meaning for this engine."""
        if error.status != 404:
            return error
        found = self._no_metrics()
        return ScrapeError(f"{_place(self._url)}: {found.message}", found.hint, 404, found)


def open_reader(adapter: Adapter, base_url: str, fetch: Fetch, locks: Path | None = None) -> Reader:
    """The reader for an engine of this kind; close it at the end.

    locks: a folder common to all llmtop processes of this user (``StateDirectory.locks``), for
    engines whose numbers only one process may read; None: no lock.
    """
    if adapter.make_reader is not None:
        return adapter.make_reader(base_url, fetch, locks)
    return Scraper(adapter, base_url, fetch)


def _place(url: str) -> str:
    """Scheme, host and port of a URL. The rest may contain a password or a token."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "this URL"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _unreachable(url: str, error: Exception) -> ScrapeError:
    words = str(error)
    if (fault := tls_fault(words)) is not None:
        return ScrapeError(f"no safe connection to {_place(url)}: {fault[0]}", fault[1])
    if "Name or service" in words or "Temporary failure" in words or "getaddrinfo" in words:
        return ScrapeError(f"the host of {_place(url)} is not known", "check its spelling")
    return ScrapeError(
        f"nothing listens at {_place(url)}", "is the engine running, and is this its port?"
    )

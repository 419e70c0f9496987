"""Detects the kind, version and model of the engine at a URL."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

from llmtop import LlmtopError, UsageError
from llmtop.engines.core.conditions import KNOWN_ENGINES, router, unknown_engine
from llmtop.engines.metrics.exposition import ScrapeError
from llmtop.engines.metrics.routers import other_engine_of, router_of
from llmtop.engines.metrics.scraper import Fetch
from llmtop.engines.registry import ADAPTERS

SIMULATOR = "llmtop-simulator"  # "engine" in the simulated engine's /version
SIMULATOR_KIND = "sim"

# Prefixes of an engine's sample names, and "owned_by" in /v1/models.
_PREFIXES = {"vllm:": "vllm", "sglang:": "sglang", "trtllm_": "tensorrt-llm"}
_RENAMED = {"vllm_": "vllm", "sglang_": "sglang"}  # collectors may replace the colon
_OWNERS = {"vllm": "vllm", "sglang": "sglang", "tensorrt_llm": "tensorrt-llm"}
# Paths that people copy from a client's configuration; they all mean the server.
_PATHS = (
    *("/v1/chat/completions", "/v1/completions", "/v1/models", "/v1"),
    *("/prometheus/metrics", "/metrics", "/health", "/version"),
)
_PREFIX = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*")
_MOST_PATH = 300  # characters
_MAX_WORD = 300  # characters kept of a model name or a version: both are foreign text


class Detected(Struct, frozen=True):
    """The engine at ``url``, in the form of ``normalise``. kind: the adapter's name.

    version, model: None if not reported. note: what is not available and why, in a few words,
    "" without a problem. simulated: it is llmtop's simulated engine.
    """

    kind: str
    url: str
    version: str | None = None
    model: str | None = None
    note: str = ""
    simulated: bool = False


def normalise(url: str) -> str:
    """The server's URL: scheme, host, port, and the base path behind a gateway.

    Accepts ``:8000``, ``8000``, ``host:8000``, a trailing slash and the usual paths at the end.
    Raises UsageError for anything that is not an HTTP URL of a server.
    """
    text = url.strip()
    if re.fullmatch(r":?[0-9]+", text):
        text = f"127.0.0.1:{text.removeprefix(':')}"
    if "://" not in text:
        text = f"http://{text}"
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise _no_url(url) from None
    sound = re.fullmatch(r"[A-Za-z0-9_.-]+|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*", host)
    if not sound or port == 0 or parts.scheme not in ("http", "https"):
        raise _no_url(url)
    if "@" in parts.netloc:  # not repeated: what stands before the @ may be a password
        raise UsageError("the URL has a user name in it", "remove it; give an API key separately")
    if parts.query or parts.fragment:  # not repeated: a token may be in it
        raise UsageError("the URL has a query in it", "remove the part after ? or #")
    path = parts.path.rstrip("/")
    path = next((path.removesuffix(end) for end in _PATHS if path.endswith(end)), path).rstrip("/")
    if len(path) > _MOST_PATH or not _PREFIX.fullmatch(path):
        raise _no_url(url)
    where = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{where}" + (f":{port}" if port else "") + path


def same_server(one: str, other: str) -> bool:
    """Whether two URLs from ``normalise`` mean the same server: this machine's address has several
    names."""
    return _canonical(one) == _canonical(other)


def _canonical(url: str) -> str:
    return re.sub(r"//(?:localhost|127\.0\.0\.1|\[::1\])(?=[:/]|$)", "//localhost", url.lower())


async def recognise(url: str, fetch: Fetch) -> Detected:
    """Identify the engine at a URL.

    Raises UsageError for an invalid URL, ScrapeError when nothing answers, LlmtopError when
    something other than an engine answers.
    """
    base = normalise(url)
    # No connection is an error only for the first request. Later, a failed request (API key needed,
    # engine busy) only means unknown.
    refused: list[ScrapeError] = []
    about = _fields(await _ask(fetch, f"{base}/version", refused, strict=True))
    listing = await _ask(fetch, f"{base}/v1/models", refused)
    card = _first_model(listing)
    kind = _OWNERS.get(str(card.get("owned_by")))
    simulated = about.get("engine") == SIMULATOR
    note = page = ""
    if simulated:
        kind = SIMULATOR_KIND
    else:
        # TensorRT-LLM's /metrics is a queue that each read empties: do not read it here.
        path = "/prometheus/metrics" if kind == "tensorrt-llm" else "/metrics"
        page = await _ask(fetch, f"{base}{path}", refused, strict=kind is None)
        named = _by_names(page)
        kind = named or kind
        if kind is not None and named is None:
            note = f"no metrics at {path}" + ("" if _broken(refused) else _remedy(kind))
    locked = [error for error in refused if error.status in (401, 403)]
    if kind is None and locked:
        raise locked[-1]
    if kind is None and (front := router_of(page)) is not None:
        found = router(front)
        raise LlmtopError(f"{base}: {found.message}", found.hint)
    if kind is None and (other := other_engine_of(page)) is not None:
        found = unknown_engine(other)
        raise LlmtopError(f"{base}: {found.message}", found.hint)
    if kind is None:
        raise LlmtopError(
            f"{base} answers, but not like an engine that llmtop knows",
            f"llmtop knows {KNOWN_ENGINES}; check host and port",
        )
    version = about.get("version")
    if version is None and kind == "sglang":
        version = _fields(await _ask(fetch, f"{base}/server_info")).get("version")
    return Detected(kind, base, _word(version), _word(card.get("id")), note, simulated)


async def is_simulator(base: str, fetch: Fetch) -> bool:
    """Whether llmtop's simulated engine answers at ``base``."""
    return _fields(await _ask(fetch, f"{base}/version")).get("engine") == SIMULATOR


async def version_of(base: str, fetch: Fetch) -> str | None:
    """The version that the engine at ``base`` reports; None when it does not."""
    version = _fields(await _ask(fetch, f"{base}/version")).get("version")
    if version is None:
        version = _fields(await _ask(fetch, f"{base}/server_info")).get("version")
    return _word(version)


def _broken(refused: Sequence[ScrapeError]) -> bool:
    """Whether the last request failed in the server: then metrics may exist."""
    return bool(refused) and (refused[-1].status or 0) >= 500


def _remedy(kind: str) -> str:
    how = ADAPTERS[kind].without_metrics if kind in ADAPTERS else ""
    return f": {how}" if how else ""


async def _ask(
    fetch: Fetch, url: str, refused: list[ScrapeError] | None = None, strict: bool = False
) -> str:
    """The text at a URL, "" if not available; ``strict`` raises when nothing answers.

    refused: collects the errors of answered requests.
    """
    try:
        return await fetch(url)
    except ScrapeError as error:
        if strict and error.status is None:
            raise
        if refused is not None:
            refused.append(error)
        return ""


def _fields(text: str) -> dict[str, Any]:
    """A JSON object, empty for another text."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _first_model(text: str) -> dict[str, Any]:
    data = _fields(text).get("data")
    first = data[0] if isinstance(data, list) and data else None
    return first if isinstance(first, dict) else {}


def _by_names(text: str) -> str | None:
    """The engine whose sample names are in the metrics text; renamed ones are tried last.

    None for the page of a router, which may have an engine's names.
    """
    if router_of(text) is not None:
        return None
    lines = text.split("\n")
    for prefixes in (_PREFIXES, _RENAMED):
        for line in lines:
            for prefix, kind in prefixes.items():
                if line.startswith(prefix):
                    return kind
    return None


def _word(value: object) -> str | None:
    return _short(value) if isinstance(value, str) and value else None


def _short(text: str) -> str:
    return text if len(text) <= _MAX_WORD else text[: _MAX_WORD - 1] + "…"


def _no_url(url: str) -> UsageError:
    return UsageError(
        f"{_short(url)!r} is not the URL of an engine", "write it like http://127.0.0.1:8000"
    )

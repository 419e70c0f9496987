"""Which engine answers at a URL, which version, and with which model."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

from llmtop import LlmtopError, UsageError
from llmtop.engines.exposition import ScrapeError
from llmtop.engines.scraper import Fetch

SIMULATOR = "llmtop-simulator"  # what the simulated engine's /version says in "engine"
SIMULATOR_KIND = "sim"

# How an engine's sample names begin, and what /v1/models says in "owned_by".
_PREFIXES = {"vllm:": "vllm", "sglang:": "sglang", "trtllm_": "tensorrt-llm"}
_OWNERS = {"vllm": "vllm", "sglang": "sglang", "tensorrt_llm": "tensorrt-llm"}
# What people copy from a client's configuration; all of it means the server itself.
_PATHS = ("", "/v1", "/metrics", "/health", "/v1/models", "/v1/completions", "/v1/chat/completions")
_MAX_WORD = 300  # characters kept of a model's name or a version: both are somebody else's text


class Recognised(Struct, frozen=True):
    """The engine at ``url`` (scheme, host and port). kind: the adapter's name.

    version, model: None when it does not tell. note: what cannot be had from it and why, in a few
    words, "" when all is well. simulated: it is llmtop's own simulated engine.
    """

    kind: str
    url: str
    version: str | None = None
    model: str | None = None
    note: str = ""
    simulated: bool = False


def normalise(url: str) -> str:
    """The server that is meant, as scheme, host and port.

    ``:8000``, ``8000``, ``host:8000``, a trailing slash and the usual paths are understood. Raises
    UsageError for anything that is no http URL of a server.
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
        raise UsageError("the URL has a user name in it", "leave that away; give an API key apart")
    if parts.path.rstrip("/") not in _PATHS or parts.query:
        raise UsageError(
            f"the URL {_short(url)!r} has a path in it", "give only scheme, host and port"
        )
    where = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{where}" + (f":{port}" if port else "")


def same_server(one: str, other: str) -> bool:
    """Whether two URLs, as ``normalise`` gives them, are the same server: this machine's own
    address has several names."""
    return _canonical(one) == _canonical(other)


def _canonical(url: str) -> str:
    return re.sub(r"//(?:localhost|127\.0\.0\.1|\[::1\])(?=:|$)", "//localhost", url.lower())


async def recognise(url: str, fetch: Fetch) -> Recognised:
    """Ask a URL what it is.

    Raises UsageError when it is no URL, ScrapeError when nothing answers there, LlmtopError when
    something else than an engine does.
    """
    base = normalise(url)
    # Nobody answering is an answer as long as nothing is known. After that, what a question does
    # not bring (a key is needed, the engine is busy) is merely not known.
    about = _fields(await _ask(fetch, f"{base}/version", strict=True))
    listing = await _ask(fetch, f"{base}/v1/models")
    card = _first_model(listing)
    kind = _OWNERS.get(str(card.get("owned_by")))
    simulated = about.get("engine") == SIMULATOR
    note = ""
    if simulated:
        kind = SIMULATOR_KIND
    else:
        # TensorRT-LLM's /metrics is a queue that each read empties: it is left alone.
        path = "/prometheus/metrics" if kind == "tensorrt-llm" else "/metrics"
        named = _by_names(await _ask(fetch, f"{base}{path}", strict=kind is None))
        kind = named or kind
        if kind is not None and named is None:
            note = f"no metrics at {path}" + _REMEDIES.get(kind, "")
    if kind is None:
        raise LlmtopError(
            f"{base} answers, but not as an engine that llmtop knows",
            "it knows vLLM, SGLang and TensorRT-LLM; check host and port",
        )
    version = about.get("version")
    if version is None and kind == "sglang":
        version = _fields(await _ask(fetch, f"{base}/server_info")).get("version")
    return Recognised(kind, base, _word(version), _word(card.get("id")), note, simulated)


async def is_simulator(base: str, fetch: Fetch) -> bool:
    """Whether llmtop's simulated engine answers at ``base``."""
    return _fields(await _ask(fetch, f"{base}/version")).get("engine") == SIMULATOR


async def version_of(base: str, fetch: Fetch) -> str | None:
    """The version that the engine at ``base`` tells; None when it does not."""
    version = _fields(await _ask(fetch, f"{base}/version")).get("version")
    if version is None:
        version = _fields(await _ask(fetch, f"{base}/server_info")).get("version")
    return _word(version)


_REMEDIES = {
    "sglang": ": SGLang has them when started with --enable-metrics",
    "tensorrt-llm": ": TensorRT-LLM has them with return_perf_metrics in its configuration",
}


async def _ask(fetch: Fetch, url: str, strict: bool = False) -> str:
    """The text at a URL, "" when it is not to be had; ``strict`` raises when nobody answers."""
    try:
        return await fetch(url)
    except ScrapeError as error:
        if strict and error.status is None:
            raise
        return ""


def _fields(text: str) -> dict[str, Any]:
    """A JSON object, empty when the text is none."""
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
    """The engine whose sample names the metrics text has."""
    for line in text.split("\n"):
        for prefix, kind in _PREFIXES.items():
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

"""What a server calls its model: GET /v1/models."""

from __future__ import annotations

import json
import time

import httpx

from llmtop import LlmtopError, UsageError
from llmtop.loadgen.chunk import clean
from llmtop.loadgen.transport import address

MAX_ANSWER = 1 << 20  # bytes; a list of models has some hundred


class NotAnEngine(LlmtopError):
    """The URL leads to something, or nothing, that does not speak as an OpenAI server does."""


def discover_model(
    url: str,
    api_key: str = "",
    timeout_s: float = 5.0,
    transport: httpx.BaseTransport | None = None,
) -> str:
    """The id of the first model that a server lists.

    Raises UsageError for a URL that is none, NotAnEngine when nothing answers, or something else.
    transport: for tests.
    """
    where = address(url)
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        # Certificates are read only where they are needed: they cost 30 ms and 2 MiB.
        with httpx.Client(
            timeout=timeout_s, trust_env=False, verify=where.secure, transport=transport
        ) as client:
            status, text = _get(client, f"{where.base_url}/models", headers, timeout_s)
    except httpx.TimeoutException:
        raise NotAnEngine(
            f"{where.authority} did not answer within {timeout_s:g} s",
            "is the engine still starting?",
        ) from None
    except (httpx.InvalidURL, UnicodeError):
        raise UsageError(f"{where.authority[:80]} is no host name", hint="check the URL") from None
    except httpx.ProtocolError:
        raise NotAnEngine(
            f"{where.authority} broke off or does not speak HTTP",
            "check the URL and its scheme (http or https)",
        ) from None
    except httpx.TransportError as error:
        raise NotAnEngine(
            f"nothing can be reached at {where.authority}: {clean(str(error)).lower()}",
            "start the engine, or check host and port",
        ) from None
    if status in (401, 403):
        raise NotAnEngine(f"{where.authority} wants an API key", "give it with the request")
    hint = "the URL must be that of an OpenAI-compatible server, such as vLLM's"
    if status != 200:
        raise NotAnEngine(f"{where.authority} answers {status} to /v1/models", hint)
    try:
        model = json.loads(text)["data"][0]["id"]
    except (ValueError, LookupError, TypeError, RecursionError):
        model = None
    if not isinstance(model, str) or not model or not _is_text(model):
        raise NotAnEngine(f"{where.authority} does not answer as an OpenAI server does", hint)
    return model


def _is_text(word: str) -> bool:
    """Half of a surrogate pair is valid JSON, and cannot be sent."""
    return not any("\ud800" <= character <= "\udfff" for character in word)


def _get(
    client: httpx.Client, url: str, headers: dict[str, str], timeout_s: float
) -> tuple[int, bytes]:
    # httpx's own time-out is for each read: a server that drips would keep us for ever.
    deadline = time.monotonic() + timeout_s
    text = b""
    with client.stream("GET", url, headers=headers) as response:
        for piece in response.iter_bytes():
            text += piece
            if len(text) > MAX_ANSWER:
                break
            if time.monotonic() > deadline:
                raise httpx.ReadTimeout("the answer does not end")
    return response.status_code, text

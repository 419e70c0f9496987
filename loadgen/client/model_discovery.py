"""The model that a server offers, from GET /v1/models."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from llmtop import LlmtopError, UsageError
from llmtop.loadgen.client.transport import address
from llmtop.loadgen.protocol.chunk import clean
from llmtop.trust import SYSTEM, Trust, tls_fault

if TYPE_CHECKING:
    import httpx

MAX_ANSWER = 1 << 20  # bytes; a list of models has some hundred
MAX_MODEL = 4096  # characters of a model's name, which every request repeats; a path has no more


class NotAnEngine(LlmtopError):
    """The URL leads to something, or nothing, that does not speak as an OpenAI server does."""


class NotHttp(Exception):
    """What came back was no HTTP answer, or not a whole one."""


# (URL, headers, seconds for the answer as a whole) -> status and body, which a 200 alone needs.
# Raises TimeoutError, ConnectionError where nothing answers, NotHttp, ValueError for no host.
Ask = Callable[[str, Mapping[str, str], float], tuple[int, bytes]]


def discover_model(
    url: str,
    api_key: str = "",
    timeout_s: float = 5.0,
    ask: Ask | None = None,
    trust: Trust = SYSTEM,
) -> str:
    """The id of the first model that a server lists, as ``discover`` finds it."""
    return discover(url, api_key, timeout_s, ask, trust)[0]


def discover(
    url: str,
    api_key: str = "",
    timeout_s: float = 5.0,
    ask: Ask | None = None,
    trust: Trust = SYSTEM,
) -> tuple[str, str]:
    """The id of the first model that a server lists, and the owner that it names: "vllm",
    "sglang", "" for nothing. Not to be called from a running event loop.

    Raises UsageError for a URL that is none, NotAnEngine when nothing answers, or something else.
    timeout_s: for the answer as a whole, however it drips. ask: what speaks HTTP; None: httpx,
    whose encrypted connections believe ``trust``.
    """
    where = address(url)
    # A compressed body could be a bomb.
    headers = {"accept-encoding": "identity"}
    if api_key:
        headers["authorization"] = f"Bearer {api_key}"
    try:
        ask = ask or by_httpx(trust=trust)
        status, text = ask(f"{where.base_url}/models", headers, timeout_s)
    except TimeoutError:
        raise NotAnEngine(
            f"{where.authority} did not answer within {timeout_s:g} s",
            "is the engine still starting?",
        ) from None
    except ValueError:
        raise UsageError(f"{where.authority[:80]} is no host name", hint="check the URL") from None
    except NotHttp:
        raise NotAnEngine(
            f"{where.authority} closed the connection or does not speak HTTP",
            "check the URL and its scheme (http or https)",
        ) from None
    except ConnectionError as error:
        if (fault := tls_fault(str(error))) is not None:
            raise NotAnEngine(
                f"no safe connection to {where.authority}: {fault[0]}", fault[1]
            ) from None
        raise NotAnEngine(
            f"nothing can be reached at {where.authority}{_why(error)}",
            "start the engine, or check host and port",
        ) from None
    if status in (401, 403):
        wants = "does not take this API key" if api_key else "needs an API key"
        raise NotAnEngine(f"{where.authority} {wants}", "put it in the variable LLMTOP_API_KEY")
    hint = "the URL must be that of an OpenAI-compatible server, such as vLLM's"
    if status != 200:
        raise NotAnEngine(f"{where.authority} answers {status} to /v1/models", hint)
    try:
        card = json.loads(text)["data"][0]
        model = card["id"]
        owner = card.get("owned_by")
    except (ValueError, LookupError, TypeError, RecursionError, AttributeError):
        model = owner = None
    if not isinstance(model, str) or not 0 < len(model) <= MAX_MODEL or not _is_text(model):
        raise NotAnEngine(f"{where.authority} does not answer as an OpenAI server does", hint)
    return model, owner if isinstance(owner, str) else ""


def _why(error: BaseException) -> str:
    """A colon and the reason; some errors have no words, what caused them may have some."""
    seen: BaseException | None = error
    while seen is not None:
        words = clean(str(seen)).strip().lower()
        if words:
            return f": {words}"
        seen = seen.__cause__ or seen.__context__
    return ""


def _is_text(word: str) -> bool:
    """Half of a surrogate pair is valid JSON, and cannot be sent."""
    return not any("\ud800" <= character <= "\udfff" for character in word)


def by_httpx(transport: httpx.AsyncBaseTransport | None = None, trust: Trust = SYSTEM) -> Ask:
    """Any server, over TLS as well. transport: in place of a network."""

    def ask(url: str, headers: Mapping[str, str], timeout_s: float) -> tuple[int, bytes]:
        import httpx  # 12 MiB and 60 ms, which a screen on an engine of this machine can do without

        try:
            client = httpx.AsyncClient(
                timeout=timeout_s,
                trust_env=False,
                # Certificates are read only where they are needed: they cost 30 ms and 2 MiB.
                verify=trust.context() if url.startswith("https:") else False,
                transport=transport,
            )
            return asyncio.run(_get(client, url, headers, timeout_s))
        except httpx.TimeoutException as error:
            raise TimeoutError from error
        except httpx.InvalidURL as error:
            raise ValueError(str(error)) from error
        except httpx.ProtocolError as error:
            raise NotHttp(str(error)) from error
        except httpx.TransportError as error:
            raise ConnectionError(str(error)) from error

    return ask


async def _get(
    client: httpx.AsyncClient, url: str, headers: Mapping[str, str], timeout_s: float
) -> tuple[int, bytes]:
    # httpx's own time-out is for each read: a server that drips, be it headers, would keep us.
    text = b""
    async with (
        asyncio.timeout(timeout_s),
        client,
        client.stream("GET", url, headers=headers) as response,
    ):
        if response.headers.get("content-encoding", "identity") != "identity":
            return response.status_code, text  # it was not asked for
        async for piece in response.aiter_bytes():
            text += piece
            if len(text) > MAX_ANSWER:
                break
        return response.status_code, text

"""The model that a server offers, from GET /v1/models."""

from __future__ import annotations

import asyncio
import json

from llmtop import LlmtopError, UsageError
from llmtop.http_client.client import HttpClient
from llmtop.http_client.exchange import Answer, BrokenAnswer, NoConnection, TooLarge
from llmtop.loadgen.client.transport import address
from llmtop.printable import clean
from llmtop.trust import SYSTEM, Trust, tls_fault

MAX_ANSWER = 1 << 20  # bytes; a list of models has a few hundred
MAX_MODEL = 4096  # characters of a model's name, the limit of a path; every request contains it


class NotAnEngine(LlmtopError):
    """No server answers at the URL, or it is not an OpenAI-compatible server."""


def discover_model(
    url: str, api_key: str = "", timeout_s: float = 5.0, trust: Trust = SYSTEM
) -> str:
    """The id of the first model that a server lists. Raises as ``discover`` does."""
    return discover(url, api_key, timeout_s, trust)[0]


def discover(
    url: str, api_key: str = "", timeout_s: float = 5.0, trust: Trust = SYSTEM
) -> tuple[str, str]:
    """The id of the first model that a server lists, and its owner: "vllm", "sglang", or "".

    Do not call it from a running event loop. timeout_s: for the complete answer. trust: the
    certificates to trust. Raises UsageError for an invalid URL, NotAnEngine if no OpenAI-compatible
    server answers.
    """
    where = address(url)
    try:
        answer = asyncio.run(_models(f"{where.base_url}/models", api_key, timeout_s, trust))
    except TimeoutError:
        raise NotAnEngine(
            f"{where.authority} did not answer within {timeout_s:g} s",
            "is the engine still starting?",
        ) from None
    except ValueError:
        raise UsageError(f"{where.authority[:80]} is not a host name", "check the URL") from None
    except (BrokenAnswer, NoConnection) as error:
        raise _no_answer(where.authority, error) from None
    status, text = answer.status, answer.body
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
        raise NotAnEngine(f"{where.authority} does not answer like an OpenAI server", hint)
    return model, owner if isinstance(owner, str) else ""


def _no_answer(authority: str, error: BrokenAnswer | NoConnection) -> NotAnEngine:
    words = error.words if isinstance(error, BrokenAnswer) else str(error)
    if (fault := tls_fault(words)) is not None:
        return NotAnEngine(f"no safe connection to {authority}: {fault[0]}", fault[1])
    if isinstance(error, BrokenAnswer):
        return NotAnEngine(
            f"{authority} closed the connection or does not speak HTTP",
            "check the URL and its scheme (http or https)",
        )
    why = clean(words).strip().lower()
    return NotAnEngine(
        f"cannot connect to {authority}" + (f": {why}" if why else ""),
        "start the engine, or check host and port",
    )


def _is_text(word: str) -> bool:
    """Whether a name can be encoded: JSON may hold half of a surrogate pair, which cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in word)


async def _models(url: str, api_key: str, timeout_s: float, trust: Trust) -> Answer:
    # No proxies of the environment, as for the load.
    client = HttpClient(
        MAX_ANSWER, timeout_s, api_key=api_key, trust_of=lambda _: trust, proxies=False
    )
    try:
        return await client.request("GET", url)
    except TooLarge:
        return Answer(200)  # an HTTP answer, but not a list of models
    finally:
        await client.close()

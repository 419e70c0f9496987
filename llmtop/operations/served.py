"""Which model an engine serves, asked without httpx where the engine is on this very machine."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from llmtop.engines.metrics.http_client import (
    BrokenAnswer,
    HttpClient,
    NoConnection,
    TooLarge,
    is_plain,
)
from llmtop.loadgen.client.model_discovery import MAX_ANSWER, NotHttp, discover_model
from llmtop.trust import SYSTEM, Trust


def served_model(url: str, api_key: str, trust: Trust = SYSTEM) -> str:
    """As ``discover_model``, which says what it raises. Not to be called from an event loop."""
    return discover_model(url, api_key, ask=_ask if is_plain(url) else None, trust=trust)


def _ask(url: str, headers: Mapping[str, str], timeout_s: float) -> tuple[int, bytes]:
    async def get() -> tuple[int, bytes]:
        client = HttpClient(MAX_ANSWER, timeout_s)
        try:
            answer = await client.request("GET", url, headers=headers)
        finally:
            await client.close()
        return answer.status, answer.body

    try:
        return asyncio.run(get())
    except NoConnection as error:
        raise ConnectionError(str(error)) from error
    except BrokenAnswer as error:
        raise NotHttp(type(error).__name__) from error
    except TooLarge:
        return 200, b""  # HTTP it is, and no list of models

"""Which model an engine serves, asked without httpx where the engine is on this very machine."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from llmtop.engines.loopback import BrokenAnswer, Loopback, NoConnection, TooLarge, is_plain
from llmtop.loadgen.discovery import MAX_ANSWER, NotHttp, discover_model


def served_model(url: str, api_key: str) -> str:
    """As ``discover_model``, which says what it raises. Not to be called from an event loop."""
    return discover_model(url, api_key, ask=_ask if is_plain(url) else None)


def _ask(url: str, headers: Mapping[str, str], timeout_s: float) -> tuple[int, bytes]:
    async def get() -> tuple[int, bytes]:
        connections = Loopback(MAX_ANSWER, timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                answer = await connections.get(url, headers)
        finally:
            connections.close()
        return answer.status, answer.body

    try:
        return asyncio.run(get())
    except NoConnection as error:
        raise ConnectionError(str(error)) from error
    except BrokenAnswer as error:
        raise NotHttp(type(error).__name__) from error
    except TooLarge:
        return 200, b""  # HTTP it is, and no list of models

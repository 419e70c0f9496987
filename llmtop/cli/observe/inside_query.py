"""Shared by the commands of this room: a query to the inside of a running engine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from llmtop import LlmtopError
from llmtop.cli.engines.running import FROZEN, require_running

if TYPE_CHECKING:
    from llmtop.engines.core.endpoint import Endpoint
    from llmtop.engines.introspection.engine_inside import EngineInside
    from llmtop.operations.wiring import Wiring

Found = TypeVar("Found")


def ask_inside(
    name: str,
    ask: Callable[[EngineInside, str], Awaitable[Found]],
    fallback: Callable[[Endpoint, Wiring], Awaitable[Found | None]] | None = None,
) -> Found:
    """Return the result of ``ask``, which receives the engine's inside and the user's name.

    fallback: a query for an engine without a live socket; None as its result means that the engine
    reports nothing. Raises LlmtopError when the engine does not run or has no live socket.
    """
    from llmtop.operations.inside import inside_of, require_inside
    from llmtop.operations.wiring import Wiring

    async def answer() -> Found:
        wiring = Wiring()
        try:
            endpoint = await wiring.endpoint(name)
            silence = require_running(wiring, endpoint)
            if fallback is not None and inside_of(endpoint) is None:
                found = await fallback(endpoint, wiring)
                if found is not None:
                    return found
            inside = require_inside(endpoint)
            try:
                return await ask(inside, wiring.who)
            except LlmtopError as error:
                hint = (error.hint or "").replace("NAME", endpoint.name)
                if FROZEN in error.message and FROZEN in silence:
                    message = silence  # both report the same
                else:
                    message = f"{error.message}; {silence}" if silence else error.message
                raise LlmtopError(message, hint) from None
            finally:
                inside.close()
        finally:
            await wiring.fetch.close()

    return asyncio.run(answer())

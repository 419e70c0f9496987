"""What the commands of this room share: an engine that runs, and its inside."""

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
    instead: Callable[[Endpoint, Wiring], Awaitable[Found | None]] | None = None,
) -> Found:
    """What ``ask`` finds inside the engine NAME. It gets who asks, too.

    instead: what can be found without a look inside, where the engine has no live socket.
    """
    from llmtop.operations.inside import inside_of, require_inside
    from llmtop.operations.wiring import Wiring

    async def answer() -> Found:
        wiring = Wiring()
        try:
            endpoint = await wiring.endpoint(name)
            trouble = require_running(wiring, endpoint)
            if instead is not None and inside_of(endpoint) is None:
                found = await instead(endpoint, wiring)
                if found is not None:
                    return found
            inside = require_inside(endpoint)
            try:
                return await ask(inside, wiring.who)
            except LlmtopError as error:
                hint = (error.hint or "").replace("NAME", endpoint.name)
                if FROZEN in error.message and FROZEN in trouble:
                    message = trouble  # both say the same
                else:
                    message = f"{error.message}; {trouble}" if trouble else error.message
                raise LlmtopError(message, hint) from None
            finally:
                inside.close()
        finally:
            await wiring.fetch.close()

    return asyncio.run(answer())

"""The steps of an engine that reports them itself, as those of a plugin are asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from llmtop import LlmtopError
from llmtop.values import replace

if TYPE_CHECKING:
    from llmtop.engines.core.latencies import Latencies
    from llmtop.engines.core.requests import RequestSort, RequestTable
    from llmtop.engines.core.steps import Step, Steps


class ReportedSteps:
    """kept: the newest steps that were read, and how many were lost since the first ones."""

    def __init__(self, kept: Callable[[], Steps]) -> None:
        self._kept = kept
        self._last: Step | None = None
        self._lost = 0

    async def steps(self, newest: int = 0) -> Steps:
        """Those that were read since the call before."""
        found = self._kept()
        lost, self._lost = max(0, found.lost - self._lost), found.lost
        place = next(
            (at for at in range(len(found.steps), 0, -1) if found.steps[at - 1] is self._last), 0
        )
        if found.steps:
            self._last = found.steps[-1]
        return replace(found, steps=found.steps[place:], lost=lost)

    async def latencies(self) -> Latencies:
        """They come with the engine's numbers, where it has them."""
        raise LlmtopError("the engine reports no exact latencies")

    async def requests(self, sort: RequestSort = "kv", limit: int = 0) -> RequestTable:
        """They need a plugin."""
        raise LlmtopError("the engine does not show its requests")

    def close(self) -> None:
        """Nothing is under way: its numbers are read elsewhere."""

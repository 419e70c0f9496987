"""The steps of an engine that reports them over HTTP, with the interface of a plugin's steps."""

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
    """Returns the new steps at each call. kept: returns the newest steps that were read, and the
    total number of lost ones."""

    def __init__(self, kept: Callable[[], Steps]) -> None:
        self._kept = kept
        self._last: Step | None = None
        self._lost = 0

    async def steps(self, newest: int = 0) -> Steps:
        """The steps that were read since the last call."""
        found = self._kept()
        lost, self._lost = max(0, found.lost - self._lost), found.lost
        place = next(
            (at for at in range(len(found.steps), 0, -1) if found.steps[at - 1] is self._last), 0
        )
        if found.steps:
            self._last = found.steps[-1]
        return replace(found, steps=found.steps[place:], lost=lost)

    async def latencies(self) -> Latencies:
        """Always raises LlmtopError: latencies come with the engine's metrics, if at all."""
        raise LlmtopError("the engine reports no exact latencies")

    async def requests(self, sort: RequestSort = "kv", limit: int = 0) -> RequestTable:
        """Always raises LlmtopError: requests need a plugin."""
        raise LlmtopError("the engine does not show its requests")

    def close(self) -> None:
        """Do nothing: another object reads the steps."""

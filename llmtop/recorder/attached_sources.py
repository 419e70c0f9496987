"""Engines at URLs: the recorder samples them while a screen shows them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from llmtop import LlmtopError
from llmtop.engines.state.attached_engines import AttachedEngines

if TYPE_CHECKING:
    from llmtop.operations.wiring import Wiring
    from llmtop.recorder.recorded_engines import RecordedEngines

RETRY_S = 30.0  # after an engine did not answer
CONNECT_TIMEOUT_S = 5.0


class AttachedSources:
    """Adds engines at URLs to the recorded engines, and removes them.

    steady: a monotonic clock, in seconds.
    """

    def __init__(
        self,
        runtime: RecordedEngines,
        wiring: Wiring,
        engines: AttachedEngines,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runtime, self._wiring, self._engines, self._steady = runtime, wiring, engines, steady
        self._names: dict[str, str] = {}  # by URL; "" for an engine of llmtop's own
        self._not_before: dict[str, float] = {}

    async def refresh(self) -> list[str]:
        """Add engines that screens show now, remove those that no screen shows any more.

        Returns the URLs that screens show. An engine that does not answer is tried again after
        ``RETRY_S`` seconds.
        """
        urls = await asyncio.to_thread(self._engines.fresh)
        for url in urls:
            if url not in self._names and self._steady() >= self._not_before.get(url, 0.0):
                await self._add(url)
        for url in [one for one in self._names if one not in urls]:
            name = self._names.pop(url)
            if name:
                self._runtime.drop(name)
        return urls

    async def _add(self, url: str) -> None:
        self._not_before[url] = self._steady() + RETRY_S
        try:
            endpoint = await asyncio.wait_for(self._wiring.endpoint(url), CONNECT_TIMEOUT_S)
        except (LlmtopError, TimeoutError):
            return
        if endpoint.owned:
            self._names[url] = ""  # the recorder records it already, by its name
            return
        self._runtime.add(endpoint)
        self._names[url] = endpoint.name

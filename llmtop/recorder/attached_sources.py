"""Engines at URLs: read for the history while a screen shows them."""

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

AGAIN_S = 30.0  # after an engine did not answer
PATIENCE_S = 5.0


class AttachedSources:
    """Adds them to a runtime, and takes them away."""

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
        """The URLs that screens show; each that answers is read from now on."""
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
        self._not_before[url] = self._steady() + AGAIN_S
        try:
            endpoint = await asyncio.wait_for(self._wiring.endpoint(url), PATIENCE_S)
        except (LlmtopError, TimeoutError):
            return
        if endpoint.owned:
            self._names[url] = ""  # it is recorded by its name
            return
        self._runtime.add(endpoint)
        self._names[url] = endpoint.name

"""Samples an engine's KV cache usage and GPU utilisation in a thread, during a measurement."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from statistics import fmean
from typing import TYPE_CHECKING

from llmtop import LlmtopError
from llmtop.loadgen.experiments.level import Usage

if TYPE_CHECKING:
    from llmtop.engines.core.endpoint import Endpoint
    from llmtop.operations.wiring import Wiring

EVERY_S = 0.5
CLOSE_S = 5.0  # longest wait for the thread: a scrape of a hanging engine may block it

ReadUsage = Callable[[], Awaitable[float | None]]


class EngineGauges:
    """The highest KV cache usage, and the share of time without a GPU kernel.

    open_reader: returns a function that reads the KV usage (0..1); called in the thread. Its
    resources are closed there too. utilisation: share of recent time in which a kernel ran, as NVML
    reports it, mean over the engine's GPUs; None: unknown. every_s: interval. ``read`` never
    blocks.
    """

    def __init__(
        self,
        open_reader: Callable[[AsyncExitStack], ReadUsage],
        utilisation: Callable[[], float | None] = lambda: None,
        every_s: float = EVERY_S,
    ) -> None:
        self._open_reader, self._utilisation, self._every_s = open_reader, utilisation, every_s
        self._busy: list[float] = []
        self._kv: float | None = None
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gauges", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_S)

    def begin(self) -> None:
        """Begin a window: drop earlier samples."""
        with self._lock:
            self._busy.clear()
            self._kv = None

    def read(self) -> Usage:
        """The usage since ``begin``."""
        with self._lock:
            idle = 1 - fmean(self._busy) if self._busy else None
            return Usage(gpu_idle=idle, kv_peak=self._kv)

    def _run(self) -> None:
        asyncio.run(self._watch())

    async def _watch(self) -> None:
        async with AsyncExitStack() as stack:
            read = self._open_reader(stack)
            while not self._ended.is_set():
                kv: float | None = None
                with suppress(LlmtopError):
                    kv = await read()
                busy = self._utilisation()
                with self._lock:
                    if busy is not None:
                        self._busy.append(busy)
                    if kv is not None:
                        self._kv = max(kv, self._kv or 0.0)
                await asyncio.sleep(self._every_s)


def gauges_of(
    wiring: Wiring, endpoint: Endpoint, utilisation: Callable[[], float | None]
) -> EngineGauges:
    """Create the gauges of an engine, with their own sockets."""

    def open_reader(stack: AsyncExitStack) -> ReadUsage:
        fresh = type(wiring)(wiring.environ)  # sockets belong to one event loop
        session = fresh.session(endpoint)
        stack.push_async_callback(fresh.fetch.close)
        stack.push_async_callback(session.close)

        async def read() -> float | None:
            return (await session.sample()).kv_usage

        return read

    return EngineGauges(open_reader, utilisation)

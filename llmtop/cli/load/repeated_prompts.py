"""Repeated prompts: how often they were sent, and the engine's prefix cache hit rate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from llmtop import LlmtopError
from llmtop.engines.metrics.window import Window
from llmtop.operations.repeats import Repeats, SeedBook, named

if TYPE_CHECKING:
    from llmtop.cli.load.load_target import LoadTarget
    from llmtop.loadgen.core.results import RequestRecord
    from llmtop.loadgen.workers.load import Load
    from llmtop.loadgen.workload.plan import Prompts
    from llmtop.operations.wiring import Wiring

EVER_S = 1e9  # a window that starts with the first reading
ONE_READER = "tensorrt-llm"  # a reading empties its metrics page, so only the dashboard reads it


class CacheShare:
    """Reads the prefix cache hit rate of an engine since the first reading.

    target: the engine's name or URL. Reading never raises LlmtopError.
    """

    def __init__(self, wiring: Wiring, target: str) -> None:
        self._wiring, self._target = wiring, target
        self._window = Window(EVER_S, EVER_S)

    def read(self) -> float | None:
        """The hit rate since the first reading, 0..1; None at the first, or if it is unknown."""
        try:
            return asyncio.run(self._read())
        except LlmtopError:
            return None

    async def _read(self) -> float | None:
        wiring = type(self._wiring)(self._wiring.environ)  # sockets belong to one event loop
        try:
            endpoint = await wiring.endpoint(self._target)
            if endpoint.adapter.kind == ONE_READER:
                return None
            session = wiring.session(endpoint, window=self._window)
            try:
                return (await session.sample()).prefix_hit_rate
            finally:
                await session.close()
        finally:
            await wiring.fetch.close()


class DatasetRepeats:
    """Counts repeated prompts of a dataset on one engine.

    Other prompts are not counted: their seed is new in each run. target: the engine's name or URL.
    """

    def __init__(self, wiring: Wiring, found: LoadTarget, target: str, prompts: Prompts) -> None:
        self._is_needed = bool(prompts.dataset)
        self._engine, self._prompts = found.engine, prompts
        self._seeds = SeedBook(wiring.state.root)
        self._share = CacheShare(wiring, target)
        self._what, self._key = named(prompts, 0)  # a dataset needs no seed
        self._before_s: float | None = None
        self._requests = 0
        self._load: Load | None = None

    def begin(self) -> None:
        """Read the state before the first request."""
        if self._is_needed:
            self._before_s = self._seeds.before_s(self._engine, self._key)
            self._share.read()

    def counting(self, take: Callable[[RequestRecord], None]) -> Callable[[RequestRecord], None]:
        """Return ``take``, extended so that it counts each request."""
        if not self._is_needed:
            return take

        def count(record: RequestRecord) -> None:
            self._requests += record.turn == 1 and record.sent is not None
            take(record)

        return count

    def follow(self, load: Load) -> None:
        """Set the load that sends the requests. It knows the number of prompts in the dataset."""
        self._load = load

    def end(self) -> Repeats | None:
        """The repetitions; None when no request of a dataset was sent."""
        if self._load is None or not self._requests:
            return None
        self._seeds.add(self._engine, self._key)
        return Repeats(
            self._what, self._before_s, self._load.prompt_count, self._requests, self._share.read()
        )

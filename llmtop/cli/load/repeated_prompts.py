"""Repeated prompts: how often they were sent, and how many an engine found in its prefix cache."""

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

EVER_S = 1e9  # a window that begins with the first look
ONE_READER = "tensorrt-llm"  # whose page is emptied by reading it: it is left to its dashboard


class CacheShare:
    """Looks at an engine's counters, and says what they grew by since the first look.

    target: its name, or a URL. An engine that cannot be read is left out; nothing is raised.
    """

    def __init__(self, wiring: Wiring, target: str) -> None:
        self._wiring, self._target = wiring, target
        self._window = Window(EVER_S, EVER_S)

    def read(self) -> float | None:
        """The share since the first look, 0..1; None at the first, and where it is unknown."""
        try:
            return asyncio.run(self._read())
        except LlmtopError:
            return None

    async def _read(self) -> float | None:
        aside = type(self._wiring)(self._wiring.environ)
        try:
            endpoint = await aside.endpoint(self._target)
            if endpoint.adapter.kind == ONE_READER:
                return None
            session = aside.session(endpoint, window=self._window)
            try:
                return (await session.sample()).prefix_hit_rate
            finally:
                await session.close()
        finally:
            await aside.fetch.close()


class DatasetRepeats:
    """Counts the requests that one engine was sent. It counts for datasets only: other prompts
    are made from a seed that was never used before.

    target: the engine, as the command names it.
    """

    def __init__(self, wiring: Wiring, found: LoadTarget, target: str, prompts: Prompts) -> None:
        self._is_needed = bool(prompts.dataset)
        self._engine, self._prompts = found.engine, prompts
        self._book = SeedBook(wiring.state.root)
        self._share = CacheShare(wiring, target)
        self._what, self._key = named(prompts, 0)  # the seed matters for made prompts only
        self._before_s: float | None = None
        self._requests = 0
        self._load: Load | None = None

    def begin(self) -> None:
        """Before the first request."""
        if self._is_needed:
            self._before_s = self._book.before_s(self._engine, self._key)
            self._share.read()

    def counting(self, take: Callable[[RequestRecord], None]) -> Callable[[RequestRecord], None]:
        """``take``, and each request is counted."""
        if not self._is_needed:
            return take

        def count(record: RequestRecord) -> None:
            self._requests += record.turn == 1 and record.sent is not None
            take(record)

        return count

    def follow(self, load: Load) -> None:
        """The load that sends the requests; it knows how many prompts the dataset has."""
        self._load = load

    def end(self) -> Repeats | None:
        """What was repeated; None where no dataset was sent."""
        if self._load is None or not self._requests:
            return None
        self._book.add(self._engine, self._key)
        return Repeats(
            self._what, self._before_s, self._load.prompt_count, self._requests, self._share.read()
        )

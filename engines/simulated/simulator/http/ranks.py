"""Data-parallel ranks: several engines behind one server, each with a queue of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from llmtop.engines.simulated.simulator.http.live_socket import LiveSocket
from llmtop.engines.simulated.simulator.model.engine import Engine, Sink
from llmtop.engines.simulated.simulator.model.request import Request
from llmtop.engines.tuning.inside.llmtop_live.introspection import Introspection

THREADS = 16  # that wait for a step's end, for all ranks


class Ranks:
    """Hands each request to the rank that has the fewest, as vLLM's internal load balancer does.

    Ranks share nothing: a request stays where it is, and each rank has its own KV cache.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        self.engines = tuple(engines)
        self._at: dict[int, Engine] = {}

    def refuse(self) -> bool:
        """Whether a request that comes now is refused, because the queue of each rank is full."""
        if any(engine.has_room for engine in self.engines):
            return False
        min(self.engines, key=lambda one: one.open).scheduler.totals.refused += 1
        return True

    def submit(self, request: Request, max_tokens: int, sink: Sink) -> None:
        """Take a request in, at a rank whose queue is not full where there is one."""
        engine = min(self.engines, key=lambda one: (not one.has_room, one.open))
        self._at[request.serial] = engine
        engine.submit(request, max_tokens, sink)

    def cancel(self, request: Request) -> None:
        """Drop a request; nothing happens when it is finished."""
        engine = self._at.pop(request.serial, None)
        if engine is not None:
            engine.cancel(request)

    async def run(self) -> None:
        """Step all of them until cancelled; the failure of one is the failure of all."""
        await asyncio.gather(*(engine.run() for engine in self.engines))

    def report(self) -> None:
        """A line of each about the last interval."""
        for rank, engine in enumerate(self.engines):
            engine.report(rank)


class Sockets:
    """The live socket of each rank: rank 0 has the plain path, rank N has ``.N`` behind it.

    insides: what each shows of its engine. manners: how each misbehaves, "" for a proper one.
    """

    def __init__(
        self, ranks: Ranks, insides: Sequence[Introspection], manners: Sequence[str]
    ) -> None:
        self._threads = ThreadPoolExecutor(THREADS, "llmtop-live")
        each = zip(ranks.engines, insides, manners, strict=True)
        self._sockets = [
            LiveSocket(engine.live, engine.scheduler, inside, self._threads, manner, rank)
            for rank, (engine, inside, manner) in enumerate(each)
        ]

    async def open(self, path: str) -> None:
        """Listen on all of them."""
        for rank, live in enumerate(self._sockets):
            await live.open(f"{path}.{rank}" if rank else path)

    async def close(self) -> None:
        """Stop answering and remove them."""
        for live in self._sockets:
            await live.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

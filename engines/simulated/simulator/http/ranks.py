"""Data-parallel ranks: several engines behind one server, each with its own queue."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from llmtop.engines.simulated.simulator.http.live_socket import LiveSocket
from llmtop.engines.simulated.simulator.model.engine import Engine, Sink
from llmtop.engines.simulated.simulator.model.request import Request
from llmtop.engines.tuning.inside.llmtop_live.introspection import Introspection

THREADS = 16  # for requests that wait for a step, of all ranks together


class Ranks:
    """Sends each request to the rank with the fewest requests, as vLLM's internal load balancer.

    Ranks share nothing: a request stays on its rank, and each rank has its own KV cache.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        self.engines = tuple(engines)
        self._at: dict[int, Engine] = {}

    def refuse(self) -> bool:
        """Whether a new request is refused because the queues of all ranks are full."""
        if any(engine.has_room for engine in self.engines):
            return False
        min(self.engines, key=lambda one: one.open).scheduler.totals.refused += 1
        return True

    def submit(self, request: Request, max_tokens: int, sink: Sink) -> None:
        """Accept a request, if possible on a rank whose queue is not full."""
        engine = min(self.engines, key=lambda one: (not one.has_room, one.open))
        self._at[request.serial] = engine
        engine.submit(request, max_tokens, sink)

    def cancel(self, request: Request) -> None:
        """Remove a request. Does nothing for a finished request."""
        engine = self._at.pop(request.serial, None)
        if engine is not None:
            engine.cancel(request)

    async def run(self) -> None:
        """Run all engines until cancelled. Raises if one fails."""
        await asyncio.gather(*(engine.run() for engine in self.engines))

    def report(self) -> None:
        """Log a line of each rank about the last interval."""
        for rank, engine in enumerate(self.engines):
            engine.report(rank)


class Sockets:
    """The live socket of each rank: rank 0 has the plain path, rank N the suffix ``.N``.

    introspections: of each rank. faults: of each rank's socket, "" for none.
    """

    def __init__(
        self, ranks: Ranks, introspections: Sequence[Introspection], faults: Sequence[str]
    ) -> None:
        self._threads = ThreadPoolExecutor(THREADS, "llmtop-live")
        each = zip(ranks.engines, introspections, faults, strict=True)
        self._sockets = [
            LiveSocket(engine.live, engine.scheduler, inside, self._threads, fault, rank)
            for rank, (engine, inside, fault) in enumerate(each)
        ]

    async def open(self, path: str) -> None:
        """Open all sockets."""
        for rank, live in enumerate(self._sockets):
            await live.open(f"{path}.{rank}" if rank else path)

    async def close(self) -> None:
        """Stop answering and remove the sockets."""
        for live in self._sockets:
            await live.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

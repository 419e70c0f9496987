"""Samples every source once per interval, concurrently."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol


class Source(Protocol):
    """Something that writes facts into the store."""

    async def sample(self) -> None:
        """Read once and update the store."""

    async def close(self) -> None:
        """Release all resources."""


class Sampling:
    """Samples every source once per interval, on an absolute schedule, each in its own task.

    A source that is still busy with its last beat is skipped, so a slow engine delays no other
    source. interval: seconds. steady: monotonic seconds. on_fault: called with an error of a
    source, once until it succeeds or the error changes.
    """

    def __init__(
        self,
        sources: Iterable[Source],
        interval: float = 1.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        steady: Callable[[], float] = time.monotonic,
        on_fault: Callable[[Source, Exception], None] | None = None,
    ) -> None:
        self.sources = list(sources)
        self.interval = interval
        self._sleep = sleep
        self._steady = steady
        self._on_fault = on_fault
        self._busy: dict[int, asyncio.Task[None]] = {}
        self._again: set[int] = set()
        self._faults: dict[int, str] = {}

    async def run(self) -> None:
        """Sample at each interval until cancelled."""
        due = self._steady()
        while True:
            self.sample_all()
            due = max(due + self.interval, self._steady())
            await self._sleep(due - self._steady())

    def sample_all(self) -> None:
        """Start a beat of every source that is not busy."""
        for source in self.sources:
            self.sample(source)

    def sample(self, source: Source, *, again: bool = False) -> asyncio.Task[None]:
        """Start one source's beat, or return the task of the beat in progress.

        again: something has changed that the beat in progress may have missed. One more beat
        follows it at once, and the returned task ends after that one.
        """
        task = self._busy.get(id(source))
        if task is None or task.done():
            task = asyncio.create_task(self._beats(source))
            self._busy[id(source)] = task
        elif again:
            self._again.add(id(source))
        return task

    async def _beats(self, source: Source) -> None:
        more = True
        while more:
            # This beat serves every request made before it begins.
            self._again.discard(id(source))
            await self._guarded(source, source.sample)
            more = id(source) in self._again

    async def _guarded(self, source: Source, action: Callable[[], Awaitable[None]]) -> None:
        try:
            await action()
        except Exception as error:
            fault = f"{type(error).__name__}: {error}"
            if self._on_fault is not None and self._faults.get(id(source)) != fault:
                self._on_fault(source, error)
            self._faults[id(source)] = fault
        else:
            self._faults.pop(id(source), None)

    async def close(self) -> None:
        """Cancel all beats and close every source."""
        for task in self._busy.values():
            task.cancel()
        await asyncio.gather(*self._busy.values(), return_exceptions=True)
        for source in self.sources:
            await self._guarded(source, source.close)

"""Samples the engines of this machine periodically, without a screen."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmtop.operations.wiring import Wiring
    from llmtop.tui.monitoring.watches import Watches
    from llmtop.tui.store.store import Store


class Collected:
    """The current data about the engines. watches: changes between two samples."""

    def __init__(self, store: Store, watches: Watches) -> None:
        self.store, self.watches = store, watches


@asynccontextmanager
async def collecting(
    wiring: Wiring, names: Sequence[str], interval: float
) -> AsyncIterator[Collected]:
    """Sample engines until the context ends. interval: seconds.

    names: names or URLs; without any, all engines of llmtop, also those started later.
    """
    from llmtop.tui.dashboard.runtime import DashboardRuntime
    from llmtop.tui.monitoring.watches import Watches

    if names:
        endpoints = [await wiring.endpoint(name) for name in names]
    else:
        living = [one for one in wiring.supervisor.records() if one.ended_at is None]
        endpoints = [wiring.of(one) for one in living]
    runtime = DashboardRuntime(wiring, endpoints, interval=interval, follow_new=not names)
    watches = Watches(runtime.store, runtime.insights, wiring, count_orphans=True)
    sampling = asyncio.create_task(runtime.sampling.run())
    try:
        yield Collected(runtime.store, watches)
    finally:
        sampling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sampling
        await runtime.sampling.close()
        runtime.release()
        await wiring.fetch.close()

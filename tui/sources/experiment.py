"""The base class of searches, comparisons and tunes, which have a load of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, ClassVar, Protocol

from msgspec import Struct

from llmtop import LlmtopError
from llmtop.engines.core.records import State
from llmtop.loadgen.workload.plan import Plan, Prompts
from llmtop.printable import clean
from llmtop.tui.commands.control import refusal
from llmtop.tui.store.store import Event, Store

if TYPE_CHECKING:
    from llmtop.engines.gpu.energy import EngineEnergy
    from llmtop.loadgen.core.results import RequestRecord
    from llmtop.loadgen.experiments.level import LoadClock
    from llmtop.loadgen.workers.load import Load
    from llmtop.operations.curves import CurveArchive
    from llmtop.operations.session import EngineSession
    from llmtop.tui.sources.engine import EngineSource
    from llmtop.tui.sources.load import LoadSource

BEAT_S = 0.2  # between two polls; ``Saturation`` and ``Comparison`` need about five a second
CUT_S = 3.0  # time limit until cancelled requests are counted
ENDED = (State.STOPPED, State.FAILED, State.LOST)


class NewLoad(Protocol):
    """Makes a load on an engine; blocks while it asks the engine for its model."""

    def __call__(
        self,
        source: EngineSource,
        prompts: Prompts,
        *,
        clock: LoadClock,
        window_s: float,
        on_record: Callable[[RequestRecord], None],
    ) -> Load:
        """Return a load that is not started.

        window_s: length of a measured window, in seconds. on_record: called with each result.
        """


class Parts(Struct, frozen=True):
    """The dependencies of experiments.

    energy: the energy meter of an engine; None without one. reopen: opens a new session on a
    source's engine, for use after the event loop has ended. archive: the curves of earlier
    searches. seed: a new seed at each call. now: the screen's clock. repaint: called to paint at
    once.
    """

    store: Store
    load_source: LoadSource
    new_load: NewLoad
    energy: Callable[[EngineSource], EngineEnergy | None]
    reopen: Callable[[EngineSource], EngineSession]
    archive: CurveArchive
    seed: Callable[[], int]
    now: Callable[[], float]
    repaint: Callable[[], None]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class Experiment:
    """One measurement with a load of its own. ``run`` ends by itself, or soon after ``stop``.

    It never blocks the event loop; blocking calls run on threads. ``release`` ends it if the loop
    has stopped before ``run`` ended. screen: the id of the command that shows it.
    """

    screen: ClassVar[str]

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.stopping = False
        self._loads: list[Load] = []

    async def run(self) -> None:
        """Measure, then end the loads, restore the options and report the result."""
        trouble = ""
        try:
            await self.measure()
        except Exception as error:
            trouble = clean(refusal(error))
        await self._end_loads()
        await self.restore()
        await self.report_result(trouble)
        self.parts.repaint()

    async def measure(self) -> None:
        """Measure. Raises the error that ended the measurement early."""
        raise NotImplementedError

    async def restore(self) -> None:
        """Restore the changed options."""

    async def report_result(self, trouble: str) -> None:
        """Publish the result. trouble: why it ended early, "" if it did not or was stopped."""
        raise NotImplementedError

    def stop(self) -> None:
        """End soon; the results so far are kept."""
        self.stopping = True

    def release(self) -> None:
        """End the workers of the load at once. Blocks; may be called twice."""
        for load in self._loads:
            load.close()

    async def begin_load(
        self,
        source: EngineSource,
        prompts: Prompts,
        *,
        clock: LoadClock,
        window_s: float,
        on_record: Callable[[RequestRecord], None],
    ) -> Load:
        """Make a load and start its workers; it sends nothing yet."""

        def begin() -> Load:
            load = self.parts.new_load(
                source, prompts, clock=clock, window_s=window_s, on_record=on_record
            )
            self._loads.append(load)
            # Start the workers with an empty plan, so that the next plan starts without a wait.
            load.start(Plan(shape="hold 0", seed=self.parts.seed()))
            return load

        return await asyncio.to_thread(begin)

    def show_load(self, load: Load, source: EngineSource) -> None:
        """Show this load on the charts of this engine."""
        self.parts.load_source.load = load
        self.parts.store.load_target = source.track.name

    def check(self, load: Load, source: EngineSource) -> None:
        """Raise LlmtopError if a worker died or the engine has ended."""
        if load.troubles:
            raise LlmtopError(load.troubles[0])
        status = source.track.status
        if status is not None and status.state in ENDED:
            raise LlmtopError(f"{source.track.name} has ended")

    def report(self, level: str, text: str) -> None:
        """Add an event."""
        self.parts.store.events.append(Event(self.parts.now(), level, clean(text)))

    async def drain(self, load: Load, patience_s: float) -> None:
        """Send nothing more and wait; cancel the rest after ``patience_s`` seconds or at a stop."""
        load.stop()
        left = patience_s
        while left > 0 and not self.stopping and not load.finished:
            await self.parts.sleep(BEAT_S)
            left -= BEAT_S
        await self._cut(load)

    async def _cut(self, load: Load) -> None:
        left = CUT_S
        if not load.finished:
            load.stop(drain=False)
        while left > 0 and not load.finished:
            await self.parts.sleep(BEAT_S)
            left -= BEAT_S

    async def _end_loads(self) -> None:
        for load in self._loads:
            if load.pids and not load.troubles:
                await self._cut(load)
        self.parts.load_source.detach()
        for load in self._loads:
            await asyncio.to_thread(load.close)

"""The base of searches, comparisons and tunes: an own load that runs in the background."""

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

BEAT_S = (
    0.2  # between two looks at the load; ``Saturation`` and ``Comparison`` want some five a second
)
CUT_S = 3.0  # time limit for cut requests to be counted
ENDED = (State.STOPPED, State.FAILED, State.LOST)


class NewLoad(Protocol):
    """Makes a load on an engine; blocks, since the engine is asked which model it serves."""

    def __call__(
        self,
        source: EngineSource,
        prompts: Prompts,
        *,
        clock: LoadClock,
        window_s: float,
        on_record: Callable[[RequestRecord], None],
    ) -> Load:
        """A load that was not started yet."""


class Parts(Struct, frozen=True):
    """What experiments are made of. now: the screen's clock. news: something should be seen now.

    energy: the meter under an engine, None where there is none. reopen: a session of its own on a
    source's engine, for when the screen's loop has ended.
    """

    store: Store
    load_source: LoadSource
    new_load: NewLoad
    energy: Callable[[EngineSource], EngineEnergy | None]
    reopen: Callable[[EngineSource], EngineSession]
    shelf: CurveArchive
    seed: Callable[[], int]
    now: Callable[[], float]
    news: Callable[[], None]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class Experiment:
    """One measurement with a load of its own. ``run`` ends by itself, or soon after ``stop``.

    The screen's loop is never blocked: what blocks goes to a thread. ``release`` is for when the
    loop has ended in the middle. screen: the command that shows it.
    """

    screen: ClassVar[str]

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.stopping = False
        self._loads: list[Load] = []

    async def run(self) -> None:
        """Measure, then leave everything as it was."""
        trouble = ""
        try:
            await self.measure()
        except Exception as error:
            trouble = clean(refusal(error))
        await self._end_loads()
        await self.settle()
        await self.tell(trouble)
        self.parts.news()

    async def measure(self) -> None:
        """The measuring itself; raises what made it end early."""
        raise NotImplementedError

    async def settle(self) -> None:
        """Put back what was changed."""

    async def tell(self, trouble: str) -> None:
        """The end, as facts. trouble: why it ended early, "" when it did not or was stopped."""
        raise NotImplementedError

    def stop(self) -> None:
        """End soon; what is known by then is kept."""
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
        """A load whose workers are up and which sends nothing yet."""

        def begin() -> Load:
            load = self.parts.new_load(
                source, prompts, clock=clock, window_s=window_s, on_record=on_record
            )
            self._loads.append(load)
            # From here on a plan is followed without waiting for anybody.
            load.start(Plan(shape="hold 0", seed=self.parts.seed()))
            return load

        return await asyncio.to_thread(begin)

    def show_load(self, load: Load, source: EngineSource) -> None:
        """From now on this is the load of the screen, on this engine's charts."""
        self.parts.load_source.load = load
        self.parts.store.load_target = source.track.name

    def check(self, load: Load, source: EngineSource) -> None:
        """LlmtopError when a worker died or the engine has ended."""
        if load.troubles:
            raise LlmtopError(load.troubles[0])
        status = source.track.status
        if status is not None and status.state in ENDED:
            raise LlmtopError(f"{source.track.name} has ended")

    def say(self, level: str, text: str) -> None:
        """One line for the event list."""
        self.parts.store.events.append(Event(self.parts.now(), level, clean(text)))

    async def drain(self, load: Load, patience_s: float) -> None:
        """Send nothing more and wait; after ``patience_s``, or when asked to stop, cut the rest."""
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
        self.parts.load_source.let_go()
        for load in self._loads:
            await asyncio.to_thread(load.close)

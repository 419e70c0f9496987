"""What becomes of a load whose engine is stopped from elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llmtop.engines.core.records import EngineRecord, EngineStatus, LaunchSpec, State
from llmtop.loadgen.core.results import LoadSnapshot
from llmtop.tui.sources.load import STAYS_STOPPED_S, LoadSource
from llmtop.tui.store.store import EngineTrack, Store
from llmtop.values import replace

URL = "http://127.0.0.1:9"
NOW = 1_795_326_110.0


class Running:
    """Stands for a load: it runs until it is stopped."""

    def __init__(self, made: LoadSnapshot) -> None:
        self._made = replace(made, running=True)
        self.drained: list[bool] = []

    def snapshot(self) -> LoadSnapshot:
        return self._made

    def stop(self, drain: bool = True) -> None:
        self.drained.append(drain)
        self._made = replace(self._made, running=False)


class Rig:
    """A loaded engine whose state is told, second by second."""

    def __init__(self, made: LoadSnapshot) -> None:
        self.time = NOW
        self.track = EngineTrack("one", "sim", "simulated", URL, owned=True, version="1")
        self.store = Store(engines={"one": self.track}, selected="one", load_target="one")
        self.source = LoadSource(self.store, lambda: self.time)
        self.load = Running(made)
        self.source.load = self.load  # type: ignore[assignment]
        spec = LaunchSpec("sim", "one", "m", "127.0.0.1", 9)
        self.record = EngineRecord(spec, (), (), 7, 1, "boot", URL, "/no/log", None, NOW)

    async def spend(self, seconds: float, state: State) -> None:
        self.track.status = EngineStatus(self.record, state)
        for _ in range(int(seconds)):
            self.time += 1.0
            await self.source.sample()

    @property
    def told(self) -> list[str]:
        return [event.text for event in self.store.events]


@pytest.fixture
def rig(make_load: Callable[..., LoadSnapshot]) -> Rig:
    return Rig(make_load(errors={}))


async def test_a_load_ends_by_itself_on_an_engine_that_was_stopped(rig: Rig) -> None:
    await rig.spend(3, State.READY)
    await rig.spend(STAYS_STOPPED_S, State.STOPPED)
    assert (rig.load.drained, rig.told) == ([], [])
    await rig.spend(5, State.STOPPED)
    assert rig.load.drained == [False]  # once, and nothing is left that could finish
    assert rig.told == ["load stopped: one was stopped"]


async def test_it_comes_through_restarts_from_elsewhere(rig: Rig) -> None:
    for _ in range(4):
        await rig.spend(STAYS_STOPPED_S - 2, State.STOPPED)
        await rig.spend(30, State.STARTING)
        await rig.spend(3, State.READY)
    assert (rig.load.drained, rig.told) == ([], [])


async def test_it_waits_for_an_engine_that_failed(rig: Rig) -> None:
    await rig.spend(60, State.FAILED)
    assert (rig.load.drained, rig.told) == ([], [])

"""What is put on the screen, and when its first load begins."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from llmtop import LlmtopError
from llmtop.engines.core.endpoint import Endpoint
from llmtop.engines.core.records import EngineRecord, LaunchSpec
from llmtop.engines.core.samples import EngineSample
from llmtop.loadgen.workload.plan import Plan
from llmtop.operations.wiring import Wiring
from llmtop.tui.dashboard.engine_discovery import RESCAN_S, NewEngines
from llmtop.tui.dashboard.runtime import DashboardRuntime
from llmtop.tui.sources.engine import EngineSource
from llmtop.values import replace

DEADLINE_S = 20.0


def record(name: str, replaces: str | None = None) -> EngineRecord:
    spec = LaunchSpec("sim", name, "m", "127.0.0.1", 9)
    url = "http://127.0.0.1:9"
    return EngineRecord(spec, (), (), 7, 1, "boot", url, "/log", None, 0.0, replaces=replaces)


@pytest.fixture
def wiring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wiring:
    for name in ("STATE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name))
    (tmp_path / "run").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    return Wiring()


async def test_an_engine_of_another_terminal_comes_once(
    wiring: Wiring, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = [record("old"), replace(record("over"), ended_at=1.0)]
    monkeypatch.setattr(wiring.supervisor, "records", lambda: list(there))
    added: list[str] = []
    known = {"old"}

    def add(endpoint: Endpoint) -> None:
        added.append(endpoint.name)
        known.add(endpoint.name)

    now = 0.0
    source = NewEngines(wiring, add, known, lambda: now)
    there.append(record("new"))
    await source.sample()
    assert added == []  # it is not looked for at each beat
    for _ in range(3):
        now += RESCAN_S
        await source.sample()
    assert added == ["new"]
    there.append(record("old.next", replaces="old"))
    now += RESCAN_S
    await source.sample()
    assert added == ["new"]  # it will be seen under the name that it takes over


async def test_an_engine_that_fails_at_once_again_and_again_is_seen(
    wiring: Wiring, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(name: str, age_s: float, stopped: float | None = None) -> EngineRecord:
        began = time.clock_gettime(time.CLOCK_BOOTTIME) - age_s
        return replace(
            record(name),
            start_ticks=int(began * os.sysconf("SC_CLK_TCK")),
            boot_id=wiring.processes.boot_id,
            ended_at=1.0,
            stop_requested_at=stopped,
        )

    there: list[EngineRecord] = []
    monkeypatch.setattr(wiring.supervisor, "records", lambda: list(there))
    added: list[str] = []
    now = 0.0
    source = NewEngines(wiring, lambda one: added.append(one.name), set(), lambda: now)
    now += 60.0
    # Long before the screen was opened; while it is; and one that somebody stopped meanwhile.
    there += [ended("old", 3600.0), ended("loop", 2.0), ended("done", 2.0, stopped=1.0)]
    await source.sample()
    assert added == ["loop"]


class Plans:
    """Stands for the controller's start."""

    def __init__(self) -> None:
        self.started: list[Plan] = []
        self.one = asyncio.Event()

    async def start(self, plan: Plan) -> None:
        self.started.append(plan)
        self.one.set()


def staged(
    wiring: Wiring, monkeypatch: pytest.MonkeyPatch, beats: asyncio.Event
) -> tuple[DashboardRuntime, EngineSource, Plans]:
    """A stage with one engine whose sampling does nothing until it ends with ``beats``."""
    stage = DashboardRuntime(wiring, [wiring.of(record("one"))])
    (source,) = (each for each in stage.sampling.sources if isinstance(each, EngineSource))
    plans = Plans()
    monkeypatch.setattr(stage.controller, "start", plans.start)
    monkeypatch.setattr(stage.sampling, "run", beats.wait)
    return stage, source, plans


async def test_the_first_load_begins_with_the_engines_first_sample(
    wiring: Wiring, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats = asyncio.Event()
    stage, source, plans = staged(wiring, monkeypatch, beats)
    running = asyncio.create_task(stage.perform(Plan(shape="hold 3"))())
    await asyncio.wait([running], timeout=0.05)
    assert plans.started == []
    source.track.sample = EngineSample(time=1.0, window_s=1.0)
    source.settled.set()
    await asyncio.wait_for(plans.one.wait(), DEADLINE_S)
    beats.set()
    await asyncio.wait_for(running, DEADLINE_S)
    assert [plan.shape for plan in plans.started] == ["hold 3"]


async def test_an_engine_that_ends_before_its_first_sample_gets_no_load(
    wiring: Wiring, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats = asyncio.Event()
    stage, source, plans = staged(wiring, monkeypatch, beats)
    source.settled.set()
    beats.set()
    await asyncio.wait_for(stage.perform(Plan(shape="hold 3"))(), DEADLINE_S)
    assert plans.started == [] and not stage.store.events


async def test_a_load_that_cannot_begin_is_an_event(
    wiring: Wiring, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = DashboardRuntime(wiring, [])

    async def refused(plan: Plan) -> None:
        raise LlmtopError("there is no engine to load")

    monkeypatch.setattr(stage.controller, "start", refused)
    monkeypatch.setattr(stage.sampling, "run", lambda: asyncio.sleep(0))
    await asyncio.wait_for(stage.perform(Plan())(), DEADLINE_S)
    (event,) = stage.store.events
    assert (event.level, event.text) == ("error", "no load: there is no engine to load")
    assert abs(event.time - stage.timeline.now()) < DEADLINE_S


async def test_a_fault_of_a_source_is_an_event_that_is_safe_to_show(wiring: Wiring) -> None:
    class Broken:
        async def sample(self) -> None:
            raise ValueError("\x1b[31mbad\x07")

        async def close(self) -> None:
            pass

    stage = DashboardRuntime(wiring, [])
    broken = Broken()
    stage.sampling.sources.append(broken)
    for _ in range(2):
        await stage.sampling.sample(broken)
    (event,) = stage.store.events
    assert event.text.startswith("a fault in Broken: ValueError: bad")
    assert event.text.isprintable()

"""A tune beside the screen, on a simulated engine that runs as a real process."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from llmtop import LlmtopError
from llmtop.engines.core.options import OptionValue
from llmtop.engines.core.records import EngineRecord, LaunchSpec
from llmtop.loadgen.experiments import slo
from llmtop.loadgen.workload.plan import Prompts
from llmtop.operations.wiring import Wiring
from llmtop.tui.commands.experiment_requests import TunePlan
from llmtop.tui.dashboard.runtime import DashboardRuntime
from llmtop.values import replace
from tests.inside_states import HELD
from tests.tui.dashboard.test_controller import DEADLINE_S, staged, texts, track, until, value

pytestmark = pytest.mark.process

SHORT = Prompts(prompt_tokens=(16, 16), output_tokens=(8, 8))
EASY = TunePlan("one", slo.parse("ttft=50s"), 10.0, seconds=1.0, prompts=SHORT)
NEVER = replace(EASY, slo=slo.parse("ttft=1us"), roles=("batch_limit", "queue_limit"))


@pytest.fixture
def wiring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wiring:
    for name in ("STATE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name))
    (tmp_path / "run").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    return Wiring()


@pytest.fixture
def engine(wiring: Wiring) -> EngineRecord:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port = int(trial.getsockname()[1])
    spec = LaunchSpec("sim", "one", "llama-3.1-8b", "127.0.0.1", port, args=("--startup-s", "0.2"))
    record = wiring.supervisor.launch(spec)
    wiring.supervisor.wait_ready(record, DEADLINE_S)
    return record


def over(stage: DashboardRuntime) -> bool:
    return stage.store.tune is not None and stage.store.tune.over


def tries(stage: DashboardRuntime) -> bool:
    """Whether a candidate is in force that is not the person's own."""
    state = stage.store.tune
    return state is not None and state.now not in (None, state.own) and state.runs > 0


async def in_force(wiring: Wiring, engine: EngineRecord) -> dict[str, OptionValue]:
    """As another llmtop sees it."""
    session = wiring.session(wiring.of(engine))
    try:
        options, _ = await session.options()
    finally:
        await session.close()
    return {one.name: one.value for one in options}


async def test_where_all_are_in_time_there_is_nothing_to_gain(
    wiring: Wiring, engine: EngineRecord
) -> None:
    async with staged(wiring, engine) as stage:
        before = await in_force(wiring, engine)
        await stage.conductor.start_tune(EASY)
        with pytest.raises(LlmtopError, match="a tune is running") as refused:
            await stage.conductor.set_option("one", "max_num_seqs", 4)
        assert refused.value.hint == "T, then x stops it"
        await until(lambda: over(stage), "its end")
        state = stage.store.tune
        assert state is not None and state.report is not None and state.report.result is not None
        assert state.report.result.verdict.value == "nothing to gain" and state.runs == 1
        assert state.report.restored and await in_force(wiring, engine) == before
        assert any("nothing to gain within TTFT <= 50s" in text for text in texts(stage))
        track(stage).hold = HELD
        with pytest.raises(LlmtopError, match="one is held by ann@pts/3"):
            await stage.conductor.start_tune(EASY)


async def test_one_that_is_stopped_puts_the_options_back(
    wiring: Wiring, engine: EngineRecord
) -> None:
    async with staged(wiring, engine) as stage:
        before = await in_force(wiring, engine)
        await stage.conductor.start_tune(NEVER)
        await until(lambda: tries(stage), "a candidate")
        await stage.conductor.stop_experiment()
        await until(lambda: over(stage), "its end")
        state = stage.store.tune
        assert state is not None and state.report is not None and state.report.restored
        assert state.back == "your settings are in force again"
        assert await in_force(wiring, engine) == before
        await stage.conductor.set_option("one", "max_num_seqs", 4)  # the keys work again
        await until(lambda: value(stage, "max_num_seqs") == 4, "the value")


async def test_a_screen_that_ends_in_the_middle_puts_them_back_too(
    wiring: Wiring, engine: EngineRecord
) -> None:
    async with staged(wiring, engine) as stage:
        before = await in_force(wiring, engine)
        await stage.conductor.start_tune(NEVER)
        await until(lambda: tries(stage), "a candidate")
        task = stage.experiments._task
        assert task is not None
        task.cancel()
        await asyncio.wait([task])
        await asyncio.to_thread(stage.release)
        assert await in_force(wiring, engine) == before

"""A tune beside the screen, on a simulated engine that runs as a real process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

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
from tests.llmtop_process import free_port
from tests.tui.dashboard.test_controller import (
    DEADLINE_S,
    staged,
    stop_all,
    texts,
    track,
    until,
    value,
)

pytestmark = pytest.mark.process

SHORT = Prompts(prompt_tokens=(16, 16), output_tokens=(8, 8))
EASY = TunePlan("one", slo.parse("ttft=50s"), 10.0, seconds=1.0, prompts=SHORT)
NEVER = replace(EASY, slo=slo.parse("ttft=1us"), roles=("batch_limit", "queue_limit"))


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineRecord]:
    """One for these tests. Each of them is about options that are put back."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "run").mkdir(mode=0o700)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("STATE", "CONFIG"):
            patch.setenv(f"XDG_{name}_HOME", str(folder / name))
        patch.setenv("XDG_RUNTIME_DIR", str(folder / "run"))
        wiring = Wiring()
        record = wiring.supervisor.launch(
            LaunchSpec(
                "sim", "one", "llama-3.1-8b", "127.0.0.1", free_port(), args=("--startup-s", "0.2")
            )
        )
        wiring.supervisor.wait_ready(record, DEADLINE_S)
        yield record
        stop_all(wiring)


@pytest.fixture
def wiring(engine: EngineRecord) -> Wiring:
    return Wiring()


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
    async with staged(wiring, engine, stop=False) as stage:
        before = await in_force(wiring, engine)
        await stage.controller.start_tune(EASY)
        with pytest.raises(LlmtopError, match="a tune is running") as refused:
            await stage.controller.set_option("one", "max_num_seqs", 4)
        assert refused.value.hint == "T, then x stops it"
        await until(lambda: over(stage), "its end")
        state = stage.store.tune
        assert state is not None and state.report is not None and state.report.result is not None
        assert state.report.result.verdict.value == "nothing to gain" and state.runs == 1
        assert state.report.restored and await in_force(wiring, engine) == before
        assert any("nothing to gain within TTFT <= 50s" in text for text in texts(stage))
        track(stage).hold = HELD
        with pytest.raises(LlmtopError, match="one is held by ann@pts/3"):
            await stage.controller.start_tune(EASY)


async def test_one_that_is_stopped_puts_the_options_back(
    wiring: Wiring, engine: EngineRecord
) -> None:
    async with staged(wiring, engine, stop=False) as stage:
        before = await in_force(wiring, engine)
        await stage.controller.start_tune(NEVER)
        await until(lambda: tries(stage), "a candidate")
        await stage.controller.stop_experiment()
        await until(lambda: over(stage), "its end")
        state = stage.store.tune
        assert state is not None and state.report is not None and state.report.restored
        assert state.back == "your settings are in force again"
        assert await in_force(wiring, engine) == before
        await stage.controller.set_option("one", "max_num_seqs", 4)  # the keys work again
        await until(lambda: value(stage, "max_num_seqs") == 4, "the value")
        own = before["max_num_seqs"]
        assert own is not None
        await stage.controller.set_option("one", "max_num_seqs", own)


async def test_one_with_a_limit_of_time_decides_by_what_was_measured_by_then(
    wiring: Wiring, engine: EngineRecord
) -> None:
    async with staged(wiring, engine, stop=False) as stage:
        before = await in_force(wiring, engine)
        await stage.controller.start_tune(replace(NEVER, most_s=3.0))
        await until(lambda: over(stage), "its end")
        state = stage.store.tune
        assert state is not None and state.report is not None and state.report.result is not None
        assert state.report.time_up and state.report.restored
        assert 1 <= state.runs <= 3  # of a second each, in three seconds
        assert any("cannot tell in" in text for text in texts(stage))
        assert await in_force(wiring, engine) == before


async def test_a_screen_that_ends_in_the_middle_puts_them_back_too(
    wiring: Wiring, engine: EngineRecord
) -> None:
    async with staged(wiring, engine, stop=False) as stage:
        before = await in_force(wiring, engine)
        await stage.controller.start_tune(NEVER)
        await until(lambda: tries(stage), "a candidate")
        task = stage.experiments._task
        assert task is not None
        task.cancel()
        await asyncio.wait([task])
        await asyncio.to_thread(stage.release)
        assert await in_force(wiring, engine) == before

"""Searches and comparisons beside the screen, on a simulated engine that runs as a real process."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmtop import LlmtopError
from llmtop.engines.core.records import EngineRecord, LaunchSpec, State
from llmtop.loadgen.experiments import slo
from llmtop.loadgen.workload.plan import Prompts
from llmtop.operations.wiring import Wiring
from llmtop.tui.commands.experiment_requests import ComparisonPlan, SearchPlan
from llmtop.tui.dashboard.runtime import DashboardRuntime
from llmtop.tui.sources.engine import EngineSource
from llmtop.values import replace
from tests.llmtop_process import free_port
from tests.tiers import first
from tests.tui.dashboard.test_controller import (
    DEADLINE_S,
    loaded,
    staged,
    stop_all,
    texts,
    track,
    until,
    value,
)

pytestmark = pytest.mark.process

CAP = 8
SHORT = Prompts(prompt_tokens=(16, 16), output_tokens=(8, 8))
SEARCH = SearchPlan("one", slo.parse("ttft=130ms"), top=16, seconds=0.5, prompts=SHORT)
LONG = replace(SEARCH, seconds=600.0)
COMPARISON = ComparisonPlan(
    "one", "max_num_seqs", 2, CAP, level=6, pairs=4, seconds=0.5, prompts=SHORT
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where the engine of these tests lives; it is stopped behind the last of them."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("STATE", "CONFIG"):
            patch.setenv(f"XDG_{name}_HOME", str(folder / name))
        yield
        stop_all(Wiring())


@pytest.fixture
def wiring(home: None) -> Wiring:
    made = Wiring()
    shutil.rmtree(made.state.root / "curves", ignore_errors=True)  # those of the test before
    return made


@pytest.fixture
def engine(wiring: Wiring) -> EngineRecord:
    """One for all of these tests; behind a test that ended it the next one starts another."""
    for record in wiring.supervisor.records():
        if wiring.supervisor.status(record).state is State.READY:
            return record
    args = ("--startup-s", "0", "--max-num-seqs", str(CAP), "--speed", "0.2")
    record = wiring.supervisor.launch(
        LaunchSpec("sim", "one", "llama-3.1-8b", "127.0.0.1", free_port(), args=args)
    )
    wiring.supervisor.wait_ready(record, DEADLINE_S)
    return record


def children() -> list[int]:
    """Our load workers that live."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = (entry / "stat").read_text().rpartition(") ")[2].split()
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if int(parent[1]) == os.getpid() and parent[0] != "Z" and b"loadgen.worker" in words:
                found.append(int(entry.name))
    return found


def over(stage: DashboardRuntime) -> bool:
    state = stage.store.search
    return state is not None and state.over


def measures(stage: DashboardRuntime) -> bool:
    """Whether a level is under way, which is seen as any load is."""
    search, load = stage.store.search, stage.store.load
    running = load is not None and load.running
    return running and search is not None and search.progress is not None


async def test_a_search_runs_to_its_end_beside_the_screen(
    wiring: Wiring, engine: EngineRecord
) -> None:
    async with staged(wiring, engine, stop=False) as stage:
        await loaded(stage)  # a load of the person's own, which gives way
        await stage.controller.start_search(replace(SEARCH, top=CAP))  # two levels
        assert stage.store.search is not None and not stage.store.search.over
        with pytest.raises(LlmtopError, match="a search is running") as refused:
            await stage.controller.more()
        assert "x stops it" in refused.value.hint
        with pytest.raises(LlmtopError, match="a search is running"):
            await stage.controller.set_option("one", "max_num_seqs", 4)
        with pytest.raises(LlmtopError, match="a search is running"):
            await stage.controller.start_search(SEARCH)
        await until(lambda: measures(stage), "the first level")
        assert stage.store.load_target == "one"
        await until(lambda: over(stage), "its end")
        state = stage.store.search
        assert state.trouble == "" and state.progress is None and state.result.complete
        assert [p.level for p in state.curve.points] == [r.level for r in state.result.levels]
        assert all(result.records == () for result in state.result.levels)
        await until(lambda: any("one: " in text and "tok/s" in text for text in texts(stage)), "it")
        await until(lambda: not children(), "the end of the workers")
        assert stage.store.load is not None and not stage.store.load.running
        await stage.controller.more()  # the load keys work again
        await until(lambda: stage.store.load is not None and stage.store.load.running, "a load")


@pytest.mark.more
async def test_curves_are_kept_for_the_next_session_and_for_nobody_else(
    wiring: Wiring, engine: EngineRecord
) -> None:
    async with staged(wiring, engine, stop=False) as stage:
        await stage.controller.start_search(replace(SEARCH, top=2))
        await until(lambda: over(stage) and stage.store.curves, "its end")
        (curve,) = stage.store.curves
        await until(lambda: list((wiring.state.root / "curves").glob("*/*.json")), "the file")
        (path,) = (wiring.state.root / "curves").glob("*/*.json")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        next_one = DashboardRuntime(wiring, [wiring.of(engine)])
        (source,) = (s for s in next_one.sampling.sources if isinstance(s, EngineSource))
        source.track.model = track(stage).model
        await next_one.controller.recall_curves("one")
        assert next_one.store.curves == (curve,)
        await stage.controller.recall_curves("one")
        assert stage.store.curves == (curve,)  # its own is not shown twice


async def test_a_search_that_is_stopped_keeps_what_is_known_and_no_worker(
    wiring: Wiring, engine: EngineRecord
) -> None:
    async with staged(wiring, engine, stop=False) as stage:
        await stage.controller.start_search(replace(SEARCH, top=1024))
        await until(lambda: stage.store.search and stage.store.search.curve.points, "a level")
        await stage.controller.stop_experiment()
        await until(lambda: over(stage) and not children(), "its end")
        assert stage.store.search is not None
        assert not stage.store.search.result.complete and stage.store.search.curve.points
        assert any("was stopped" in text for text in texts(stage))
        with pytest.raises(LlmtopError, match="no search"):
            await stage.controller.stop_experiment()


@pytest.mark.more
async def test_quitting_in_the_middle_leaves_no_process(
    wiring: Wiring, engine: EngineRecord
) -> None:
    async with staged(wiring, engine, stop=False) as stage:
        await stage.controller.start_search(LONG)
        await until(lambda: children(), "the workers")
        await stage.controller.quit(False)
        assert children() == []


async def test_an_engine_that_dies_ends_the_search_with_its_reason(
    wiring: Wiring, engine: EngineRecord
) -> None:
    async with staged(wiring, engine, stop=False) as stage:
        await stage.controller.start_search(LONG)
        await until(lambda: stage.store.search and stage.store.search.progress, "the first level")
        await asyncio.to_thread(wiring.supervisor.stop, engine, grace_s=1.0)
        await until(lambda: over(stage) and not children(), "its end")
        assert stage.store.search is not None
        assert stage.store.search.trouble == "one has ended"
        assert any("ended early: one has ended" in text for text in texts(stage))


@pytest.mark.more
async def test_a_comparison_switches_the_option_and_puts_it_back(
    wiring: Wiring, engine: EngineRecord
) -> None:
    async with staged(wiring, engine, stop=False) as stage:
        seen: set[object] = set()
        await until(lambda: value(stage, "max_num_seqs") == CAP, "the options")
        await stage.controller.start_comparison(replace(COMPARISON, a=2, b=3))

        def end() -> bool:
            seen.add(value(stage, "max_num_seqs"))
            state = stage.store.comparison
            return state is not None and state.over

        await until(end, "its end")
        assert {2, 3} <= seen
        state = stage.store.comparison
        assert state is not None and state.result.complete and state.standing is None
        assert state.back == f"max_num_seqs is {CAP} again"
        assert any(state.back in text for text in texts(stage))
        await until(lambda: value(stage, "max_num_seqs") == CAP, "the old value")
        await until(lambda: not children(), "the end of the workers")


async def test_quitting_in_a_comparison_puts_the_option_back(
    wiring: Wiring, engine: EngineRecord
) -> None:
    async with staged(wiring, engine, stop=False) as stage:
        await until(lambda: value(stage, "max_num_seqs") == CAP, "the options")
        await stage.controller.start_comparison(replace(COMPARISON, seconds=600.0))
        await until(lambda: value(stage, "max_num_seqs") == 2, "A in force")
        assert (
            temporary_changes := wiring.state.folder("one") / "loans.json"
        ).exists()  # for a SIGKILL
        with pytest.raises(LlmtopError, match="a comparison is running"):
            await stage.controller.set_option("one", "max_num_seqs", 4)
        await stage.controller.quit(False)
        assert children() == []
        assert not temporary_changes.exists()
        session = wiring.session(wiring.of(engine))
        options, _ = await session.options()
        assert next(o.value for o in options if o.name == "max_num_seqs") == CAP
        await session.close()


@pytest.mark.parametrize(
    ("option", "value", "words"),
    first(
        1,
        [
            ("max_num_seqs", 99, "out of range"),
            ("max_model_len", 4096, "only at a restart"),
            ("max_num_seq", 4, "no option"),
        ],
        3,
    ),
)
async def test_what_cannot_be_compared_is_said(
    wiring: Wiring, engine: EngineRecord, option: str, value: int, words: str
) -> None:
    async with staged(wiring, engine, stop=False) as stage:
        await stage.controller.start_comparison(replace(COMPARISON, option=option, b=value))
        await until(lambda: stage.store.comparison and stage.store.comparison.over, "its end")
        assert stage.store.comparison is not None and words in stage.store.comparison.trouble
        assert children() == []

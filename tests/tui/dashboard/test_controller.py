"""Restarts from the screen's side: a real engine, real load on it, and honest statistics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from llmtop import LlmtopError
from llmtop.analysis.effects import Effects, Figures
from llmtop.engines.core.options import Change, Outcome, RankChange
from llmtop.engines.core.records import EngineRecord, LaunchSpec, State
from llmtop.engines.core.samples import Quantile
from llmtop.engines.supervision.restart import Wanted
from llmtop.loadgen.core.client_capacity import Calibration
from llmtop.loadgen.core.results import LoadSnapshot
from llmtop.loadgen.workers.load import Load, default_workers
from llmtop.loadgen.workload.plan import Loop, Plan, Prompts
from llmtop.operations.calibrated import calibrated
from llmtop.operations.wiring import Wiring
from llmtop.tui.dashboard.runtime import DashboardRuntime
from llmtop.tui.sources.engine import EngineSource
from llmtop.tui.store.store import EngineTrack
from llmtop.values import replace
from tests.llmtop_process import free_port

pytestmark = pytest.mark.process

DEADLINE_S = 60.0
LEVEL = 6
PROMPTS = Prompts(prompt_tokens=(16, 16), output_tokens=(60, 60))


async def until(true: Callable[[], object], what: str) -> None:
    for _ in range(round(DEADLINE_S / 0.02)):
        if true():
            return
        await asyncio.sleep(0.02)
    pytest.fail(f"{what} did not come in time")


@asynccontextmanager
async def staged(
    wiring: Wiring, record: EngineRecord, stop: bool = True
) -> AsyncIterator[DashboardRuntime]:
    """A stage as the screen has it, sampling beside us. stop: the engine is stopped behind it."""
    stage = DashboardRuntime(
        wiring, [wiring.of(record)], prompts=PROMPTS, interval=0.1, follow_new=True
    )
    beats = asyncio.create_task(stage.sampling.run())
    try:
        await until(lambda: track(stage).sample is not None, "a sample")
        yield stage
    finally:
        beats.cancel()
        await stage.sampling.close()
        stage.release()
        await wiring.fetch.close()
        if stop:
            stop_all(wiring)


def stop_all(wiring: Wiring) -> None:
    for one in wiring.supervisor.records():
        wiring.supervisor.stop(one, grace_s=1.0)


@pytest.fixture
def wiring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wiring:
    for name in ("STATE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name))
    (tmp_path / "run").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    return Wiring()


@pytest.fixture
def engine(wiring: Wiring) -> EngineRecord:
    port = free_port()
    spec = LaunchSpec("sim", "one", "llama-3.1-8b", "127.0.0.1", port, args=("--startup-s", "0.2"))
    record = wiring.supervisor.launch(spec)
    wiring.supervisor.wait_ready(record, DEADLINE_S)
    return record  # as the screen has it: from before it was ready


def track(stage: DashboardRuntime) -> EngineTrack:
    return stage.store.engines["one"]


def texts(stage: DashboardRuntime) -> list[str]:
    return [event.text for event in stage.store.events]


async def loaded(stage: DashboardRuntime) -> None:
    await stage.controller.start(Plan(shape=f"hold {LEVEL}"))
    await until(lambda: snapshot(stage).ok > LEVEL, "the load")


def snapshot(stage: DashboardRuntime) -> LoadSnapshot:
    assert stage.load_source.load is not None
    return stage.load_source.load.snapshot()


def value(stage: DashboardRuntime, option: str) -> object:
    return next((o.value for o in track(stage).options if o.name == option), None)


async def painted(during: Awaitable[object]) -> int:
    """How often the loop, and so the screen, got its turn meanwhile."""
    turns = 0
    task = asyncio.ensure_future(during)
    while not task.done():
        await asyncio.wait([task], timeout=0.05)
        turns += 1
    await task
    return turns


@pytest.mark.more
async def test_a_load_is_held_against_what_this_client_was_found_to_carry(
    wiring: Wiring, engine: EngineRecord
) -> None:
    found = Calibration(20.0, default_workers(), 50_000.0, 0.0, time.time(), 1e6)
    calibrated(
        wiring.state.root, wiring.processes.boot_id, measure=lambda *_, **__: found
    )  # fmt: skip
    async with staged(wiring, engine) as stage:
        await loaded(stage)
        await until(
            lambda: any("of what it carries" in one for one in snapshot(stage).health.strain),
            "the strain",
        )


async def test_a_restart_cuts_the_load_and_brings_it_back_at_its_level(
    wiring: Wiring, engine: EngineRecord
) -> None:
    async with staged(wiring, engine) as stage:
        await loaded(stage)
        stage.store.events.clear()
        turns = await painted(stage.controller.restart("one", {"max_model_len": 4096}))
        assert turns > 3  # nothing stood still meanwhile
        assert snapshot(stage).asked == LEVEL
        ok = snapshot(stage).ok
        await until(lambda: snapshot(stage).ok > ok + LEVEL, "the load again")
        after = snapshot(stage)
        assert (after.failed, after.errors) == (0, {})
        assert 0 < after.cut <= LEVEL
        await until(lambda: value(stage, "max_model_len") == 4096, "the new value")
        status = track(stage).status
        assert status is not None and status.state is State.READY
        assert status.record.pid != engine.pid
        assert not [event for event in stage.store.events if event.level in ("error", "warning")]
        labels = [mark.label for mark in track(stage).marks]
        assert labels[-2:] == ["restart", "max_model_len 8,192 -> 4,096"]
        up, changed = list(track(stage).marks)[-2:]
        assert changed.effect and changed.since is not None and changed.since < up.time

        def after_the_gap() -> list[float | None]:
            points = [point for _, point in track(stage).series["output_tokens_per_s"]]
            return points[points.index(None, points.index(next(p for p in points if p))) :]

        await until(lambda: any(after_the_gap()), "numbers behind the gap")


@pytest.mark.more
async def test_a_restart_takes_flags_that_are_in_no_table(
    wiring: Wiring, engine: EngineRecord
) -> None:
    async with staged(wiring, engine) as stage:
        flags = ("--max-model-len", "2048")
        done = await stage.controller.restart("one", {}, flags=flags)
        assert not done.rolled_back, done.failure
        await until(lambda: value(stage, "max_model_len") == 2048, "the new value")
        assert track(stage).marks[-1].label == "--max-model-len 2048"
        assert "one restarts: --max-model-len 2048" in texts(stage)


@pytest.mark.more
async def test_a_restart_by_another_llmtop_is_told_by_what_it_changed_and_did(
    wiring: Wiring, engine: EngineRecord
) -> None:
    async with staged(wiring, engine) as stage:
        another, marks = Wiring(), track(stage).marks
        for values, words in (({"max_model_len": 4096}, "max_model_len 8,192->4,096"), ({}, "")):
            record = another.supervisor.find("one")
            done = await asyncio.to_thread(another.restart, record, Wanted(values))
            assert not done.rolled_back, done.failure
            await until(lambda: bool(marks and marks[-1].effect), "the mark")
            mark = marks.pop()
            assert not marks and mark.label == (words or "restart")
            assert mark.since is not None and mark.since < mark.time
            # Its before/after row is made from this mark: nothing else may stand in its way.
            effects = Effects()
            effects.add_marks([mark])
            for side in (mark.since, mark.time + 20.0):
                effects.add("server", Figures(side, 10.0, Quantile(0.2), 100.0, 50))
            (effect,) = effects.due(mark.time + 20.0)
            assert effect.label == mark.label and effect.before is not None


@pytest.mark.more
async def test_a_value_that_does_not_start_is_undone_and_the_load_comes_back(
    wiring: Wiring, engine: EngineRecord
) -> None:
    async with staged(wiring, engine) as stage:
        await loaded(stage)
        done = await stage.controller.restart("one", {"max_model_len": 8})
        assert done.rolled_back and "--max-model-len" in done.failure
        ok = snapshot(stage).ok
        await until(lambda: snapshot(stage).ok > ok + LEVEL, "the load again")
        assert snapshot(stage).failed == 0
        await until(lambda: value(stage, "max_model_len") == 8192, "the old value")
        assert any("runs as before again" in text for text in texts(stage))
        # The source marks that the process is another one, before or after that.
        assert "rolled back" in [mark.label for mark in track(stage).marks]


@pytest.mark.more
async def test_rolling_moves_the_load_and_fails_nothing(
    wiring: Wiring, engine: EngineRecord
) -> None:
    async with staged(wiring, engine) as stage:
        await loaded(stage)
        stage.store.events.clear()
        done = await stage.controller.restart("one", {"max_num_seqs": 700}, rolling=True)
        new = done.record
        assert new.url != engine.url and track(stage).url == new.url
        load = stage.load_source.load
        assert load is not None and load.target.url == new.url
        ok = snapshot(stage).ok
        await until(lambda: snapshot(stage).ok > ok + LEVEL, "the load on the new one")
        after = snapshot(stage)
        assert (after.failed, after.cut, after.errors) == (0, 0, {})
        await until(lambda: value(stage, "max_num_seqs") == 700, "the new value")
        assert list(stage.store.engines) == ["one"]
        assert not [event for event in stage.store.events if event.level == "error"]
        told = [text for text in texts(stage) if new.url in text]
        assert any(engine.url in text for text in told)  # where it was, and where it is


@pytest.mark.more
async def test_the_keys_of_the_load_wait_for_the_restart_and_0_ends_it(
    wiring: Wiring, engine: EngineRecord
) -> None:
    async with staged(wiring, engine) as stage:
        await loaded(stage)
        restart = asyncio.create_task(stage.controller.restart("one", {"max_model_len": 4096}))
        await until(lambda: snapshot(stage).cut > 0, "the cut")
        with pytest.raises(LlmtopError) as refused:
            await stage.controller.more()
        assert "0 keeps the load stopped" in refused.value.hint
        with pytest.raises(LlmtopError, match="restarting already"):
            await stage.controller.restart("one", {})
        await stage.controller.stop_load()
        await restart
        assert not snapshot(stage).running and snapshot(stage).failed == 0


async def test_a_restart_from_another_terminal_is_followed(
    wiring: Wiring, engine: EngineRecord
) -> None:
    from llmtop.engines.supervision.restart import Wanted, carry_out

    async with staged(wiring, engine) as stage:
        other = Wiring().supervisor
        done = await asyncio.to_thread(
            carry_out, other, engine, Wanted({"max_num_seqs": 9}), lambda new: None
        )
        await until(lambda: track(stage).url == done.record.url, "the new address")
        await until(lambda: value(stage, "max_num_seqs") == 9, "the new value")
        assert list(stage.store.engines) == ["one"]


@pytest.mark.more
async def test_keys_pressed_while_a_load_starts_are_levels_and_not_further_loads(
    wiring: Wiring, engine: EngineRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    async with staged(wiring, engine) as stage:
        begin = stage.controller._new_load

        def counted(source: EngineSource) -> Load:
            made.append(source)
            return begin(source)

        monkeypatch.setattr(stage.controller, "_new_load", counted)
        await asyncio.gather(*(stage.controller.more() for _ in range(3)))
        assert len(made) == 1
        assert texts(stage).count("load: hold 1") == 1
        await until(lambda: snapshot(stage).asked > 2, "the level of three presses")


@pytest.mark.more
async def test_a_burst_says_the_level_that_is_sent(wiring: Wiring, engine: EngineRecord) -> None:
    async with staged(wiring, engine) as stage:
        await stage.controller.start(Plan(loop=Loop.OPEN, shape="hold 0.2"))
        before = stage.timeline.now()
        await stage.controller.burst()
        after = stage.timeline.now()
        assert snapshot(stage).asked == 1  # less than one a second is no burst
        # A busy machine adds events of its own, such as that the engine is slow to answer.
        (mark,) = [mark for mark in track(stage).marks if mark.label == "burst 1"]
        said = "load: burst of 1 req/s for 5 s"
        (event,) = [event for event in stage.store.events if event.text == said]
        assert before <= mark.time <= event.time <= after


async def test_a_change_is_on_the_screen_when_its_look_ends(
    wiring: Wiring, engine: EngineRecord
) -> None:
    async with staged(wiring, engine) as stage:
        await loaded(stage)
        await stage.controller.set_option("one", "max_num_seqs", 2)
        (source,) = (each for each in stage.sampling.sources if isinstance(each, EngineSource))
        await stage.sampling.sample(source)  # the one that the change asked for
        assert value(stage, "max_num_seqs") == 2
        assert track(stage).series["cap"].last == 2
        assert track(stage).marks[-1].label.endswith("->2")
        assert sum("max_num_seqs" in text for text in texts(stage)) == 1


@pytest.mark.more
async def test_a_rank_that_did_not_take_a_change_is_an_event(
    wiring: Wiring, engine: EngineRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    why = "rank 1: it did not answer"
    ranks = (RankChange(0, 4, Outcome.APPLIED), RankChange(1, None, None, why))
    made = Change("max_num_seqs", 4, 2, Outcome.PARTIAL, why, ack_ms=3.0, ranks=ranks)

    async def change(wanted: object, **_: object) -> tuple[Change, ...]:
        return (made,)

    async with staged(wiring, engine) as stage:
        (source,) = (each for each in stage.sampling.sources if isinstance(each, EngineSource))
        monkeypatch.setattr(source.session, "change", change)
        assert (await stage.controller.set_option("one", "max_num_seqs", 2)).failed
        words = "max_num_seqs 4 -> 2 applied on 1 of 2 ranks; rank 1: it did not answer"
        assert words in texts(stage)


async def test_a_stopped_load_drains_and_a_cut_one_does_not(
    wiring: Wiring, engine: EngineRecord
) -> None:
    async with staged(wiring, engine) as stage:
        await loaded(stage)
        await stage.controller.stop_load()
        load = stage.load_source.load
        assert load is not None
        await until(lambda: load.finished, "the end of what was in flight")
        assert snapshot(stage).cut == 0 and snapshot(stage).failed == 0
        await loaded(stage)
        await stage.controller.cut_load()
        again = stage.load_source.load
        assert again is not None
        await until(lambda: again.finished, "the end of what was cut")
        assert snapshot(stage).cut > 0
        with pytest.raises(LlmtopError, match="no load is running"):
            await stage.controller.cut_load()
        await stage.controller.freeze()  # nothing to hold is no mistake


@pytest.mark.more
async def test_the_kind_of_loop_is_switched_and_back(wiring: Wiring, engine: EngineRecord) -> None:
    async with staged(wiring, engine) as stage:
        await loaded(stage)
        await stage.controller.switch_loop()
        assert snapshot(stage).loop == Loop.OPEN and snapshot(stage).held
        assert "requests a second (open loop), held" in texts(stage)[-1]
        await stage.controller.switch_loop()
        assert snapshot(stage).loop == Loop.CLOSED
        assert "streams (closed loop), held" in texts(stage)[-1]


@pytest.mark.more
async def test_a_switch_above_a_thousand_streams_says_a_plain_number(
    wiring: Wiring, engine: EngineRecord
) -> None:
    async with staged(wiring, engine) as stage:
        await stage.controller.start(Plan(shape="hold 1200"))
        await until(lambda: snapshot(stage).in_flight >= 1200, "the load")
        await stage.controller.switch_loop()
        await stage.controller.switch_loop()
        level = snapshot(stage).asked
        assert level >= 1000
        assert f"load: {round(level):,} streams (closed loop), held" == texts(stage)[-1]


@pytest.mark.more
async def test_other_prompts_begin_a_load_of_their_own(
    wiring: Wiring, engine: EngineRecord
) -> None:
    async with staged(wiring, engine) as stage:
        await loaded(stage)
        before = stage.load_source.load
        await stage.controller.load(Plan(shape=f"hold {LEVEL}"))
        assert stage.load_source.load is before
        await stage.controller.load(Plan(shape=f"hold {LEVEL}"), Prompts((8, 8), (3, 3)))
        assert stage.load_source.load is not before
        await until(lambda: snapshot(stage).ok > LEVEL, "the other load")
        load = stage.load_source.load
        assert load is not None
        result = load.result()
        assert result.output_tokens == 3 * result.ok
        ramp = "ramp 1..9 over 60s"
        await stage.controller.load(Plan(shape=ramp))
        await stage.controller.freeze()
        assert snapshot(stage).held and snapshot(stage).shape == ramp


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


async def test_an_engine_is_stopped_after_its_load(wiring: Wiring, engine: EngineRecord) -> None:
    async with staged(wiring, engine) as stage:
        await loaded(stage)
        await stage.controller.stop_engine("one")
        after = snapshot(stage)
        assert (after.failed, after.errors) == (0, {}) and after.cut > 0
        await until(
            lambda: (status := track(stage).status) and status.state is State.STOPPED, "its end"
        )
        log = stage.controller.open_log("one", 5)
        lines = await log.more()
        assert 0 < len(lines) <= 5 and await log.more() == []
        append(Path(engine.log_path), "one more\nhalf")
        assert await log.more() == ["one more"]


async def test_an_engine_of_somebody_else_is_not_stopped_and_has_no_log(
    wiring: Wiring, engine: EngineRecord
) -> None:
    async with staged(wiring, engine) as stage:
        (source,) = (each for each in stage.sampling.sources if isinstance(each, EngineSource))
        source.session.endpoint = replace(source.session.endpoint, record=None)
        with pytest.raises(LlmtopError, match="so it does not stop it"):
            await stage.controller.stop_engine("one")
        with pytest.raises(LlmtopError, match="so it does not have its log"):
            await stage.controller.open_log("one", 5).more()

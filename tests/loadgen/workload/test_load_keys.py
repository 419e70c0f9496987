"""The keys of the load leave marks, and one starts the last load again."""

from __future__ import annotations

import pytest

from llmtop import LlmtopError
from llmtop.config.key_table import BY_ID
from llmtop.config.keymap import DEFAULT
from llmtop.engines.core.records import EngineRecord
from llmtop.loadgen.workload.plan import Loop, Plan
from llmtop.operations.wiring import Wiring
from tests.tui.dashboard.test_controller import engine, snapshot, staged, track, until, wiring

__all__ = ["engine", "wiring"]


def labels(stage: object) -> list[str]:
    return [mark.label for mark in track(stage).marks if mark.load]  # type: ignore[arg-type]


async def test_more_less_and_stop_leave_marks_and_one_key_starts_it_again(
    wiring: Wiring, engine: EngineRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmtop.tui.dashboard.load_control.ONE_MARK_S", 0.0)
    async with staged(wiring, engine) as stage:
        control = stage.controller
        with pytest.raises(LlmtopError, match="no load was started yet"):
            await control.start_again()
        await control.start(Plan(shape="hold 4"))
        await control.more()
        level = snapshot(stage).asked
        await control.more()
        await control.less()
        assert labels(stage)[0] == f"load {level:g}" and len(labels(stage)) == 3
        with pytest.raises(LlmtopError, match="runs already"):
            await control.start_again()
        await control.stop_load()
        assert labels(stage)[-1] == "load stopped"
        load = stage.load_source.load
        assert load is not None
        await until(lambda: load.finished, "the end of the load")
        await control.start_again()
        again = snapshot(stage)
        assert (again.asked, again.loop, again.running) == (level, Loop.CLOSED.value, True)
        assert labels(stage)[-1] == "load again"


async def test_a_shape_that_nobody_steered_begins_from_its_beginning(
    wiring: Wiring, engine: EngineRecord
) -> None:
    async with staged(wiring, engine) as stage:
        await stage.controller.start(Plan(shape="ramp 1..5 over 60s"))
        await stage.controller.cut_load()
        load = stage.load_source.load
        assert load is not None
        await until(lambda: load.finished, "the end of the load")
        await stage.controller.start_again()
        assert snapshot(stage).shape == "ramp 1..5 over 60s"
        assert snapshot(stage).asked < 3


async def test_presses_that_follow_each_other_at_once_leave_one_mark(
    wiring: Wiring, engine: EngineRecord
) -> None:
    async with staged(wiring, engine) as stage:
        await stage.controller.start(Plan(shape="hold 4"))
        for _ in range(4):
            await stage.controller.more()
        assert labels(stage) == [f"load {snapshot(stage).asked:g}"]


def test_the_key_is_in_help_and_free() -> None:
    assert DEFAULT.label("load.again") == "a"
    assert "repeat the last load" in BY_ID["load.again"].words

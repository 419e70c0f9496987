"""What is exported of an engine that stops to answer, is held, or was stopped."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from llmtop.analysis.cost import Cost
from llmtop.cli.fleet.state_lines import StateLines
from llmtop.engines.core.records import EngineRecord, EngineStatus, LaunchSpec, State
from llmtop.engines.core.samples import EngineSample
from llmtop.engines.core.steps import Step, Steps
from llmtop.exporter.engine_families import families
from llmtop.exporter.openmetrics import text
from llmtop.operations.insight.engine_insight import EngineInsight
from llmtop.operations.monitoring import recorder_export
from llmtop.operations.monitoring.recorder_export import RecorderExport
from llmtop.operations.slo.holders import Action, HolderState
from llmtop.operations.wiring import Wiring
from llmtop.tui.monitoring.engine_facts import facts
from llmtop.tui.monitoring.engine_watch import EngineWatch
from llmtop.tui.monitoring.export_source import ExportSource
from llmtop.tui.monitoring.watches import Watches
from llmtop.tui.sources.insight import InsightSource
from llmtop.tui.store.store import EngineTrack, Store

NOW = 1_800_000_000.0
FROZEN = "stopped by a signal (SIGSTOP)"


def status(state: State, phase: str = "") -> EngineStatus:
    spec = LaunchSpec("vllm", "llama", "m", "127.0.0.1", 1)
    record = EngineRecord(
        spec, (), (), 100, 1, "boot", "http://127.0.0.1:1", "/log", None, NOW - 60
    )
    return EngineStatus(record, state, phase=phase)


def track(state: State, phase: str = "") -> EngineTrack:
    found = EngineTrack("llama", "vllm", "vLLM", "http://127.0.0.1:1", owned=True)
    found.status = status(state, phase)
    found.sample = EngineSample(time=NOW, window_s=10.0, running=3, waiting=0)
    if state is not State.READY:
        found.stale_since = NOW - 5
    return found


def page(of: EngineTrack, watch: EngineWatch) -> str:
    return text(families([facts(of, watch)]))


def watch() -> EngineWatch:
    return EngineWatch(lambda: None, wall=lambda: NOW)


@pytest.mark.parametrize(
    ("state", "phase", "has", "has_not"),
    [
        (State.READY, "", ['answers{engine="llama"} 1', 'frozen{engine="llama"} 0'], []),
        (
            State.UNRESPONSIVE,
            FROZEN,
            ['answers{engine="llama"} 0', 'frozen{engine="llama"} 1'],
            ["llmtop_requests_running{"],
        ),
        (
            State.STOPPED,
            "",
            ['answers{engine="llama"} 0', 'frozen{engine="llama"} 0', '_state="stopped"} 1'],
            ["llmtop_requests_running{", "llmtop_option{"],
        ),
    ],
)
async def test_an_engine_that_does_not_answer_is_a_metric(
    state: State, phase: str, has: list[str], has_not: list[str]
) -> None:
    found = page(track(state, phase), watch())
    assert all(words in found for words in has), found
    assert not any(words in found for words in has_not), found


def test_each_change_of_an_engine_is_one_line() -> None:
    said: list[str] = []
    lines = StateLines(said.append)
    for state, phase in (
        *((State.READY, ""), (State.READY, ""), (State.UNRESPONSIVE, FROZEN)),
        *((State.UNRESPONSIVE, FROZEN), (State.READY, ""), (State.FAILED, "out of memory")),
    ):
        lines.observe({"llama": track(state, phase)})
    assert said == [
        f"llama does not answer: {FROZEN}",
        "llama answers",
        "llama has ended: out of memory",
    ]


async def test_actions_of_a_hold_are_counted_once() -> None:
    acted = (
        Action(NOW - 1, "max_num_seqs", 8, 4, "before the exporter began"),
        Action(NOW + 1, "max_num_seqs", 4, 2, "late"),
        Action(NOW + 2, "", None, None, "cannot hold"),
    )
    hold = HolderState(
        9, "ann", "ttft=1s", NOW - 9, NOW, {"max_num_seqs": 8}, {"max_num_seqs": 2}, True, 3,
        recent=acted,
    )  # fmt: skip
    engine, found = track(State.READY), watch()
    for _ in range(3):
        await found.observe(engine, hold)
    shown = page(engine, found)
    assert 'llmtop_hold_actions_total{engine="llama",option="max_num_seqs"} 1' in shown
    assert 'llmtop_hold_actions_total{engine="llama",option="none"} 1' in shown
    assert 'llmtop_held{engine="llama"} 1' in shown
    assert 'llmtop_hold_engaged{engine="llama"} 1' in shown
    assert 'llmtop_hold_limit{engine="llama",option="max_num_seqs"} 2' in shown
    await found.observe(engine, None)
    shown = page(engine, found)
    assert 'llmtop_held{engine="llama"} 0' in shown and "llmtop_hold_engaged{" not in shown
    assert 'option="max_num_seqs"} 1' in shown  # a counter stays


class Inside:
    """Answers with one decode step each time, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def steps(self, newest: int = 0) -> Steps:
        self.asked += 1
        step = Step(
            seq=self.asked, end=NOW, duration_s=0.01, requests=1, prefills=0, prefill_tokens=0,
            decode_tokens=1, output_tokens=1, draft_tokens=None, accepted_tokens=None, running=1,
            waiting=0, kv_free_blocks=None, preempted=0, context_tokens=None, schedule_s=None,
            update_s=None, launch_s=None, host_gap_s=None, idle_s=None, cached_tokens=None,
            refused=0,
        )  # fmt: skip
        return Steps((step,), 0, 1, {"latencies": "not here"}, NOW)

    latencies = requests = None

    def close(self) -> None:
        """Nothing is under way."""


async def test_steps_are_asked_for_once_and_counted_from_the_second_answer_on() -> None:
    inside, found = Inside(), watch()
    insight = EngineInsight(inside, on_steps=found.totals.add)  # type: ignore[arg-type]
    for _ in range(4):
        await insight.read()
        await found.observe(track(State.READY))
    assert inside.asked == 4
    assert found.totals.steps["decode"][1] == 3


async def test_an_address_that_is_taken_is_said_once_and_tried_again(tmp_path: Path) -> None:
    store = Store()
    wiring = Wiring(environ={"XDG_STATE_HOME": str(tmp_path)})
    insights = InsightSource(store, lambda name: None)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        export = RecorderExport("127.0.0.1", port)
        source = ExportSource(store, Watches(store, insights, wiring), export, lambda: NOW)
        for _ in range(25):
            await source.sample()
    assert [event.level for event in store.events] == ["error"]
    assert f"cannot listen on 127.0.0.1:{port}" in store.events[0].text
    while source.trouble:
        await source.sample()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
    assert b"200 OK" in await reader.readline()
    writer.close()
    await source.close()


def test_what_the_recorder_is_to_export_is_kept_for_its_user_alone(tmp_path: Path) -> None:
    assert recorder_export.wanted(tmp_path) is None
    recorder_export.want(tmp_path, RecorderExport("127.0.0.1", 9470, 2.5))
    assert recorder_export.wanted(tmp_path) == RecorderExport("127.0.0.1", 9470, 2.5)
    assert (tmp_path / recorder_export.FILE).stat().st_mode & 0o777 == 0o600
    (tmp_path / recorder_export.FILE).write_text("{")
    assert recorder_export.wanted(tmp_path) is None
    recorder_export.end(tmp_path)
    recorder_export.end(tmp_path)
    assert not (tmp_path / recorder_export.FILE).exists()


@pytest.mark.parametrize(("gpus", "price"), [(2, pytest.approx(2.0)), (None, None)])
def test_a_price_needs_the_number_of_gpus(gpus: int | None, price: object) -> None:
    found = track(State.READY)
    found.cost = Cost(60.0, gpus=gpus, tokens_per_s=1000.0)
    assert facts(found, watch(), 3.6).dollars_per_million_tokens == price

"""Two recordings side by side: one clock, the same axes, what moves in time moves both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC
from pathlib import Path

import pytest
from textual.pilot import Pilot

from llmtop.analysis.marks import Mark
from llmtop.analysis.series import SeriesName as S
from llmtop.engines.core.samples import EngineSample
from llmtop.history.recording_reader import Recording
from llmtop.history.shifted_recording import ShiftedRecording
from llmtop.tui.app import LlmtopApp
from llmtop.tui.commands.replay_control import ReplayControl
from llmtop.tui.history.pair_player import PairPlayer
from llmtop.tui.history.recording import RecordingSource
from llmtop.tui.replay.app import ReplayApp
from llmtop.tui.store.store import Event, Store
from llmtop.tui.widgets.canvas import Canvas
from tests.conftest import engine, snapshot
from tests.plain_rows import plain

BEGAN = 1_800_000_000.0
LATER = 50_000.25  # the second one was made half a day later


class Clock:
    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at


def record(path: Path, began: float, seconds: int, running: int, mark_s: int) -> None:
    """An engine with so many running requests, and one mark."""
    store, clock = Store(engines={"llama": engine("llama")}, selected="llama"), Clock()
    clock.at = began
    track = store.engines["llama"]
    source = RecordingSource(store, path, clock)
    for second in range(seconds):
        clock.at = began + second
        for name in (S.RUNNING, S.OUTPUT_TOKENS):
            track.record(name, clock.at, running + second / 1000)
        track.sample = EngineSample(clock.at, 1.0, track.model, running, 0, 0.1)
        store.load, store.load_target = snapshot(time=clock.at, in_flight=running), "llama"
        if second == mark_s:
            track.marks.append(Mark(clock.at, f"cap {running}", effect=True))
            store.events.append(Event(clock.at, "state", f"llama has {running}"))
        source.write()
    source.stop()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[PairPlayer, Clock]]:
    one, two, clock = tmp_path / "eager.llmtop", tmp_path / "graphs.llmtop", Clock()
    record(one, BEGAN, 60, 40, 20)
    record(two, BEGAN + LATER, 90, 90, 30)
    with Recording(one) as first, ShiftedRecording(two, first.began) as second:
        player = PairPlayer((first, second), ("eager", "graphs"), steady=clock)
        yield player, clock
        player.stop()


async def until(pilot: Pilot[None], true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await pilot.pause()


def paired(app: LlmtopApp) -> bool:
    """Whether the charts of the second one are painted."""
    heads = [plain(one.rows)[:1] for one in app.screen.query("#beside-queue").results(Canvas)]
    return any("running 90" in row for head in heads for row in head)


def newest(player: PairPlayer) -> list[float | None]:
    return [track.series[S.RUNNING].newest for track in player.store.engines.values()]


def test_both_are_at_the_same_moment_of_their_course(pair: tuple[PairPlayer, Clock]) -> None:
    player, clock = pair
    assert list(player.store.engines) == ["A eager", "B graphs"]
    clock.at = 10.0
    player.advance()
    assert newest(player) == pytest.approx([BEGAN + 10, BEGAN + 10])
    a, b = player.store.engines.values()
    assert a.sample is not None and b.sample is not None
    assert (a.sample.running, b.sample.running) == (40, 90)


def test_what_moves_in_time_moves_both(pair: tuple[PairPlayer, Clock]) -> None:
    player, _ = pair
    player.toggle()
    player.seek(BEGAN + 40)
    assert newest(player) == pytest.approx([BEGAN + 40, BEGAN + 40])
    player.skip(-10)
    assert newest(player) == pytest.approx([BEGAN + 30, BEGAN + 30])
    player.step()
    assert newest(player) == pytest.approx([BEGAN + 31, BEGAN + 31])
    player.seek(BEGAN)
    player.jump(1)
    assert player.position.at == pytest.approx(20.0)  # the mark of A
    player.jump(1)
    assert player.position.at == pytest.approx(30.0)  # that of B
    assert [len(track.marks) for track in player.store.engines.values()] == [1, 1]
    player.jump(-1)
    assert player.position.at == pytest.approx(20.0)
    assert [len(track.marks) for track in player.store.engines.values()] == [1, 0]


def test_the_shorter_one_ends_and_the_longer_one_continues(
    pair: tuple[PairPlayer, Clock],
) -> None:
    player, clock = pair
    assert player.position.length == pytest.approx(89.0)
    clock.at = 75.0
    player.advance()
    assert newest(player) == pytest.approx([BEGAN + 59, BEGAN + 75])
    clock.at = 500.0
    player.advance()
    assert not player.position.playing and player.position.at == pytest.approx(89.0)


def test_all_times_of_the_second_one_are_moved(pair: tuple[PairPlayer, Clock]) -> None:
    player, _ = pair
    player.seek(BEGAN + 40)
    a, b = player.store.engines.values()
    assert b.marks[-1].time == pytest.approx(BEGAN + 30)
    assert [event.text for event in player.store.events] == ["A: llama has 40", "B: llama has 90"]
    assert player.store.events[-1].time == pytest.approx(BEGAN + 30)
    assert a.status is not None and b.status is not None
    moved = b.status.record.started_at - a.status.record.started_at
    assert moved == pytest.approx(-LATER)


async def test_the_screen_shows_both_on_the_same_axes(
    pair: tuple[PairPlayer, Clock], screen_text: Callable[[LlmtopApp], str]
) -> None:
    player, _ = pair
    player.toggle()
    player.seek(BEGAN + 40)
    app = ReplayApp(
        player, player.store, ReplayControl(player.select, player.lines), clock=player.now,
        zone=UTC, interval=3600.0,
    )  # fmt: skip
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: "B graphs" in screen_text(app) and paired(app))
        text = screen_text(app)
        assert "A eager" in text and "REPLAY" in text
        left = plain(app.screen.query_one("#queue", Canvas).rows)
        right = plain(app.screen.query_one("#beside-queue", Canvas).rows)
        assert "running 40" in left[0] and "running 90" in right[0]
        assert left[1][:6] == right[1][:6]  # the highest value of the axis
        assert left[-1].split()[1] == right[-1].split()[1]  # the seconds that it shows
        await pilot.press("right")
        await pilot.pause()
        assert newest(player) == pytest.approx([BEGAN + 50, BEGAN + 50])


async def test_a_small_terminal_shows_one_of_them_and_says_why(
    pair: tuple[PairPlayer, Clock], screen_text: Callable[[LlmtopApp], str]
) -> None:
    player, _ = pair
    player.toggle()
    app = ReplayApp(
        player, player.store, ReplayControl(player.select, player.lines), clock=player.now,
        zone=UTC, interval=3600.0,
    )  # fmt: skip
    async with app.run_test(size=(80, 24)) as pilot:
        words = "side by side needs a terminal of"
        await until(pilot, lambda: any(words in note.message for note in app._notifications))
        await until(pilot, lambda: "A eager" in screen_text(app).splitlines()[0])
        assert "n the other" in screen_text(app).splitlines()[-1]
        await pilot.press("tab")
        await until(pilot, lambda: "B graphs" in screen_text(app).splitlines()[0])

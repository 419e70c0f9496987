"""Replays: the screen shows what was shown live, moves in time, and changes nothing."""

from collections.abc import Callable, Iterator
from datetime import UTC
from pathlib import Path

import pytest

from llmtop.analysis.marks import Mark
from llmtop.analysis.series import SeriesName as S
from llmtop.diagnosis.state_rules import Level, LoadState
from llmtop.engines.core.samples import EngineSample, GpuSample
from llmtop.history.examples import locate
from llmtop.history.recording_reader import Recording
from llmtop.loadgen.core.results import LoadSnapshot
from llmtop.tui.app import LlmtopApp
from llmtop.tui.commands.replay_control import RECORDED, ReplayControl
from llmtop.tui.history.player import STEPS_S, Player
from llmtop.tui.history.recording import RecordingSource
from llmtop.tui.replay.app import ReplayApp
from llmtop.tui.store.store import EngineTrack, Event, Store
from tests.conftest import engine, snapshot
from tests.fake_control import FakeControl

BEGAN = 1_800_000_000.0
SECONDS = 150
SIZE = (120, 40)


class Clock:
    def __init__(self, at: float) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


def second(store: Store, number: int) -> None:
    """What a second of a live screen brings."""
    time, track = BEGAN + number, store.engines["llama"]
    running = min(128, number * 2)
    for name, value in ((S.RUNNING, running), (S.WAITING, max(0, number - 64)), (S.CAP, 128)):
        track.record(name, time, value)
    track.record(S.OUTPUT_TOKENS, time, 40.0 * running)
    track.record(S.CLIENT_TTFT_P95, time, 0.02 + number / 500)
    track.record(S.KV_USAGE, time, number / 200)
    track.sample = EngineSample(
        time, 1.0, track.model, running, max(0, number - 64), number / 200, 1000 * number, 200_000,
        40.0 * running, 90.0 * running, 3.0,
    )  # fmt: skip
    level = Level.SATURATED if number > 64 else Level.HEADROOM
    track.load_state = LoadState(level, (f"{running} of 128 running",), limits=("batch",))
    store.load, store.load_target = snapshot(time=time, in_flight=number), "llama"
    store.gpus = (
        GpuSample(time, 0, "NVIDIA H200", "GPU-0", 10**11, 9 * 10**10, 0.9, 600.0 + number),
    )
    if number == 64:
        track.marks.append(Mark(time, "max_num_seqs 64 -> 128", effect=True))
        store.events.append(Event(time, "state", "llama SATURATED: 128 of 128 running"))


@pytest.fixture
def live(tmp_path: Path) -> Iterator[tuple[Store, Clock, RecordingSource]]:
    store, clock = Store(engines={"llama": engine("llama")}, selected="llama"), Clock(BEGAN)
    source = RecordingSource(store, tmp_path / "run.llmtop", clock)
    yield store, clock, source
    if source.running:
        source.stop()


def recorded(path: Path, store: Store, clock: Clock, source: RecordingSource) -> Player:
    for number in range(SECONDS):
        clock.at = BEGAN + number
        second(store, number)
        source.write()
    source.stop()
    return Player(Recording(path), "run", steady=Clock(0.0))


@pytest.fixture
def player(tmp_path: Path, live: tuple[Store, Clock, RecordingSource]) -> Iterator[Player]:
    made = recorded(tmp_path / "run.llmtop", *live)
    yield made
    made.close()


def replay(player: Player) -> ReplayApp:
    control = ReplayControl(player.playback.select, lambda name: ())
    return ReplayApp(player, player.store, control, clock=player.now, zone=UTC)


async def test_a_replay_shows_what_the_live_screen_showed(
    tmp_path: Path,
    live: tuple[Store, Clock, RecordingSource],
    screen_text: Callable[[LlmtopApp], str],
) -> None:
    store, clock, source = live
    moments, shown = (30, 64, 65, 79), {}
    app = LlmtopApp(store, FakeControl(), clock=clock, zone=UTC)
    async with app.run_test(size=SIZE) as pilot:
        for number in range(80):
            clock.at = BEGAN + number
            second(store, number)
            source.write()
            app.dashboard.redraw()
            if number in moments:
                await pilot.pause()
                shown[number] = app.export_screenshot(), screen_text(app)
    source.stop()
    player = Player(Recording(tmp_path / "run.llmtop"), "run", steady=Clock(0.0))
    player.toggle()
    again = replay(player)
    async with again.run_test(size=SIZE) as pilot:
        for number in range(80):
            player.seek(BEGAN + number) if number == 0 else player.skip(1.0)
            again.dashboard.redraw()
            if number in moments:
                await pilot.pause()
                # All but the last line, which is the replay's own.
                before, after = shown[number][1].splitlines()[:-1], screen_text(again).splitlines()
                assert after[:-1] == before, f"at {number} s"
    player.close()


async def test_it_is_clearly_a_replay_and_says_where_it_is(
    player: Player, screen_text: Callable[[LlmtopApp], str]
) -> None:
    player.toggle()
    app = replay(player)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("g", *"1:04", "enter")
        await pilot.pause()
        last = screen_text(app).splitlines()[-1]
        assert "REPLAY" in last and "run" in last and "paused" in last
        assert "1:04" in last and "2:29" in last
        await pilot.press("home", "pagedown")
        await pilot.pause()
        assert "1:04" in screen_text(app).splitlines()[-1]  # the mark
        await pilot.press("right", "enter", "left")
        await pilot.pause()
        assert "1:05" in screen_text(app).splitlines()[-1]
        await pilot.press("space", "plus", "plus", "minus")
        await pilot.pause()
        assert "playing 2x" in screen_text(app).splitlines()[-1]


@pytest.mark.parametrize("keys", [["b"], ["0"], ["X"], ["s"], ["c"], ["ctrl+r"]])
async def test_changes_answer_that_it_is_a_recording(
    player: Player, screen_text: Callable[[LlmtopApp], str], keys: list[str]
) -> None:
    player.toggle()
    app = replay(player)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press(*keys)
        await pilot.pause()
        told = [note.message for note in app._notifications]
        events = [event.text for event in player.store.events]
        assert RECORDED in [*told, *events]


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("y", "the recording holds no causes of this time"),
        ("e", "the recording holds no steps of this time"),
        ("r", "a recording does not contain requests"),
    ],
)
async def test_what_a_replay_cannot_show_is_said(
    player: Player, screen_text: Callable[[LlmtopApp], str], key: str, words: str
) -> None:
    app = replay(player)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press(key)
        await pilot.app.workers.wait_for_complete()
        await pilot.pause()
        text = screen_text(app)
        assert words in text and "AttributeError" not in text


def test_a_jump_back_shows_nothing_of_what_comes_later(player: Player) -> None:
    player.toggle()
    player.seek(BEGAN + 140)
    assert player.store.engines["llama"].marks
    player.seek(BEGAN + 20)
    track = player.store.engines["llama"]
    assert not track.marks and track.sample is not None and track.sample.running == 40
    assert track.series[S.RUNNING].newest == BEGAN + 20


def test_it_plays_at_its_speed_and_stops_at_the_end(player: Player) -> None:
    clock = Clock(0.0)
    player._steady = clock
    player.seek(BEGAN)
    for _ in range(4):
        player.change_speed(1)
    clock.at = 5.0
    player.advance()
    assert player.now() == BEGAN + 80 and player.speed == 16
    clock.at = 60.0
    player.advance()
    assert not player.playing and player.now() == player.recording.ended
    player.toggle()
    assert player.playing and player.now() == BEGAN


def test_the_end_of_a_damaged_recording_is_said(
    tmp_path: Path, live: tuple[Store, Clock, RecordingSource]
) -> None:
    path = tmp_path / "run.llmtop"
    recorded(path, *live).close()
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 40] = bytes(40)
    path.write_bytes(data)
    player = Player(Recording(path), "run", steady=Clock(0.0))
    player.seek(player.recording.ended)
    assert player.remark
    player.close()


def test_a_recording_holds_no_secret(
    tmp_path: Path, live: tuple[Store, Clock, RecordingSource]
) -> None:
    import gzip

    store, _, source = live
    track: EngineTrack = store.engines["llama"]
    assert track.status is not None
    source.write()
    source.stop()
    text = gzip.decompress((tmp_path / "run.llmtop").read_bytes()).decode()
    assert "org/model-8b" in text
    for private in ('"/log"', '"boot"'):
        assert private not in text


def test_a_load_is_recorded_with_its_client(player: Player) -> None:
    player.seek(BEGAN + 100)
    load: LoadSnapshot | None = player.store.load
    assert load is not None and load.in_flight == 100 and load.health.verdict == "valid"


def test_charts_of_a_replay_are_drawn_from_all_points(player: Player) -> None:
    player.seek(BEGAN + 100)
    series = player.store.engines["llama"].series[S.RUNNING]
    assert series.covering(BEGAN - 20) is series


def test_a_long_recording_opens_before_it_was_looked_through(
    tmp_path: Path,
    live: tuple[Store, Clock, RecordingSource],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("llmtop.tui.history.player.AT_ONCE", 1)
    player = recorded(tmp_path / "run.llmtop", *live)
    assert player._thread is not None
    player._thread.join()
    player.advance()
    assert player.position.places  # the mark and the change of state
    player.close()


async def test_the_steps_of_a_recording_are_shown(
    screen_text: Callable[[LlmtopApp], str],
) -> None:
    player = Player(Recording(locate("h200-overload")), "h200-overload", steady=Clock(0.0))
    player.toggle()
    player.seek(player.recording.began + 64.0)
    app = replay(player)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("e")
        await pilot.pause()
        text = screen_text(app)
        assert "recorded" in text and "time per step" in text and "p99" in text
        assert "decode" in text and "no step in the last second" not in text
    player.close()


def test_a_jump_reads_the_steps_just_before_it_alone() -> None:
    player = Player(Recording(locate("h200-overload")), "h200-overload", steady=Clock(0.0))
    player.seek(player.recording.began + 120.0)
    (track,) = (one for one in player.store.engines.values() if one.steps is not None)
    assert track.steps is not None
    first, last = track.steps.steps[0], track.steps.steps[-1]
    assert last.end <= player.now() + 1.0 and first.end >= player.now() - STEPS_S - 2.0
    player.close()

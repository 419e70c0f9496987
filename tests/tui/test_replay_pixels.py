"""Three recordings: at ten moments each, a replay shows to the cell what the live screen showed,
played to that moment or after a jump to it."""

from __future__ import annotations

import io
from datetime import UTC
from pathlib import Path

import pytest
from rich.console import Console
from rich.segment import Segment, Segments

from llmtop.history.recording_reader import Recording
from llmtop.tui.app import LlmtopApp
from llmtop.tui.commands.replay_control import ReplayControl
from llmtop.tui.history.player import Player
from llmtop.tui.history.recording import RecordingSource
from llmtop.tui.replay.app import ReplayApp
from tests.fake_control import FakeControl
from tests.tui.live_scenes import MOMENTS, SCENES, SECONDS, Scene, moment

pytestmark = pytest.mark.more
Shown = tuple[str, list[str]]  # a picture, its lines


class Clock:
    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at


def picture(app: LlmtopApp) -> str:
    """The screen as SVG, without its last line: in a replay that is the replay's own."""
    width, height = app.size
    console = Console(
        width=width, height=height, file=io.StringIO(), force_terminal=True,
        color_system="truecolor", record=True, legacy_windows=False,
    )  # fmt: skip
    segments: list[Segment] = []
    for strip in app.screen._compositor.render_strips()[:-1]:
        segments += [*strip.simplify(), Segment.line()]
    console.print(Segments(segments), end="")
    return console.export_svg(unique_id="screen")


def text(app: LlmtopApp) -> list[str]:
    return [strip.text for strip in app.screen._compositor.render_strips()[:-1]]


def same(app: LlmtopApp, shown: Shown, when: str) -> None:
    found = text(app)
    other = [f"{b}\n{a}" for a, b in zip(found, shown[1], strict=True) if a != b]
    assert not other, f"{when}, live above replay:\n" + "\n".join(other)
    assert picture(app) == shown[0], f"other colours {when}"


def nearly_same(app: LlmtopApp, shown: Shown, when: str) -> None:
    """Equal but for dots in the box of the steps: how a step is split is learned from a minute."""
    found = text(app)
    begin = next(number for number, line in enumerate(found) if "time per step" in line)
    end = next(number for number in range(begin, len(found)) if found[number][0] in "╰└")
    cells = 0
    for number, (new, old) in enumerate(zip(found, shown[1], strict=True)):
        if begin < number < end:
            cells += sum(a != b for a, b in zip(new, old, strict=True))
        else:
            assert new == old, f"{when}, live above replay:\n{old}\n{new}"
    assert cells <= len(found[0]) * (end - begin) // 100, f"{when}: {cells} cells differ"


async def live(scene: Scene, path: Path) -> dict[int, Shown]:
    """Watch a scene and record it; the pictures that the live screen made of itself."""
    shown = {}
    app = LlmtopApp(
        scene.store, FakeControl(), clock=scene.now, wall=scene.now, zone=UTC, interval=3600.0
    )
    async with app.run_test(size=scene.size) as pilot:
        source = RecordingSource(scene.store, path, scene.now)
        for number in range(SECONDS):
            scene.second(number)
            await source.sample()
            app.dashboard.redraw()
            if number in MOMENTS:
                await pilot.pause()
                shown[number] = picture(app), text(app)
        source.stop()
    return shown


@pytest.mark.parametrize("name", SCENES)
async def test_a_replay_shows_what_the_live_screen_showed(name: str, tmp_path: Path) -> None:
    scene, path = SCENES[name](), tmp_path / "scene.llmtop"
    shown, clock = await live(scene, path), Clock()
    player = Player(Recording(path), "scene", steady=clock)
    control = ReplayControl(player.playback.select, lambda engine: ())
    app = ReplayApp(player, player.store, control, clock=player.now, zone=UTC, interval=3600.0)
    async with app.run_test(size=scene.size) as pilot:
        for number in range(SECONDS):
            clock.at = float(number)
            app.dashboard.redraw()
            if number in MOMENTS:
                await pilot.pause()
                same(app, shown[number], f"at {number} s")
    player.close()


@pytest.mark.parametrize("name", SCENES)
async def test_a_jump_shows_what_the_live_screen_showed(name: str, tmp_path: Path) -> None:
    scene, path = SCENES[name](), tmp_path / "scene.llmtop"
    shown = await live(scene, path)
    player = Player(Recording(path), "scene", steady=Clock())
    player.toggle()
    control = ReplayControl(player.playback.select, lambda engine: ())
    app = ReplayApp(player, player.store, control, clock=player.now, zone=UTC, interval=3600.0)
    async with app.run_test(size=scene.size) as pilot:
        for number in (*MOMENTS[::-2], *MOMENTS[::3], *MOMENTS[1::3]):  # back and on
            player.seek(moment(number))
            app.dashboard.redraw()
            await pilot.pause()
            if scene.store.engine is not None and scene.store.engine.steps is not None:
                nearly_same(app, shown[number], f"after a jump to {number} s")
            else:
                same(app, shown[number], f"after a jump to {number} s")
    player.close()

"""Three recordings: at ten moments each, a replay shows to the cell what the live screen showed."""

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
from tests.tui.live_scenes import MOMENTS, SCENES, SECONDS, Scene

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
            await source.beat()
            app.dashboard.beat()
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
            app.dashboard.beat()
            if number in MOMENTS:
                await pilot.pause()
                same(app, shown[number], f"at {number} s")
    player.close()

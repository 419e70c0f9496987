"""Events that a command posts for an engine, as its dashboards show them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from llmtop.analysis.events import Event
from llmtop.cli.options.canary_steps import CanarySteps
from llmtop.fleet.canary import Judgement, Verdict
from llmtop.operations.posted_events import FILE, FULL, KEPT, LIMIT, post, posted
from llmtop.tui.sources.history import PostedEvents
from llmtop.tui.store.store import EngineTrack, Store

NAMES = ("one", "two")


class Wall:
    """A clock that is set."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[str], Path]:
    for name in NAMES:
        (tmp_path / name).mkdir(mode=0o700)
    return tmp_path.joinpath


@pytest.fixture
def store() -> Store:
    tracks = [EngineTrack(name=name, kind="sim", title="", url="", owned=True) for name in NAMES]
    return Store(engines={track.name: track for track in tracks}, selected="one")


def texts(store: Store) -> list[str]:
    return [event.text for event in store.events]


async def test_each_step_of_a_canary_is_one_event_on_the_screen(
    store: Store, wall: Wall, folder: Callable[[str], Path]
) -> None:
    post(folder("one"), Event(90.0, "info", "of before this screen"))
    screen = PostedEvents(store, lambda: wall.now + 1000.0, folder, wall)
    said: list[str] = []
    steps = CanarySteps(NAMES, said.append, folder, wall)
    wall.now = 101.0
    steps.report("watching one beside two for 60 s: ttft=1s")
    await screen.sample()
    wall.now = 102.0
    steps.report_verdict(Judgement(Verdict.WORSE, "fewer requests meet the limit of ttft", {}))
    steps.report("one: put back", "one", level="warning")
    for _ in range(2):
        await screen.sample()
    assert said == [
        "watching one beside two for 60 s: ttft=1s",
        "worse: fewer requests meet the limit of ttft",
        "one: put back",
    ]
    assert texts(store) == [f"canary: {words}" for words in said]
    assert [event.time for event in store.events] == [1101.0, 1102.0, 1102.0]
    assert [event.level for event in store.events] == ["info", "warning", "warning"]


async def test_a_screen_of_one_engine_shows_what_concerns_that_engine(
    store: Store, wall: Wall, folder: Callable[[str], Path]
) -> None:
    del store.engines["one"]
    screen = PostedEvents(store, wall, folder, wall)
    steps = CanarySteps(NAMES, lambda words: None, folder, wall)
    wall.now = 101.0
    steps.report("watching")
    steps.report("one: put back", "one")
    await screen.sample()
    assert texts(store) == ["canary: watching"]


async def test_the_folder_of_an_engine_of_others_is_not_read(
    store: Store, wall: Wall, folder: Callable[[str], Path]
) -> None:
    for track in store.engines.values():
        track.owned = False
    screen = PostedEvents(store, wall, folder, wall)
    post(folder("one"), Event(101.0, "info", "a step"))
    await screen.sample()
    assert not store.events


async def test_a_clock_that_is_set_back_or_a_time_in_the_future_hides_no_later_event(
    store: Store, wall: Wall, folder: Callable[[str], Path]
) -> None:
    screen = PostedEvents(store, wall, folder, wall)
    post(folder("one"), Event(1e308, "info", "damaged"))
    post(folder("one"), Event(101.0, "info", "first"))
    await screen.sample()
    wall.now = 40.0
    post(folder("one"), Event(40.0, "info", "second"))
    for _ in range(2):
        await screen.sample()
    assert texts(store) == ["first", "second"]


def test_the_file_is_private_and_stays_small(tmp_path: Path) -> None:
    for number in range(2000):
        post(tmp_path, Event(float(number), "info", "x" * 1000))
    path = tmp_path / FILE
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_size < LIMIT
    found = posted(tmp_path)
    assert len(found) >= KEPT and [one.time for one in found[-2:]] == [1998.0, 1999.0]


def test_what_is_damaged_or_hostile_is_not_shown(tmp_path: Path) -> None:
    post(tmp_path, Event(1.0, "info", "a \x1b[31mred\nword"))
    with (tmp_path / FILE).open("ab") as file:
        file.write(b"\xff\n{}\n" + b"[" * 9000 + b"\n")
        file.write(b'{"time": 2, "level": "info", "text": "\\u001b[2Jgone"}\n')
    assert [one.text for one in posted(tmp_path)] == ["a red word", "gone"]


def test_an_event_that_cannot_be_posted_is_lost_without_an_error(tmp_path: Path) -> None:
    post(tmp_path / "no folder", Event(1.0, "info", "a step"))
    (tmp_path / FILE).symlink_to(tmp_path / "elsewhere")
    post(tmp_path, Event(1.0, "info", "a step"))
    assert not (tmp_path / "elsewhere").exists() and posted(tmp_path) == []


def test_a_pipe_in_its_place_does_not_stop_the_command(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / FILE)
    post(tmp_path, Event(1.0, "info", "a step"))
    assert posted(tmp_path) == []


@pytest.mark.parametrize("size", [LIMIT + 1, FULL + 1])
def test_a_file_that_another_program_filled_is_begun_anew(tmp_path: Path, size: int) -> None:
    (tmp_path / FILE).write_bytes(b"x" * size)
    post(tmp_path, Event(1.0, "info", "a step"))
    assert [one.text for one in posted(tmp_path)] == ["a step"]

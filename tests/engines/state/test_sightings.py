"""What ``ps`` knows of a hang that another llmtop watches."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmtop.engines.core.conditions import Condition, hung, several_servers
from llmtop.engines.core.records import EngineRecord, EngineStatus, LaunchSpec, State
from llmtop.engines.state.sightings import EVERY_S, FRESH_S, Sightings
from llmtop.engines.state.state_directory import StateDirectory
from llmtop.values import replace

SPEC = LaunchSpec("sim", "one", "m", "127.0.0.1", 9)
RECORD = EngineRecord(SPEC, (), (), 7, 1, "boot", "http://127.0.0.1:9", "/no/log", None, 1.0)
READY = EngineStatus(RECORD, State.READY)
STUCK: tuple[Condition, ...] = (hung(32, 0, 9),)


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    folder = StateDirectory(tmp_path / "state", tmp_path / "sockets")
    folder.make_folder("one")
    return folder


def test_a_hang_that_is_watched_is_known_to_others_while_it_lasts(state: StateDirectory) -> None:
    now = 1000.0
    watcher, other = (Sightings(state, lambda: now) for _ in range(2))
    assert other.annotate(READY) == READY
    watcher.note(RECORD, STUCK)
    assert "32 running" in other.annotate(READY).phase
    now += FRESH_S + 1
    assert other.annotate(READY) == READY  # who watched is gone
    now += EVERY_S
    watcher.note(RECORD, STUCK)
    assert other.annotate(READY).phase
    watcher.note(RECORD, ())
    assert other.annotate(READY) == READY


def test_it_is_said_of_that_process_alone_and_of_none_that_does_not_run(
    state: StateDirectory,
) -> None:
    sightings = Sightings(state, lambda: 1000.0)
    sightings.note(RECORD, STUCK)
    assert not sightings.annotate(EngineStatus(replace(RECORD, pid=8), State.READY)).phase
    assert not sightings.annotate(EngineStatus(RECORD, State.STOPPED)).phase
    assert sightings.annotate(EngineStatus(RECORD, State.READY, phase="x")).phase == "x"


def test_other_findings_are_not_written(state: StateDirectory) -> None:
    sightings = Sightings(state, lambda: 1000.0)
    sightings.note(RECORD, (several_servers(),))
    assert not (state.folder("one") / "hang.json").exists()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"pid": "x"}', "\x00" * 9000])
def test_a_damaged_file_is_of_no_account(state: StateDirectory, text: str) -> None:
    state.write_file("one", "hang.json", text)
    assert Sightings(state, lambda: 1000.0).annotate(READY) == READY

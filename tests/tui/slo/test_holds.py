"""The holder of an engine, as the screen reads it from the engine's folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llmtop.operations.slo.detached_holder import LOG
from llmtop.operations.slo.holders import Action, HolderLock, HolderState
from llmtop.operations.wiring import Wiring
from llmtop.tui.slo.holds import Holds
from llmtop.tui.store.store import EngineTrack, Store
from llmtop.values import replace

STATE = HolderState(
    4711, "ann@pts/3", "ttft=1s", 90.0, 100.0, {"max_num_seqs": 256}, {"max_num_seqs": 64}, True, 1
)


class Wall:
    """A clock that is set."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def store() -> Store:
    track = EngineTrack(name="one", kind="vllm", title="vLLM", url="", owned=True)
    return Store(engines={"one": track}, selected="one")


@pytest.fixture
def wiring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wiring:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return Wiring()


@pytest.fixture
def folder(wiring: Wiring) -> Path:
    found = wiring.state.folder("one")
    found.mkdir(mode=0o700, parents=True, exist_ok=True)
    return found


@pytest.fixture
def lock(folder: Path) -> Iterator[HolderLock]:
    made = HolderLock(folder)
    made.take()
    yield made
    made.release()


@pytest.fixture
def holds(store: Store, wiring: Wiring, wall: Wall) -> Holds:
    return Holds(store, wall, wiring, wall)


def texts(store: Store) -> list[str]:
    return [event.text for event in store.events]


async def test_its_begin_actions_and_end_are_events_each_once(
    holds: Holds, store: Store, lock: HolderLock, folder: Path, wall: Wall
) -> None:
    track = store.engines["one"]
    await holds.sample()
    assert track.hold is None and not store.events
    old = Action(80.0, "max_num_seqs", 256, 128, "of before this screen")
    lock.write(replace(STATE, recent=(old,)))
    wall.now = 102.0
    await holds.sample()
    assert track.hold is not None and track.hold.slo == "ttft=1s"
    assert texts(store) == ["one is held for ttft=1s by ann@pts/3, pid 4711"]
    why = "a new request waits 2 s"
    both = [Action(103.0, name, 256, 64, why) for name in ("max_num_seqs", "max_queued_requests")]
    cannot = Action(103.5, "", None, None, "cannot hold")
    lock.write(replace(STATE, recent=(old, *both, cannot)))
    for wall.now in (104.0, 106.0):
        await holds.sample()
    assert texts(store)[1:] == [f"one hold: {why}", "one hold: cannot hold"]
    assert [event.time for event in store.events][1:] == [103.0, 103.5]
    lock.release()
    (folder / LOG).write_text(
        "llmtop: the hold ended: another user or program has set max_num_seqs to 8\n"
    )
    wall.now = 108.0
    await holds.sample()
    assert track.hold is None
    assert texts(store)[3:] == [
        "one is not held now: another user or program has set max_num_seqs to 8"
    ]


async def test_what_an_engine_of_others_has_in_its_folder_is_not_read(
    holds: Holds, store: Store, lock: HolderLock
) -> None:
    store.engines["one"].owned = False
    lock.write(STATE)
    await holds.sample()
    assert store.engines["one"].hold is None and not store.events

"""What is written down of options that are changed for a while, and what that never gets in the
way of."""

from __future__ import annotations

import asyncio
import errno
import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from llmtop.engines.core.endpoint import Endpoint
from llmtop.engines.core.options import OptionValue
from llmtop.engines.core.records import EngineRecord, LaunchSpec, Left
from llmtop.engines.host.private_files import write_whole
from llmtop.engines.host.processes import Identity, Processes
from llmtop.engines.simulated import adapter
from llmtop.engines.state.state_directory import NameBusy, NewerRecord, StateDirectory, StateError
from llmtop.engines.state.temporary_changes import Purpose, TemporaryChanges, drop
from llmtop.operations.session import EngineSession
from llmtop.operations.wiring import Wiring
from llmtop.values import replace
from llmtop.wording.sentences import left_words
from tests.fake_cap import FakeCap

URL = "http://127.0.0.1:9"
RECORD = EngineRecord(
    LaunchSpec("sim", "one", "m", "127.0.0.1", 9, args=("--max-num-seqs", "16")),
    (), (), 4711, 1, "boot", URL, "/nowhere/engine.log", None, 0.0,
)  # fmt: skip
COMPARE = Purpose("compare", {"max_num_seqs": 16})
DEADLINE_S = 30.0


class AllGone(Processes):
    """No llmtop that changed anything lives any more."""

    def alive(self, identity: Identity) -> bool:
        return False


class Disk:
    """Writes files, unless it is full."""

    def __init__(self) -> None:
        self.full = False

    def write(self, path: Path, data: bytes) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_whole(path, data)


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def state(tmp_path: Path, disk: Disk) -> StateDirectory:
    return StateDirectory(tmp_path / "state", tmp_path / "sockets", write=disk.write)


def arguments(record: EngineRecord) -> Mapping[str, OptionValue]:
    return adapter.ADAPTER.launch_options(record.spec.args)


@pytest.fixture
def loans(state: StateDirectory) -> TemporaryChanges:
    return TemporaryChanges(state, Processes(), arguments)


@pytest.fixture
def later(state: StateDirectory) -> TemporaryChanges:
    """As a llmtop sees it after the one that changed something was killed."""
    return TemporaryChanges(state, AllGone(), arguments)


def recalibrate(record: EngineRecord, *args: str) -> EngineRecord:
    """The engine after another start."""
    return replace(record, pid=record.pid + 1, spec=replace(record.spec, args=args))


def entries(state: StateDirectory) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((state.folder("one") / "loans.json").read_bytes())["loans"]
    return found


def test_what_is_not_written_down_is_not_changed_but_always_put_back(
    state: StateDirectory, loans: TemporaryChanges, disk: Disk
) -> None:
    loans.lend(RECORD, COMPARE, {"max_num_seqs": 8})
    disk.full = True
    loans.lend(RECORD, COMPARE, {"max_num_seqs": 8})  # it is on record already
    with pytest.raises(StateError, match="no space left"):
        loans.lend(RECORD, COMPARE, {"max_num_seqs": 4})
    loans.lend(RECORD, COMPARE, {"max_num_seqs": 16})
    loans.observe(RECORD, {"max_num_seqs": 12})
    assert entries(state)["max_num_seqs"]["now"] == 8
    loans.observe(RECORD, {"max_num_seqs": 16})
    assert not (state.folder("one") / "loans.json").exists()


def test_putting_back_what_another_comparison_had_left_needs_no_room_either(
    loans: TemporaryChanges, later: TemporaryChanges, disk: Disk
) -> None:
    loans.lend(RECORD, COMPARE, {"max_num_seqs": 8})
    second = Purpose("compare", {"max_num_seqs": 8})  # as a second one found it
    loans.lend(RECORD, second, {"max_num_seqs": 2})
    disk.full = True
    loans.lend(RECORD, second, {"max_num_seqs": 8})
    disk.full = False
    loans.observe(RECORD, {"max_num_seqs": 8})
    assert later.left(RECORD) == (Left("compare", "max_num_seqs", 16, 8),)


def test_a_name_that_is_held_stops_a_change_and_no_way_back(
    state: StateDirectory, loans: TemporaryChanges
) -> None:
    loans.lend(RECORD, COMPARE, {"max_num_seqs": 8})
    with state.lock("one"):
        with pytest.raises(NameBusy):
            loans.lend(RECORD, COMPARE, {"max_num_seqs": 4})
        loans.lend(RECORD, COMPARE, {"max_num_seqs": 16})
        loans.observe(RECORD, {"max_num_seqs": 16})
    assert not (state.folder("one") / "loans.json").exists()


def test_two_that_write_at_once_lose_nothing(state: StateDirectory) -> None:
    names = [f"option_{number}" for number in range(8)]

    def lend(name: str) -> None:
        TemporaryChanges(state, Processes(), arguments).lend(
            RECORD, Purpose("compare", {name: 1}), {name: 2}
        )

    threads = [threading.Thread(target=lend, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert set(entries(state)) == set(names)


def test_what_a_newer_llmtop_wrote_is_left_as_it_is(
    state: StateDirectory, loans: TemporaryChanges, later: TemporaryChanges
) -> None:
    loans.lend(RECORD, COMPARE, {"max_num_seqs": 8})
    path = state.folder("one") / "loans.json"
    newer = path.read_bytes().replace(b'"schema": 1', b'"schema": 2')
    path.write_bytes(newer)
    assert later.left(RECORD) == ()
    with pytest.raises(NewerRecord, match="a newer llmtop"):
        loans.lend(RECORD, COMPARE, {"max_num_seqs": 4})
    loans.lend(RECORD, COMPARE, {"max_num_seqs": 16})
    loans.observe(RECORD, {"max_num_seqs": 16})
    later.settle(RECORD)
    drop(state, "one")
    assert path.read_bytes() == newer


LENGTH = Purpose("compare", {"max_model_len": 8192})
LONG = ("--max-num-seqs", "16", "--max-model-len", "8192")
SHORTENED = ("--max-num-seqs", "16", "--max-model-len", "4096")
FOUND = recalibrate(RECORD, *LONG)


def test_what_it_was_restarted_with_ends_with_that_process(
    loans: TemporaryChanges, later: TemporaryChanges
) -> None:
    loans.lend(FOUND, LENGTH, {"max_model_len": 4096}, start=["max_model_len"])
    assert later.left(FOUND) == ()  # killed before the start: it is as it was
    started = recalibrate(FOUND, *SHORTENED)
    told = (Left("compare", "max_model_len", 8192, 4096, by_restart=True),)
    assert later.left(started) == told  # killed while it started
    loans.observe(started, {"max_model_len": 4096})
    assert later.left(started) == told
    assert later.left(recalibrate(started, *SHORTENED)) == ()  # another process, months later


def test_a_restart_that_is_rolled_back_settles_nothing(
    loans: TemporaryChanges, later: TemporaryChanges
) -> None:
    loans.lend(FOUND, LENGTH, {"max_model_len": 4096}, start=["max_model_len"])
    started = recalibrate(FOUND, *SHORTENED)
    loans.observe(started, {"max_model_len": 4096})
    told = later.left(started)
    again = recalibrate(started, *SHORTENED)
    later.starting(started)
    later.observe(again, {})
    assert later.left(again) == told != ()
    later.starting(again)  # rolling: the old one was never touched
    later.observe(again, {})
    assert later.left(again) == told
    later.settle(again)
    assert later.left(again) == ()


def test_a_second_comparison_by_restarts_keeps_what_the_first_left(
    loans: TemporaryChanges, later: TemporaryChanges
) -> None:
    loans.lend(FOUND, LENGTH, {"max_model_len": 4096}, start=["max_model_len"])
    left = recalibrate(FOUND, *SHORTENED)
    loans.observe(left, {"max_model_len": 4096})
    seed = Purpose("compare", {"seed": 1})
    later.lend(left, seed, {"seed": 2}, start=["seed"])
    arm = recalibrate(left, *SHORTENED, "--seed", "2")
    later.observe(arm, {"seed": 2})
    back = recalibrate(arm, *SHORTENED)
    later.lend(arm, seed, {"seed": 1}, start=[])
    later.observe(back, {"seed": 1})
    assert later.left(back) == (Left("compare", "max_model_len", 8192, 4096, by_restart=True),)


def test_a_live_value_that_a_start_loses_is_told(
    loans: TemporaryChanges, later: TemporaryChanges
) -> None:
    before = Purpose("compare", {"max_model_len": 8192, "max_num_seqs": 4})  # 4: set as it ran
    wanted = {"max_model_len": 4096, "max_num_seqs": 16}
    loans.lend(FOUND, before, wanted, start=["max_model_len"])
    assert later.left(FOUND) == ()
    started = recalibrate(FOUND, *SHORTENED)
    lost = Left("compare", "max_num_seqs", 4, 16)
    assert lost in later.left(started)
    loans.observe(started, wanted)
    assert lost in later.left(started)
    loans.lend(started, before, {"max_num_seqs": 4})
    loans.observe(started, {"max_num_seqs": 4})
    assert [one.option for one in later.left(started)] == ["max_model_len"]


def test_each_work_answers_for_its_own_and_the_command_can_be_pasted() -> None:
    left = (
        Left("compare", "max_num_seqs", 16, 8),
        Left("the tour", "num_speculative_tokens", 3, 0),
        Left("compare", "dtype", "$(reboot) x", "half", by_restart=True),
    )
    assert left_words("one", left) == (
        "compare was killed: max_num_seqs is 8, was 16, dtype is half, was $(reboot) x; "
        "the tour was killed: num_speculative_tokens is off, was 3: llmtop set one "
        "max_num_seqs=16 num_speculative_tokens=3 dtype='$(reboot) x' --restart"
    )
    assert left_words("one", ()) == ""


def session(loans: TemporaryChanges) -> tuple[EngineSession, FakeCap]:
    cap, endpoint = FakeCap(), Endpoint("one", adapter.ADAPTER, URL, record=RECORD)
    return EngineSession(endpoint, Wiring({}).fetch, live=cap, temporary_changes=loans), cap


async def test_a_full_disk_leaves_an_option_as_it_is_or_lets_it_be_put_back(
    loans: TemporaryChanges, disk: Disk
) -> None:
    engine, cap = session(loans)
    await engine.change({"max_num_seqs": 8}, purpose=COMPARE)
    disk.full = True
    with pytest.raises(StateError):
        await engine.change({"max_num_seqs": 4}, purpose=COMPARE)
    assert cap.value == 8
    await engine.change({"max_num_seqs": 16}, purpose=COMPARE)
    assert cap.value == 16
    await engine.close()


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[tuple[TemporaryChanges, threading.Event, threading.Event]]:
    """Loans on a disk that has begun to write, and goes on when it is told to."""
    begun, go_on = threading.Event(), threading.Event()

    def write(path: Path, data: bytes) -> None:
        begun.set()
        assert go_on.wait(DEADLINE_S)
        write_whole(path, data)

    state = StateDirectory(tmp_path / "slow", tmp_path / "sockets", write=write)
    yield TemporaryChanges(state, Processes(), arguments), begun, go_on
    go_on.set()


async def test_a_slow_disk_holds_up_the_change_and_nothing_else(
    slow: tuple[TemporaryChanges, threading.Event, threading.Event],
) -> None:
    loans, begun, go_on = slow
    engine, cap = session(loans)
    change = asyncio.create_task(engine.change({"max_num_seqs": 8}, purpose=COMPARE))
    assert await asyncio.to_thread(begun.wait, DEADLINE_S)
    assert not go_on.is_set() and cap.value == 16  # we run, and it waits to be written down
    change.cancel()
    await asyncio.sleep(0)
    assert not change.done()  # what puts it back must not be overtaken by this
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await change
    assert cap.value == 16
    await engine.close()

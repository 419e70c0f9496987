"""Processes: identity that survives pid reuse, members that survive their leader."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmtop.engines.host.processes import Identity, Processes, parse_stat
from llmtop.values import replace
from tests.waiting import until

SLEEP = "import time; time.sleep(60)"
PARENT = (
    "import subprocess, sys, time\n"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
    "print('ready', flush=True)\n"
    "time.sleep(60)\n"
)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "engine.log"
    path.touch()
    yield path
    processes = Processes()
    for one in processes.writers(path):
        processes.send(one, signal.SIGKILL)


def start(processes: Processes, log: Path, code: str) -> Identity:
    with log.open("ab") as file:
        return processes.start([sys.executable, "-c", code], os.environ, file.fileno())


def test_a_command_name_may_hold_spaces_and_parentheses() -> None:
    fields = " ".join(str(number) for number in range(4, 53))
    entry = parse_stat(f"42 (VLLM::Engine (1) core) S {fields}")
    assert (entry.pid, entry.state, entry.ppid, entry.session) == (42, "S", 4, 6)
    assert entry.start_ticks == 22
    with pytest.raises(ValueError):
        parse_stat("42 (x) S 1 2")


def test_a_started_process_has_a_session_of_its_own(log: Path) -> None:
    processes = Processes()
    one = start(processes, log, SLEEP)
    assert os.getsid(one.pid) == one.pid
    assert os.readlink(f"/proc/{one.pid}/fd/0") == os.devnull
    assert processes.exit_code(one) is None
    assert processes.send(one, signal.SIGTERM)
    until(lambda: processes.exit_code(one) is not None)
    assert processes.exit_code(one) == -signal.SIGTERM


def test_only_the_standard_handles_are_inherited(log: Path) -> None:
    inheritable = os.dup(0)
    os.set_inheritable(inheritable, True)
    try:
        one = start(Processes(), log, SLEEP)
        assert sorted(os.listdir(f"/proc/{one.pid}/fd"))[:3] == ["0", "1", "2"]
        assert str(inheritable) not in os.listdir(f"/proc/{one.pid}/fd")
    finally:
        os.close(inheritable)


def test_a_zombie_counts_as_dead() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    processes = Processes()
    until(lambda: (entry := processes.entry(child.pid)) is not None and entry.state == "Z")
    entry = processes.entry(child.pid)
    assert entry is not None
    one = Identity(child.pid, entry.start_ticks, processes.boot_id)
    assert not processes.alive(one)
    assert not processes.send(one, signal.SIGKILL)
    child.wait()


def test_another_start_or_another_boot_is_another_process(log: Path) -> None:
    processes = Processes()
    one = start(processes, log, SLEEP)
    assert processes.alive(one)
    for stranger in (replace(one, start_ticks=one.start_ticks - 1), replace(one, boot_id="x")):
        assert not processes.alive(stranger)
        assert not processes.send(stranger, signal.SIGKILL)
    assert processes.members(replace(one, boot_id="x"), log) == []
    assert processes.alive(one)


def test_stopped_shows(log: Path) -> None:
    processes = Processes()
    one = start(processes, log, SLEEP)
    processes.send(one, signal.SIGSTOP)
    until(lambda: processes.state(one) == "T")


def test_age_is_measured_from_the_start(log: Path) -> None:
    processes = Processes()
    before = time.monotonic()
    one = start(processes, log, SLEEP)
    age = processes.age_s(one)
    # A tick is 10 ms.
    assert -0.02 <= age <= time.monotonic() - before + 0.02


def test_members_survive_their_leader(log: Path) -> None:
    processes = Processes()
    leader = start(processes, log, PARENT)
    until(lambda: b"ready" in log.read_bytes())
    assert len(processes.members(leader)) == 2
    processes.send(leader, signal.SIGKILL)
    until(lambda: processes.exit_code(leader) is not None)
    (orphan,) = processes.members(leader, log)
    assert orphan.pid != leader.pid
    assert os.getsid(orphan.pid) == leader.pid
    # A session with that number, but without that log, is somebody else's.
    other = log.with_name("other.log")
    other.touch()
    assert processes.members(leader, other) == []


def test_a_child_in_a_session_of_its_own_is_a_member(log: Path) -> None:
    code = PARENT.replace("sleep(60)'])", "sleep(60)'], start_new_session=True)")
    processes = Processes()
    leader = start(processes, log, code)
    until(lambda: b"ready" in log.read_bytes())
    assert len(processes.members(leader)) == 2
    processes.send(leader, signal.SIGKILL)
    until(lambda: processes.exit_code(leader) is not None)
    assert len(processes.members(leader, log)) == 1


def test_a_session_number_that_was_given_anew_has_no_members_of_ours(log: Path) -> None:
    processes = Processes()
    leader = start(processes, log, SLEEP)
    ours = replace(leader, start_ticks=leader.start_ticks - 1)
    elsewhere = log.with_name("elsewhere.log")
    elsewhere.touch()
    assert processes.members(ours, elsewhere) == []


def test_a_program_that_cannot_be_executed_is_an_error(log: Path) -> None:
    with log.open("ab") as file, pytest.raises(FileNotFoundError):
        Processes().start(["/no/such/program"], os.environ, file.fileno())

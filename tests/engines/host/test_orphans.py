"""Orphans of engines: found among real processes, ended with what they started, nobody else."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from llmtop import UsageError
from llmtop.engines.host.orphans import end_orphan, find_orphans, look_up
from llmtop.engines.host.processes import Processes
from llmtop.values import replace
from tests.orphaned import TITLE, gone, orphan

pytestmark = pytest.mark.process


def pids() -> set[int]:
    return {one.pid for one in find_orphans(Processes())}


@pytest.mark.parametrize(
    "title",
    [TITLE, "VLLM::EngineCore_DP1", "VLLM::Worker_TP0", "sglang::scheduler_TP1"],
)
def test_an_engine_process_without_a_parent_is_found_and_described(title: str) -> None:
    with orphan(title) as pid:
        (found,) = [one for one in find_orphans(Processes()) if one.pid == pid]
        assert found.title.startswith(title)
        assert found.uid == os.geteuid()
        assert found.age_s < 60
        assert found.memory_bytes > 2**20


@pytest.mark.parametrize(
    "title", ["VLLM::APIServer", "sglang::tokenizer_worker", "python", "vim VLLM::EngineCore"]
)
def test_the_head_of_an_engine_and_strangers_are_no_orphans(title: str) -> None:
    with orphan(title) as pid:
        assert pid not in pids()
        with pytest.raises(UsageError, match="not an orphan"):
            look_up(pid, Processes())


def test_a_process_whose_parent_lives_is_no_orphan() -> None:
    child = subprocess.Popen(
        [TITLE, "-c", "import time; print(); time.sleep(120)"],
        executable=sys.executable,
        stdout=subprocess.PIPE,
    )
    with child:
        assert child.stdout is not None
        child.stdout.readline()
        try:
            assert child.pid not in pids()
        finally:
            child.kill()


def test_what_belongs_to_a_living_engine_of_ours_is_left_alone() -> None:
    with orphan() as pid:
        assert pid not in {one.pid for one in find_orphans(Processes(), {pid})}
        with pytest.raises(UsageError, match="living engine"):
            look_up(pid, Processes(), {pid})


def test_an_orphan_is_ended_with_what_it_started() -> None:
    processes = Processes()
    with orphan(with_child=True) as pid:
        one = look_up(pid, processes)
        assert len(one.pids) == 2
        end_orphan(one, processes)
        assert [gone(each) for each in one.pids] == [True, True]


def test_one_that_ignores_the_request_is_killed() -> None:
    processes = Processes()
    with orphan(stubborn=True) as pid:
        end_orphan(look_up(pid, processes), processes, grace_s=0.2)
        assert gone(pid)


def test_a_pid_that_is_another_process_by_now_is_not_ended() -> None:
    processes = Processes()
    with orphan() as pid:
        one = look_up(pid, processes)
        earlier = replace(one, who=replace(one.who, start_ticks=one.who.start_ticks - 5))
        with pytest.raises(UsageError, match="another process"):
            end_orphan(earlier, processes)
        assert pid in pids()


def test_another_users_orphan_is_shown_and_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with orphan() as pid:
        monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)
        assert pid in pids()
        with pytest.raises(UsageError, match="belongs to the user"):
            look_up(pid, Processes())


def test_no_such_process() -> None:
    with orphan(stubborn=False) as pid:
        pass
    assert gone(pid)
    with pytest.raises(UsageError, match=r"there is no process|not an orphan"):
        look_up(pid, Processes())

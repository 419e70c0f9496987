"""What befalls a real SGLang, and what llmtop makes of it: restarts, rollbacks, sudden deaths.

The tests run in order: each takes the engine that the one before it left. What follows in other
files takes the last one.
"""

from __future__ import annotations

import os
import re
import signal

import pytest

from tests.engines_live.engine import START_S, Engine
from tests.engines_live.scenario import (
    NAME,
    alive,
    child,
    died,
    family,
    frozen_and_back,
    longest,
    told,
    value,
    watcher_dies,
)
from tests.llmtop_process import Home


@pytest.fixture(scope="module")
def home(sglang_home: Home, sglang_engine: Engine) -> Home:
    assert told(sglang_home)["pid"] == sglang_engine.pid
    return sglang_home


def test_an_engine_that_a_signal_holds_is_unresponsive_until_it_goes_on(home: Home) -> None:
    pid = int(told(home)["pid"])
    frozen_and_back(home, pid)
    frozen_and_back(home, child(family(pid), "sglang::scheduler"))


def test_it_outlives_the_llmtop_that_watches(home: Home) -> None:
    watcher_dies(home, int(told(home)["pid"]), signal.SIGKILL)


def test_an_option_that_needs_a_restart_gets_one(home: Home) -> None:
    pids = family(int(told(home)["pid"]))
    done = home.run(
        "set", NAME, "context_length=1024", "--restart", "--yes", "--json", timeout=START_S
    )
    assert done.code == 0, done.err
    assert f"{NAME}: restart, about " in done.err and "no request is in flight" in done.err
    assert done.json["restart"]["outcome"] == "restarted"
    assert done.json["restart"]["pid"] == told(home)["pid"] not in pids
    assert [pid for pid in pids if alive(pid)] == []
    assert longest(home) == value(home, "context_length") == 1024


def test_what_does_not_start_is_rolled_back_and_the_words_say_why(home: Home) -> None:
    done = home.run(
        *("restart", NAME, "max_queued_requests=50", "--json"),
        *("--", "--speculative-algorithm", "PSYCHIC"),
        timeout=2 * START_S,
    )
    assert done.code == 1
    restart = done.json["restart"]
    assert restart["outcome"] == "rolled back"
    assert "PSYCHIC" in restart["reason"] and restart["log_excerpt"]
    assert not re.search(r"^Traceback", done.err, re.MULTILINE)  # of llmtop's own
    assert told(home)["state"] == "ready" and longest(home) == 1024
    assert value(home, "max_queued_requests") != 50


def test_a_killed_scheduler_is_named_and_it_can_be_started_again(home: Home) -> None:
    pids = family(int(told(home)["pid"]))
    os.kill(child(pids, "sglang::scheduler"), signal.SIGKILL)
    assert "its process scheduler_0 was killed" in died(home, pids, 120)["detail"]
    done = home.run("restart", NAME, "context_length=2048", "--yes", timeout=START_S)
    assert done.code == 0, done.err
    assert told(home)["state"] == "ready" and longest(home) == 2048

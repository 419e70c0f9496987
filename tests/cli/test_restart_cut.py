"""Restarts whose llmtop is killed in the midst: nothing is lost, and the next one can mend it.

One engine serves the file; the tests run in order.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.folders import TESTS
from tests.llmtop_process import Home, command, home_with_engine
from tests.waiting import until

pytestmark = pytest.mark.process

DEADLINE_S = 60.0
QUICK = ("--startup-s", "0.2", "--max-num-seqs", "64")
CUT = "llmtop exited during a restart: `llmtop restart one` brings the last good configuration back"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with home_with_engine(tmp_path_factory.mktemp("home"), "one", *QUICK) as home:
        yield home


def told(home: Home, name: str = "one") -> dict[str, Any]:
    (found,) = [e for e in home.run("ps", "--json").json["engines"] if e["name"] == name]
    return dict(found)


def recorded_pid(home: Home, name: str = "one") -> int:
    """Whose process the record speaks of; 0 before there is one. Cheaper than to ask llmtop."""
    path = note_of(home, name).with_name("record.json")
    return int(json.loads(path.read_bytes())["record"]["pid"]) if path.exists() else 0


def note_of(home: Home, name: str = "one") -> Path:
    return home.folder / "state" / "llmtop" / "engines" / name / "restart.json"


def arguments(home: Home) -> list[str]:
    return Path(f"/proc/{recorded_pid(home)}/cmdline").read_text().split("\0")


@contextlib.contextmanager
def restarting(home: Home, *args: str) -> Iterator[subprocess.Popen[str]]:
    """``llmtop restart one ARGS`` under way, the new process recorded and starting."""
    before = recorded_pid(home)
    process = subprocess.Popen(
        command("restart", "one", "--yes", *args),
        env=home.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        until(lambda: recorded_pid(home) not in (0, before), "the new process")
        yield process
    finally:
        kill(process)


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait(DEADLINE_S)


def brought_back(home: Home, *args: str) -> None:
    done = home.run("restart", "one", "--yes", *args)
    assert done.code == 0, done.err
    assert "continuing from the last good configuration" in done.err
    found = told(home)
    assert (found["state"], found["detail"]) == ("ready", "")
    line = arguments(home)
    assert line[line.index("--startup-s") + 1] == "0.2"
    assert line[line.index("--max-num-seqs") + 1] == "64"
    assert not note_of(home).exists()


def test_killed_between_stop_and_start(home: Home) -> None:
    pid = told(home)["pid"]
    process = subprocess.Popen(
        [sys.executable, str(TESTS / "cut_restart.py"), "one"],
        env=home.environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "stopped\n"
    # While it is under way it is said, and nobody else may begin another.
    assert told(home)["detail"] == f"llmtop (pid {process.pid}) restarts it"
    second = home.run("restart", "one", "--yes")
    assert second.code == 1 and f"another llmtop (pid {process.pid})" in second.err
    # Nor is somebody told that it is stopped now.
    stopped = home.run("stop", "one")
    assert stopped.code == 1 and "is down and will start" in stopped.err
    kill(process)
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        pipe.close()

    found = told(home)
    assert found["state"] == "stopped" and CUT in found["detail"]
    assert stat.S_IMODE(note_of(home).stat().st_mode) == 0o600
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    brought_back(home)


@pytest.mark.more
def test_killed_while_the_new_one_starts_which_then_dies(home: Home) -> None:
    with restarting(home, "max_model_len=4096", "--", "--startup-s", "300") as process:
        kill(process)
        found = told(home)
        assert found["state"] == "starting"  # it goes on by itself, and is adopted
        os.kill(found["pid"], signal.SIGKILL)
        until(lambda: told(home)["state"] != "starting", "the end")
        assert CUT in told(home)["detail"]
        # With a change on top, too, it begins at the last good one.
        brought_back(home, "max_num_batched_tokens=4096")
        assert "4096" in arguments(home)


@pytest.mark.more
def test_killed_while_the_new_one_starts_and_it_is_not_wanted(home: Home) -> None:
    with restarting(home, "--", "--startup-s", "300") as process:
        new = recorded_pid(home)
        kill(process)
        brought_back(home)
        with pytest.raises(ProcessLookupError):
            os.kill(new, 0)


@pytest.mark.more
def test_a_new_one_that_becomes_ready_by_itself_ends_the_matter(home: Home) -> None:
    with restarting(home, "max_model_len=4096", "--", "--startup-s", "3") as process:
        kill(process)
        until(lambda: told(home)["state"] == "ready", "the new one")
        assert told(home)["detail"] == "" and not note_of(home).exists()
        assert "4096" in arguments(home)


def test_a_dropped_connection_does_not_cut_a_restart(home: Home) -> None:
    with restarting(home, "max_model_len=2048", "--", "--startup-s", "2") as process:
        os.killpg(process.pid, signal.SIGHUP)
        assert process.wait(DEADLINE_S) == 0
        assert told(home)["state"] == "ready" and not note_of(home).exists()
        assert "2048" in arguments(home)


@pytest.mark.more
def test_a_damaged_note_is_no_reason_to_fail(home: Home) -> None:
    for text in ('{"intent": ', "[" * 100_000, '{"intent": {"good": 1}}', "\xff"):
        note_of(home).write_text(text)
        assert told(home)["state"] == "ready"


@pytest.mark.more
def test_a_rolling_restart_that_is_cut_short_names_both(home: Home) -> None:
    old = told(home)["pid"]
    process = subprocess.Popen(
        command("restart", "one", "--rolling", "--yes", "--", "--startup-s", "2"),
        env=home.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    until(lambda: recorded_pid(home, "one-new") != 0, "the second one")
    kill(process)
    until(lambda: told(home, "one-new")["state"] == "ready", "the second one to be ready")
    assert "llmtop stop one or llmtop stop one-new" in told(home, "one-new")["detail"]
    assert (told(home)["pid"], told(home)["state"]) == (old, "ready")


@pytest.mark.more
def test_a_stop_ends_the_matter_too(home: Home) -> None:
    with restarting(home, "--", "--startup-s", "300") as process:
        kill(process)
        assert home.run("stop", "one").code == 0
        assert told(home)["detail"] == ""
        assert not note_of(home).exists()

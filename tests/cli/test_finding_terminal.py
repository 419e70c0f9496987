"""Searching and comparing on a real pseudo terminal, and what is left when it goes away."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import engine_page
from tests.llmtop_process import Home, demo
from tests.terminal import Terminal
from tests.waiting import until

pytestmark = pytest.mark.process

DOWN = "\x1b[B"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home.make(tmp_path)
    yield home
    home.stop_all()


def cap(home: Home) -> int:
    (engine,) = home.run("ps", "--json").json["engines"]
    options = home.run("options", engine["name"], "--json").json["options"]
    return int(next(one["value"] for one in options if one["name"] == "max_num_seqs"))


def running(home: Home) -> int:
    (engine,) = home.run("ps", "--json").json["engines"]
    return engine_page.running(engine["url"])


@pytest.mark.more
def test_a_search_goes_on_behind_the_dashboard_and_ends_with_llmtop(home: Home) -> None:
    with Terminal(demo("--no-load"), home.environ, 80, 24) as terminal:
        terminal.see("ready")
        terminal.type("s")
        terminal.see("ttft=500ms,tpot=50ms")
        terminal.type(DOWN + "16" + DOWN + "600\r")
        terminal.see("level 1: 4 streams, measuring", 120)
        terminal.type("\x1b")
        terminal.see("max_num_seqs")
        terminal.type("+")
        terminal.see("a search is running")
        os.kill(terminal.pid, signal.SIGTERM)
        terminal.wait()
    until(lambda: running(home) == 0, "the end of the load")


@pytest.mark.more
def test_a_terminal_that_hangs_up_in_a_comparison_leaves_the_option_as_it_was(home: Home) -> None:
    with Terminal(demo("--no-load"), home.environ) as terminal:
        terminal.see("ready")
        terminal.see("max_num_seqs")
        before = cap(home)
        terminal.type("c")
        terminal.see("prompt tokens")
        terminal.type(DOWN + "8\r")
        terminal.see("run 1 of 20", 120)
        until(lambda: cap(home) == 8, "A in force")
        os.kill(terminal.pid, signal.SIGHUP)
        terminal.wait()
    until(lambda: cap(home) == before, "the value from before")
    until(lambda: running(home) == 0, "the end of the load")

"""Ctrl+C ends every command with 130, whatever it is doing; what is known is printed first."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import click
import pytest

from llmtop.cli.common.interrupts import INTERRUPTED, by_ctrl_c
from llmtop.cli.common.status_line import soon
from llmtop.wording.sentences import remaining
from tests.engine_page import running
from tests.llmtop_process import Home, command, demo, free_port
from tests.terminal import Terminal
from tests.tiers import first

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    home = Home.make(tmp_path_factory.mktemp("home"))
    yield home
    home.stop_all()


@pytest.fixture(scope="module")
def engine(home: Home) -> str:
    port = str(free_port())
    args = ("run", "sim", "--detach", "--json", "--name", "one", "--port", port)
    done = home.run(*args, "--", "--startup-s", "0")
    assert done.code == 0, done.err
    return "one"


def interrupted(home: Home, words: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Press Ctrl+C once these words came, on either output; how it ended."""
    with subprocess.Popen(
        command(*args),
        env=home.environ,
        cwd=home.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        said = ""
        stream = process.stdout if args[0] == "logs" else process.stderr
        while words not in said:
            line = stream.readline()
            assert line, said
            said += line
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    done = subprocess.CompletedProcess(args, process.returncode, out, err)
    assert "Traceback" not in err + out
    return done


SLOW = ("--", "--startup-s", "600")


@pytest.mark.parametrize(
    ("words", "args"),
    first(2, [
        ("in flight", ("load", "one", "-c", "2", "-d", "10m", "--no-calibrate")),
        ("calibrating", ("load", "one", "-d", "10m", "--calibrate")),
        ("calibrating", ("calibrate",)),
        ("level 1", ("saturate", "one", "--level-seconds", "10m", "--no-calibrate")),
        ("calibrating", ("saturate", "one", "--calibrate")),
        ("run 1", ("compare", "one", "--a", "max_num_seqs=4", "--b", "max_num_seqs=8",
                   "--run-seconds", "10m", "--no-calibrate")),
        ("simulated", ("logs", "one", "-f")),
        ("weights", ("run", "sim", "--detach", "--name", "slow", "--port", "{port}", *SLOW)),
    ], 2),
)  # fmt: skip
def test_every_command_ends_with_130(
    home: Home, engine: str, words: str, args: tuple[str, ...]
) -> None:
    done = interrupted(home, words, *(arg.format(port=free_port()) for arg in args))
    assert done.returncode == INTERRUPTED, done.stderr


def test_of_engines_that_start_it_is_130_too_and_they_are_named(home: Home) -> None:
    (home.folder / "llmtop.toml").write_text(
        f"[engines.a]\nengine = 'sim'\nport = {free_port()}\nargs = ['--startup-s', '600']\n"
    )
    done = interrupted(home, "weights", "up")
    assert done.returncode == INTERRUPTED
    assert "`llmtop down` stops them" in done.stderr and "llmtop: interrupted" in done.stderr
    home.run("down", "--grace", "1")


def test_a_load_prints_its_result_first(home: Home, engine: str) -> None:
    done = interrupted(
        home, " ok", "load", engine, "-c", "2", "-d", "600", "--output-tokens", "8",
        "--no-calibrate",
    )  # fmt: skip
    assert done.returncode == INTERRUPTED
    assert "TTFT" in done.stdout
    as_json = subprocess.Popen(
        command("load", engine, "-d", "600", "--json", "--no-calibrate"),
        env=home.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with as_json:
        url = home.url(engine)
        while not running(url):
            assert as_json.poll() is None
            time.sleep(0.05)
        as_json.send_signal(signal.SIGINT)
        out, _ = as_json.communicate(timeout=60)
    assert as_json.returncode == INTERRUPTED
    assert json.loads(out)["name"] == engine


def leave_by_key(terminal: Terminal) -> None:
    terminal.type("\x03")
    terminal.see("leave them running")
    terminal.type("\x03")


def leave_by_signal(terminal: Terminal) -> None:
    os.kill(terminal.pid, signal.SIGINT)


@pytest.mark.parametrize("leave", first(1, [leave_by_key, leave_by_signal]))
def test_a_dashboard_that_is_left_by_ctrl_c_says_so(
    home: Home, leave: Callable[[Terminal], None]
) -> None:
    with Terminal(demo("--no-load"), home.environ) as terminal:
        terminal.see("ready")
        leave(terminal)
        assert terminal.wait() == INTERRUPTED
        assert "keeps running" in terminal.text


def test_only_ctrl_c_is_an_interruption_of_a_question() -> None:
    for cause, expected in ((KeyboardInterrupt(), True), (EOFError(), False)):
        try:
            try:
                raise cause
            except BaseException:
                raise click.Abort from None
        except click.Abort as stop:
            assert by_ctrl_c(stop) is expected
    assert by_ctrl_c(click.Abort()) is False


def test_what_is_over_time_is_not_said_to_have_0_s_left() -> None:
    assert remaining(12) == "about 12s left"
    assert remaining(0.1) == remaining(-3) == "longer than estimated"
    assert soon(2) == "2s left" and soon(0.2) == "almost done"


@pytest.mark.more
def test_a_load_whose_shape_has_ended_says_what_it_waits_for(home: Home, engine: str) -> None:
    with subprocess.Popen(
        command("load", engine, "-c", "1", "-d", "1", "--output-tokens", "4000", "--no-calibrate"),
        env=home.environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    ) as load:  # fmt: skip
        assert load.stderr is not None
        said = ""
        while "waiting for the last answers" not in said:
            line = load.stderr.readline()
            assert line, said
            said += line
        load.kill()
    assert " 0s left" not in said and "at most" in said
